"""How far a result may be from float64, per dtype. These never loosen, in CI or anywhere else.

``rtol`` is relative to the expected value, ``atol`` to one: probabilities, log-probabilities and
pixels are of that order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    rtol: float
    atol: float


TOLERANCES = {
    torch.float64: Tolerance(rtol=1e-12, atol=1e-12),
    torch.float32: Tolerance(rtol=2e-6, atol=2e-6),
    torch.float16: Tolerance(rtol=1e-3, atol=1e-5),
    torch.bfloat16: Tolerance(rtol=8e-3, atol=1e-5),
}

# In half types an op may err at most this many times as much as PyTorch does on the same input.
HALF_ERROR_FACTOR = 2.0
