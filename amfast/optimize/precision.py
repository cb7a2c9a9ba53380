"""What 16-bit numbers ask of the loss (docs/precision.md)."""

from __future__ import annotations

import torch

#: Where fp16's loss scale starts for every trial. Gradients of the log-probability in the last
#: layers of a generator lie around 1e-6, below fp16's normal numbers; a power of two, so that
#: dividing it out again is exact.
FP16_LOSS_SCALE = 1024.0


def initial_loss_scale(*networks: object) -> float:
    """1024 if a network says, by its attribute ``dtype``, that it computes in fp16, else 1."""
    in_fp16 = any(getattr(network, "dtype", None) == torch.float16 for network in networks)
    return FP16_LOSS_SCALE if in_fp16 else 1.0
