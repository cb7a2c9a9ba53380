"""``softmax_pair_distance`` in Triton: a program per row or pair works out what it needs."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from amfast.ops._checks import accumulator
from amfast.ops.triton._launch import ROUNDING, on_device_of, triton_accumulator

#: Classes that a program holds at once: ImageNet's in one go, larger sets in several.
MOST_CLASSES = 2048


@triton.jit
def _lse_kernel(logits, lse, rows, classes, row_stride, ACC: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    largest = tl.full((), -float("inf"), ACC)
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(
            logits + row * row_stride + columns, mask=columns < classes, other=-float("inf")
        )
        # A NaN is left to the sum, which carries it.
        largest = tl.maximum(largest, tl.max(tl.where(x == x, x, -float("inf")).to(ACC)))
    total = tl.zeros((), ACC)
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = columns < classes
        x = tl.load(logits + row * row_stride + columns, mask=mask, other=0.0).to(ACC)
        total += tl.sum(tl.where(mask, tl.exp(x - largest), 0.0))
    tl.store(lse + row, largest)
    tl.store(lse + rows + row, tl.log(total))


@triton.jit
def _probs(logits, lse, row, rows, classes, columns, row_stride, ACC: tl.constexpr):
    """Some of a row's probabilities; NaN where there is no such row."""
    in_range = (row >= 0) & (row < rows)
    largest = tl.load(lse + row, mask=in_range, other=float("nan"))
    log_sum = tl.load(lse + rows + row, mask=in_range, other=float("nan"))
    readable = columns < tl.where(in_range, classes, 0)
    x = tl.load(logits + row * row_stride + columns, mask=readable, other=0.0).to(ACC)
    return tl.exp(x - largest - log_sum)


@triton.jit
def _distances_kernel(
    logits,
    pairs,
    lse,
    distances,
    rows,
    classes,
    row_stride,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    pair = tl.program_id(0).to(tl.int64)
    first = tl.load(pairs + 2 * pair)
    second = tl.load(pairs + 2 * pair + 1)
    squares = tl.zeros((), ACC)
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = columns < classes
        p = _probs(logits, lse, first, rows, classes, columns, row_stride, ACC)
        q = _probs(logits, lse, second, rows, classes, columns, row_stride, ACC)
        squares += tl.sum(tl.where(mask, (p - q) * (p - q), 0.0))
    tl.store(distances + pair, tl.sqrt(squares))


@triton.jit
def _dprobs(
    ddistances,
    distances,
    logits,
    lse,
    pairs,
    members,
    begin,
    end,
    p,
    rows,
    classes,
    columns,
    d_stride,
    row_stride,
    ACC: tl.constexpr,
):
    """The gradient of some of a row's probabilities p, over the pairs that hold the row."""
    total = tl.zeros_like(p)
    for at in range(begin, end):
        member = tl.load(members + at)
        other = tl.load(pairs + (member ^ 1))  # the other half of its pair
        distance = tl.load(distances + member // 2)
        d = tl.load(ddistances + member // 2 * d_stride)
        factor = tl.where(distance == 0, 0.0, d / tl.where(distance == 0, 1.0, distance))
        q = _probs(logits, lse, other, rows, classes, columns, row_stride, ACC)
        total += factor * (p - q)
    return total


@triton.jit
def _backward_kernel(
    ddistances,
    distances,
    logits,
    lse,
    pairs,
    members,
    starts,
    dlogits,
    rows,
    classes,
    d_stride,
    row_stride,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    begin = tl.load(starts + row)
    end = tl.load(starts + row + 1)
    mean = tl.zeros((), ACC)
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = columns < classes
        p = _probs(logits, lse, row, rows, classes, columns, row_stride, ACC)
        dp = _dprobs(
            ddistances,
            distances,
            logits,
            lse,
            pairs,
            members,
            begin,
            end,
            p,
            rows,
            classes,
            columns,
            d_stride,
            row_stride,
            ACC,
        )
        mean += tl.sum(tl.where(mask, p * dp, 0.0))
    for start in range(0, classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        mask = columns < classes
        p = _probs(logits, lse, row, rows, classes, columns, row_stride, ACC)
        dp = _dprobs(
            ddistances,
            distances,
            logits,
            lse,
            pairs,
            members,
            begin,
            end,
            p,
            rows,
            classes,
            columns,
            d_stride,
            row_stride,
            ACC,
        )
        dx = p * (dp - mean)
        tl.store(dlogits + row * classes + columns, dx.to(dlogits.dtype.element_ty), mask=mask)


def forward(logits: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    logits, pairs = _arguments(logits, pairs)
    rows, classes = logits.shape
    dtype = accumulator(logits.dtype)
    distances = logits.new_empty(len(pairs), dtype=dtype)
    lse = logits.new_empty(2, rows, dtype=dtype)
    sizes, constants = (rows, classes, logits.stride(0)), _constants(logits)
    with on_device_of(logits):
        if rows:
            _lse_kernel[(rows,)](logits, lse, *sizes, **constants)
        if len(pairs):
            _distances_kernel[(len(pairs),)](logits, pairs, lse, distances, *sizes, **constants)
    return distances, lse


def backward(
    ddistances: Tensor, logits: Tensor, pairs: Tensor, distances: Tensor, lse: Tensor
) -> Tensor:
    logits, pairs = _arguments(logits, pairs)
    rows, classes = logits.shape
    dlogits = logits.new_empty(rows, classes)
    if rows:
        # The places in pairs.flatten() that hold a row, one row after the other.
        sorted_rows, members = pairs.flatten().sort(stable=True)
        starts = torch.searchsorted(sorted_rows, torch.arange(rows + 1, device=pairs.device))
        d, distances = ddistances.expand(len(pairs)), distances.expand(len(pairs)).contiguous()
        lse = lse.expand(2, rows).contiguous()
        with on_device_of(logits):
            _backward_kernel[(rows,)](
                *(d, distances, logits, lse, pairs, members, starts, dlogits),
                *(rows, classes, d.stride(0), logits.stride(0)),
                **_constants(logits),
            )
    return dlogits


def _arguments(logits: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of logits and pairs that are dense; sizes that do not fit raise."""
    dense = logits if logits.stride(1) == 1 else logits.contiguous()
    return dense, pairs.expand(-1, 2).contiguous()


def _constants(logits: Tensor) -> dict[str, Any]:
    block = min(triton.next_power_of_2(logits.shape[1]), MOST_CLASSES)
    wide = triton_accumulator(logits.dtype)
    return {"ACC": wide, "BLOCK": block, "num_warps": 8 if block > 1024 else 4, **ROUNDING}
