"""The log-probability of a target class per row of logits: the objective's log P(y | G(c, z))."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import (
    FLOAT_DTYPES,
    accumulator,
    check_impl,
    check_tensor,
    dtype_name,
    has_values,
)
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative


def target_log_prob(
    logits: Tensor, target: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> Tensor:
    """Log-softmax of each row of ``logits`` at its target class.

    Args:
        logits: ``[N, C]`` with C >= 1, float32, float64, bfloat16 or float16; N may be 0.
        target: ``[N]`` int64, class indices in ``[0, C)``, on the device of ``logits``.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``target_log_prob_ref``, which is differentiable any number of times.

    Returns:
        ``[N]`` natural logarithms, float64 for float64 logits and float32 otherwise (sums run in
        that dtype too). A row with a NaN or +inf, or with nothing but -inf, gives NaN and leaves
        the other rows alone. The gradient has the dtype and shape of ``logits``.

    Raises:
        UsageError: wrong rank, size, dtype or device of an argument, an unknown ``impl``, or a
            target outside ``[0, C)``. The last is only looked for on the CPU: on CUDA the look
            would stop the host until the device is done, so there (and inside ``torch.compile``)
            such a row gives NaN, and a gradient of NaN.
    """
    return target_log_prob_and_top1(logits, target, impl=impl)[0]


def target_log_prob_and_top1(
    logits: Tensor, target: Tensor, *, impl: Literal["auto", "ref"] = "auto"
) -> tuple[Tensor, Tensor]:
    """``target_log_prob`` and, from the same read of ``logits``, each row's most probable class.

    Arguments and errors are those of ``target_log_prob``.

    Returns:
        The log-probabilities, and ``[N]`` int64: the index of the row's largest logit, the lowest
        where several are; -1 where the row gives NaN whatever its target.
    """
    check_impl(impl)
    _check_arguments(logits, target)
    if impl == "ref":
        log_probs, _, top1 = _forward_ref(logits, target)
    else:
        log_probs, _, top1 = _FORWARD(logits, target)
    return log_probs, top1


def target_log_prob_ref(logits: Tensor, target: Tensor) -> Tensor:
    """The specification of ``target_log_prob``, in plain PyTorch."""
    return _forward_ref(logits, target)[0]


def _forward_ref(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities ``[N]``, the log-sum-exp in two parts ``[2, N]``, top-1 ``[N]``.

    The parts are each row's maximum and the log of its sum of exp(x - maximum). Added up in float32
    for logits near 1e4, they would lose the digits the gradient is made of.
    """
    x = logits.to(accumulator(logits.dtype))
    # [N]; the result does not depend on it, so neither does the gradient
    row_max = x.amax(1).detach()
    log_sum = (x - row_max[:, None]).exp().sum(1).log()  # [N]
    in_range = (target >= 0) & (target < x.shape[1])
    target_logit = x.gather(1, target.where(in_range, 0)[:, None])[:, 0]
    log_probs = (target_logit - row_max - log_sum) * _nan_unless(in_range, x)
    top1 = x.argmax(1).where(~log_sum.isnan(), -1)
    return log_probs, torch.stack([row_max, log_sum]), top1


def _backward_ref(dlog_probs: Tensor, logits: Tensor, target: Tensor, lse: Tensor) -> Tensor:
    """Gradient with respect to ``logits``, ``[N, C]``, from the result's, ``[N]``."""
    x = logits.to(lse.dtype)
    in_range = (target >= 0) & (target < x.shape[1])
    d = (dlog_probs * _nan_unless(in_range, x))[:, None]  # [N, 1]
    probs = (x - lse[0, :, None] - lse[1, :, None]).exp()
    is_target = torch.arange(x.shape[1], device=x.device) == target[:, None]
    return (d * (is_target.to(x.dtype) - probs)).to(logits.dtype).contiguous()


def _nan_unless(condition: Tensor, like: Tensor) -> Tensor:
    """1 where ``condition`` holds, else NaN: as a factor it poisons value and gradient alike."""
    return torch.where(condition, like.new_ones(()), like.new_full((), float("nan")))


def _forward_fake(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, dtype = logits.shape[0], accumulator(logits.dtype)
    log_probs, lse = (
        logits.new_empty((rows,), dtype=dtype),
        logits.new_empty((2, rows), dtype=dtype),
    )
    return log_probs, lse, logits.new_empty((rows,), dtype=torch.int64)


def _backward_fake(dlog_probs: Tensor, logits: Tensor, target: Tensor, lse: Tensor) -> Tensor:
    return logits.new_empty(logits.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
    logits, target = inputs
    _, lse, top1 = output
    ctx.save_for_backward(logits, target, lse)
    ctx.mark_non_differentiable(lse, top1)
    ctx.set_materialize_grads(False)  # lse's gradient would be zeros that nobody reads


def _backward(
    ctx: Any, dlog_probs: Tensor | None, dlse: None, dtop1: None
) -> tuple[Tensor | None, None]:
    if dlog_probs is None:
        return None, None
    logits, target, lse = ctx.saved_tensors
    return _BACKWARD(dlog_probs, logits, target, lse), None


def _check_arguments(logits: Tensor, target: Tensor) -> None:
    check_tensor("logits", logits)
    check_tensor("target", target)
    if logits.dtype not in FLOAT_DTYPES:
        accepted = ", ".join(dtype_name(dtype) for dtype in FLOAT_DTYPES)
        raise UsageError(f"logits are {dtype_name(logits.dtype)}; they must be one of {accepted}.")
    if logits.dim() != 2 or logits.shape[1] == 0:
        raise UsageError(
            f"logits have shape {list(logits.shape)}; they must be [N, C], with at least one class."
        )
    if target.dtype != torch.int64:
        raise UsageError(
            f"target is {dtype_name(target.dtype)}; it must be int64: call target.long() first."
        )
    if target.dim() != 1 or target.shape[0] != logits.shape[0]:
        raise UsageError(
            f"target has shape {list(target.shape)}; logits of shape {list(logits.shape)} "
            f"need one class per row, [{logits.shape[0]}]."
        )
    if target.device != logits.device:
        raise UsageError(
            f"target is on {target.device} and logits are on {logits.device}; "
            "they must be on one device: call target.to(logits.device) first."
        )
    _check_range(target, logits.shape[1])


def _check_range(target: Tensor, classes: int) -> None:
    if not has_values(target) or target.numel() == 0:
        return
    low, high = (int(bound) for bound in target.aminmax())
    if low < 0 or high >= classes:
        raise UsageError(
            f"target holds class {low if low < 0 else high}; "
            f"with {classes} columns of logits it must be from 0 to {classes - 1}."
        )


_FORWARD = define_op(
    "target_log_prob(Tensor logits, Tensor target) -> (Tensor log_probs, Tensor lse, Tensor top1)",
    reference=_forward_ref,
    fake=_forward_fake,
    triton="target_log_prob.forward",
)
_BACKWARD = define_op(
    "target_log_prob_backward(Tensor dlog_probs, Tensor logits, Tensor target, Tensor lse)"
    " -> Tensor",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="target_log_prob.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.target_log_prob")
