"""``target_log_prob`` in Triton: one program reads one row of logits."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from amfast.ops._checks import accumulator
from amfast.ops.triton._launch import ROUNDING, on_device_of, triton_accumulator

#: Classes that a program holds at once: ImageNet's in one go, larger sets in several.
MOST_CLASSES = 4096


@triton.jit
def _forward_kernel(
    logits,
    target,
    log_probs,
    lse,
    top1,
    rows,
    classes,
    row_stride,
    target_stride,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_logits = logits + row * row_stride
    largest = tl.full((), -float("inf"), ACC)
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(row_logits + columns, mask=columns < classes, other=-float("inf")).to(ACC)
        # A NaN is left to the sum, which carries it.
        largest = tl.maximum(largest, tl.max(tl.where(x == x, x, -float("inf"))))
    total = tl.zeros((), ACC)
    place = classes
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(row_logits + columns, mask=columns < classes, other=-float("inf")).to(ACC)
        total += tl.sum(tl.where(columns < classes, tl.exp(x - largest), 0.0))
        place = tl.minimum(place, tl.min(tl.where(x == largest, columns, classes)))
    log_sum = tl.log(total)
    wanted = tl.load(target + row * target_stride)
    in_range = (wanted >= 0) & (wanted < classes)
    at_target = tl.load(row_logits + wanted, mask=in_range, other=float("nan")).to(ACC)
    tl.store(log_probs + row, at_target - largest - log_sum)
    tl.store(lse + row, largest)
    tl.store(lse + rows + row, log_sum)
    tl.store(top1 + row, tl.where(log_sum == log_sum, place, -1).to(tl.int64))


@triton.jit
def _backward_kernel(
    dlog_probs,
    logits,
    target,
    lse,
    dlogits,
    rows,
    classes,
    dlog_probs_stride,
    row_stride,
    target_stride,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    largest = tl.load(lse + row)
    log_sum = tl.load(lse + rows + row)
    wanted = tl.load(target + row * target_stride)
    in_range = (wanted >= 0) & (wanted < classes)
    d = tl.load(dlog_probs + row * dlog_probs_stride)
    d = tl.where(in_range, d, float("nan"))
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = columns < classes
        x = tl.load(logits + row * row_stride + columns, mask=mask, other=0.0).to(ACC)
        probability = tl.exp(x - largest - log_sum)
        dx = d * (tl.where(columns == wanted, 1.0, 0.0) - probability)
        tl.store(dlogits + row * classes + columns, dx.to(dlogits.dtype.element_ty), mask=mask)


def forward(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = _with_dense_rows(logits)
    rows, classes = logits.shape
    dtype = accumulator(logits.dtype)
    log_probs, lse = logits.new_empty(rows, dtype=dtype), logits.new_empty(2, rows, dtype=dtype)
    top1 = target.new_empty(rows)
    if rows:
        with on_device_of(logits):
            _forward_kernel[(rows,)](
                *(logits, target, log_probs, lse, top1, rows, classes),
                *(logits.stride(0), target.stride(0)),
                **_constants(logits),
            )
    return log_probs, lse, top1


def backward(dlog_probs: Tensor, logits: Tensor, target: Tensor, lse: Tensor) -> Tensor:
    logits, lse = _with_dense_rows(logits), lse.contiguous()
    rows, classes = logits.shape
    dlogits = logits.new_empty(rows, classes)
    if rows:
        with on_device_of(logits):
            _backward_kernel[(rows,)](
                *(dlog_probs, logits, target, lse, dlogits, rows, classes),
                *(dlog_probs.stride(0), logits.stride(0), target.stride(0)),
                **_constants(logits),
            )
    return dlogits


def _with_dense_rows(logits: Tensor) -> Tensor:
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _constants(logits: Tensor) -> dict[str, object]:
    block = min(triton.next_power_of_2(logits.shape[1]), MOST_CLASSES)
    wide = triton_accumulator(logits.dtype)
    return {"ACC": wide, "BLOCK": block, "num_warps": 8 if block > 2048 else 4, **ROUNDING}
