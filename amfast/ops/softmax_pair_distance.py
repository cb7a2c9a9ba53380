"""How far apart the class probabilities of listed pairs of rows are: a diversity term."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import (
    accumulator,
    check_float,
    check_impl,
    check_pairs,
    check_same_device,
)
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative


def softmax_pair_distance(
    logits: Tensor, pairs: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """|softmax(logits[i]) - softmax(logits[j])| for every pair (i, j), |.| being Euclidean.

    The explicit diversity term of Li et al., "A cost-effective method for improving and
    re-purposing large, pre-trained GANs by fine-tuning their class-embeddings" (ACCV 2020, section
    3.5), with phi the classifier's softmax: the numerator of |phi(x_i) - phi(x_j)| / |z_i - z_j|.
    ``logits``, ``pairs``, the distances and two numbers per row are kept for the backward. No
    kernel holds the differences; that on CUDA does not hold the probabilities either.

    Args:
        logits: ``[N, C]`` with C >= 1, float32, float64, bfloat16 or float16; N may be 0.
        pairs: ``[P, 2]`` int64, indices of rows in ``[0, N)``, on the device of ``logits``. A row
            may be in any number of pairs, also twice in one.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``softmax_pair_distance_ref``, which is differentiable any number of times.

    Returns:
        ``[P]`` distances from 0 to sqrt(2), float64 for float64 logits and float32 otherwise (all
        arithmetic runs in that dtype); exactly 0 for rows of equal logits. A row with a NaN or
        +inf, or with nothing but -inf, makes its pairs NaN and leaves the others alone. The
        gradient has the dtype and shape of ``logits``, is the same from run to run, and takes
        nothing from pairs at distance 0, where there is none.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, an unknown ``impl``, or an
            index outside ``[0, N)``. The last is only looked for on the CPU: on CUDA the look
            would stop the host until the device is done, so there (and inside ``torch.compile``)
            such a pair gives NaN, and a gradient of NaN to the other row.
    """
    check_impl(impl)
    _check_arguments(logits, pairs)
    if impl == "ref":
        return softmax_pair_distance_ref(logits, pairs)
    distances: Tensor = _FORWARD(logits, pairs)[0]
    return distances


def softmax_pair_distance_ref(logits: Tensor, pairs: Tensor) -> Tensor:
    """The specification of ``softmax_pair_distance``, in plain PyTorch."""
    return _forward_ref(logits, pairs)[0]


def _forward_ref(logits: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Distances ``[P]`` and, for the backward, the log-sum-exp in two parts ``[2, N]``.

    The parts are each row's maximum and the log of its sum of exp(x - maximum), as in
    ``target_log_prob``.
    """
    x = logits.to(accumulator(logits.dtype))
    row_max = x.amax(1).detach()  # [N]; the result does not depend on it
    lse = torch.stack([row_max, (x - row_max[:, None]).exp().sum(1).log()])
    squares = _differences(_probs(x, lse), pairs).square().sum(1)
    same = squares == 0  # sqrt has no finite derivative there
    return squares.masked_fill(same, 1).sqrt().masked_fill(same, 0), lse


def _probs(x: Tensor, lse: Tensor) -> Tensor:
    """Of logits in the dtype of ``lse``: ``[N, C]``."""
    return (x - lse[0, :, None] - lse[1, :, None]).exp()


def _rows(pairs: Tensor, count: int) -> Tensor:
    """``pairs`` with ``count``, the row after the last, for what is out of range: ``[P, 2]``."""
    return pairs.where((pairs >= 0) & (pairs < count), count)


def _differences(probs: Tensor, pairs: Tensor) -> Tensor:
    """p_i - p_j for every pair (i, j), NaN where an index is out of range: ``[P, C]``."""
    rows = _rows(pairs, probs.shape[0])
    padded = F.pad(probs, (0, 0, 0, 1), value=float("nan"))
    return padded[rows[:, 0]] - padded[rows[:, 1]]


def _backward_ref(
    ddistances: Tensor, logits: Tensor, pairs: Tensor, distances: Tensor, lse: Tensor
) -> Tensor:
    """Gradient with respect to ``logits``, ``[N, C]``, from the result's, ``[P]``."""
    probs = _probs(logits.to(lse.dtype), lse)
    rows = _rows(pairs, probs.shape[0])
    factor = (ddistances / distances).masked_fill(distances == 0, 0)
    d = factor[:, None] * _differences(probs, pairs)  # [P, C]
    dpadded = probs.new_zeros(probs.shape[0] + 1, probs.shape[1])
    dpadded = dpadded.index_add(0, rows[:, 0], d).index_add(0, rows[:, 1], -d)
    dprobs = dpadded[:-1]
    dlogits = probs * (dprobs - (dprobs * probs).sum(1, keepdim=True))
    return dlogits.to(logits.dtype).contiguous()


def _forward_fake(logits: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulator(logits.dtype)
    distances = logits.new_empty((pairs.shape[0],), dtype=dtype)
    return distances, logits.new_empty((2, logits.shape[0]), dtype=dtype)


def _backward_fake(
    ddistances: Tensor, logits: Tensor, pairs: Tensor, distances: Tensor, lse: Tensor
) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    distances, lse = output
    ctx.save_for_backward(*inputs, distances, lse)
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)  # lse's gradient would be zeros that nobody reads


def _backward(ctx: Any, ddistances: Tensor | None, dlse: None) -> tuple[Tensor | None, None]:
    if ddistances is None:
        return None, None
    return _BACKWARD(ddistances, *ctx.saved_tensors), None


def _check_arguments(logits: Tensor, pairs: Tensor) -> None:
    check_float("logits", logits)
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise UsageError(
            f"logits has shape {list(logits.shape)}; it must be [N, C], with at least one class."
        )
    check_pairs(pairs, "rows of logits", len(logits))
    check_same_device("pairs", pairs, "logits", logits)


_FORWARD = define_op(
    "softmax_pair_distance(Tensor logits, Tensor pairs) -> (Tensor distances, Tensor lse)",
    reference=_forward_ref,
    fake=_forward_fake,
    triton="softmax_pair_distance.forward",
)
_BACKWARD = define_op(
    "softmax_pair_distance_backward(Tensor ddistances, Tensor logits, Tensor pairs,"
    " Tensor distances, Tensor lse) -> Tensor",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="softmax_pair_distance.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.softmax_pair_distance")
