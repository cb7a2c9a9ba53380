"""target_log_prob against float64, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import target_log_prob, target_log_prob_and_top1, target_log_prob_ref
from tests.ops import maps
from tests.tolerances import HALF_ERROR_FACTOR, TOLERANCES

OP = torch.ops.amfast.target_log_prob.default
BACKWARD_OP = torch.ops.amfast.target_log_prob_backward.default
SHAPES = [
    (0, 5),
    (1, 1),
    (1, 2),
    (3, 1),
    (2, 15),
    (5, 16),
    (7, 17),
    (33, 31),
    (20, 1000),
    (4, 1003),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
HALF_DTYPES = [torch.bfloat16, torch.float16]


def make_inputs(
    rows: int, classes: int, dtype: torch.dtype = torch.float32, scale: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [N, C], target [N] and the gradient of the result [N]."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (rows,), generator=generator)
    dlog_probs = torch.randn(rows, generator=generator, dtype=torch.float64)
    accumulator = torch.float64 if dtype == torch.float64 else torch.float32
    return logits.to(dtype), target, dlog_probs.to(accumulator)


def run(
    function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, target: Tensor, dlog_probs: Tensor
) -> tuple[Tensor, Tensor]:
    leaf = logits.detach().requires_grad_()
    value = function(leaf, target)
    (dlogits,) = torch.autograd.grad(value, leaf, dlog_probs.to(value.dtype))
    return value.detach(), dlogits


def pytorch(logits: Tensor, target: Tensor) -> Tensor:
    return logits.log_softmax(1).gather(1, target[:, None])[:, 0]


def expected(logits: Tensor, target: Tensor, dlog_probs: Tensor) -> tuple[Tensor, Tensor]:
    """The same inputs, values exactly as given, worked out by PyTorch in float64."""
    return run(pytorch, logits.double(), target, dlog_probs.double())


def assert_near(actual: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    rtol, atol = TOLERANCES[dtype]
    torch.testing.assert_close(
        actual.double(), wanted.double(), rtol=rtol, atol=atol, equal_nan=True
    )


def test_the_implementation_under_test_is_the_one_meant() -> None:
    assert maps.served("target_log_prob", "target_log_prob_backward") == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient_match_float64(
    shape: tuple[int, int], dtype: torch.dtype, impl: str
) -> None:
    logits, target, dlog_probs = make_inputs(*shape, dtype)
    value, dlogits = run(lambda x, t: target_log_prob(x, t, impl=impl), logits, target, dlog_probs)
    wanted_value, wanted_dlogits = expected(logits, target, dlog_probs)
    assert value.shape == target.shape and value.dtype == dlog_probs.dtype
    assert dlogits.shape == logits.shape and dlogits.dtype == dtype
    assert_near(value, wanted_value, value.dtype)  # half inputs, but a float32 result
    assert_near(dlogits, wanted_dlogits, dtype)


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_top1_is_the_first_of_the_largest(
    shape: tuple[int, int], dtype: torch.dtype, impl: str
) -> None:
    logits, target, _ = make_inputs(*shape, dtype)
    logits = logits.round()  # so that some are equal
    log_probs, top1 = target_log_prob_and_top1(logits, target, impl=impl)
    assert top1.dtype == torch.int64 and top1.tolist() == logits.argmax(1).tolist()
    assert torch.equal(log_probs, target_log_prob(logits, target, impl=impl))


@pytest.mark.parametrize("dtype", HALF_DTYPES, ids=str)
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_half_types_err_at_most_twice_as_much_as_pytorch(dtype: torch.dtype, scale: float) -> None:
    logits, target, dlog_probs = make_inputs(64, 200, dtype, scale)
    ours = run(target_log_prob, logits, target, dlog_probs)
    theirs = run(pytorch, logits, target, dlog_probs)
    for actual, baseline, wanted in zip(
        ours, theirs, expected(logits, target, dlog_probs), strict=True
    ):
        error = (actual.double() - wanted).abs().max()
        pytorch_error = (baseline.double() - wanted).abs().max()
        assert error <= HALF_ERROR_FACTOR * pytorch_error


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_a_large_offset_costs_no_digits(dtype: torch.dtype, offset: float) -> None:
    logits, target, dlog_probs = make_inputs(9, 50, dtype)
    logits = logits + offset
    value, dlogits = run(target_log_prob, logits, target, dlog_probs)
    wanted_value, wanted_dlogits = expected(logits, target, dlog_probs)
    assert_near(value, wanted_value, dtype)
    assert_near(dlogits, wanted_dlogits, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_large_spread_stays_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype=dtype)
    target = torch.tensor([1, 2])
    value, dlogits = run(target_log_prob, logits, target, torch.ones(2))
    wanted_value, wanted_dlogits = expected(logits, target, torch.ones(2))
    assert_near(value, wanted_value, value.dtype)
    assert_near(dlogits, wanted_dlogits, dtype)


@given(
    rows=st.integers(0, 6),
    classes=st.integers(1, 70),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=maps.examples(60), deadline=None, derandomize=True)
def test_any_shape_and_scale(rows: int, classes: int, scale: float, seed: int) -> None:
    logits, target, dlog_probs = make_inputs(rows, classes, torch.float32, scale, seed)
    value, dlogits = run(target_log_prob, logits, target, dlog_probs)
    wanted_value, wanted_dlogits = expected(logits, target, dlog_probs)
    assert_near(value, wanted_value, torch.float32)
    assert_near(dlogits, wanted_dlogits, torch.float32)


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_infinities_and_nan_stay_in_their_row(impl: str) -> None:
    inf, nan = math.inf, math.nan
    logits, _, dlog_probs = make_inputs(8, 20)
    clean_target = torch.arange(8)
    value, dlogits = run(
        lambda x, t: target_log_prob(x, t, impl=impl), logits, clean_target, dlog_probs
    )
    poisoned = logits.clone()
    poisoned[1, 5] = -inf  # another class impossible: everything else defined
    poisoned[2, 2] = -inf  # the target impossible: log 0, gradient defined
    poisoned[3, 7] = nan
    poisoned[4] = -inf
    poisoned[5, 0] = inf
    poisoned_value, poisoned_dlogits = run(
        lambda x, t: target_log_prob(x, t, impl=impl), poisoned, clean_target, dlog_probs
    )
    wanted_value, wanted_dlogits = expected(poisoned, clean_target, dlog_probs)
    assert_near(poisoned_value, wanted_value, torch.float32)
    assert_near(poisoned_dlogits[:4], wanted_dlogits[:4], torch.float32)
    assert poisoned_value[2] == -inf and poisoned_value[[3, 4, 5]].isnan().all()
    assert poisoned_dlogits[[3, 4, 5]].isnan().all()
    poisoned[7] = nan
    _, top1 = target_log_prob_and_top1(poisoned, clean_target, impl=impl)
    best = logits.argmax(1).tolist()
    assert top1.tolist() == [best[0], *poisoned[1:3].argmax(1).tolist(), -1, -1, -1, best[6], -1]
    for row in (0, 6, 7):
        assert torch.equal(poisoned_value[row], value[row])
        assert torch.equal(poisoned_dlogits[row], dlogits[row])


def test_rows_do_not_depend_on_their_neighbours() -> None:
    logits, target, dlog_probs = make_inputs(300, 123)
    value, dlogits = run(target_log_prob, logits, target, dlog_probs)
    for row in (0, 17, 299):
        pick = slice(row, row + 1)
        alone = run(target_log_prob, logits[pick], target[pick], dlog_probs[pick])
        assert torch.equal(alone[0], value[pick])
        assert torch.equal(alone[1], dlogits[pick])


def test_non_contiguous_inputs() -> None:
    logits, target, dlog_probs = make_inputs(12, 18)
    wanted_value, wanted_dlogits = expected(logits, target, dlog_probs)
    wide = torch.full((12, 40), math.nan)
    wide[:, 3:21] = logits
    strided_target = torch.stack([target, -target], 1)[:, 0]
    strided_dlog_probs = torch.stack([dlog_probs, dlog_probs + 1], 1)[:, 0]
    for layout in (wide[:, 3:21], logits.T.contiguous().T, logits.repeat_interleave(2, 1)[:, ::2]):
        value, dlogits = run(target_log_prob, layout, strided_target, strided_dlog_probs)
        assert_near(value, wanted_value, torch.float32)
        assert_near(dlogits, wanted_dlogits, torch.float32)


def test_expanded_inputs() -> None:
    row, target, _ = make_inputs(1, 6)
    leaf = row.clone().requires_grad_()
    target_log_prob(leaf.expand(5, 6), target.expand(5)).sum().backward()
    _, wanted = expected(row, target, torch.tensor([5.0]))
    assert leaf.grad is not None
    assert_near(leaf.grad, wanted, torch.float32)


def test_gradcheck_in_float64() -> None:
    logits, target, _ = make_inputs(3, 4, torch.float64)
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: target_log_prob(x, target), leaf)
    assert torch.autograd.gradcheck(lambda x: target_log_prob_ref(x, target), leaf)


def test_a_second_derivative_is_refused_and_the_reference_has_one() -> None:
    logits, target, _ = make_inputs(3, 4, torch.float64)
    leaf = logits.requires_grad_()
    (first,) = torch.autograd.grad(target_log_prob(leaf, target).sum(), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        first.square().sum().backward()
    assert torch.autograd.gradgradcheck(
        lambda x: target_log_prob(x, target, impl="ref"), logits.requires_grad_()
    )


@pytest.mark.parametrize("shape", [(0, 5), (3, 7), (4, 1)], ids=str)
def test_opcheck(shape: tuple[int, int]) -> None:
    logits, target, dlog_probs = make_inputs(*shape)
    torch.library.opcheck(OP, (logits.requires_grad_(), target))
    _, lse, _ = OP(logits, target)
    torch.library.opcheck(BACKWARD_OP, (dlog_probs, logits.detach(), target, lse))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_fakes_have_the_layout_of_the_real_results(dtype: torch.dtype) -> None:
    logits, target, dlog_probs = make_inputs(3, 7, dtype)
    column_major = logits.T.contiguous().T
    torch.library.opcheck(OP, (column_major, target), test_utils="test_faketensor")
    _, lse, _ = OP(column_major, target)
    torch.library.opcheck(
        BACKWARD_OP, (dlog_probs, column_major, target, lse), test_utils="test_faketensor"
    )


def test_compiles_without_a_graph_break() -> None:
    logits, target, dlog_probs = make_inputs(5, 9)
    compiled = torch.compile(target_log_prob, backend="aot_eager", fullgraph=True)
    actual = run(compiled, logits, target, dlog_probs)
    wanted = run(target_log_prob, logits, target, dlog_probs)
    assert torch.equal(actual[0], wanted[0])
    assert torch.equal(actual[1], wanted[1])


def test_only_logits_target_and_lse_are_saved() -> None:
    logits, target, _ = make_inputs(6, 11)
    saved: list[Tensor] = []

    def remember(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        target_log_prob(logits.requires_grad_(), target)
    assert sorted(tuple(tensor.shape) for tensor in saved) == [(2, 6), (6,), (6, 11)]


GOOD_LOGITS = torch.zeros(2, 3)
GOOD_TARGET = torch.tensor([0, 2])


@pytest.mark.parametrize(
    ("logits", "target", "sentence"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), GOOD_TARGET, "logits are int64.*float32.*float16"),
        (torch.zeros(3), GOOD_TARGET, r"logits have shape \[3\].*\[N, C\]"),
        (torch.zeros(2, 0), GOOD_TARGET, "at least one class"),
        (GOOD_LOGITS, GOOD_TARGET.int(), "target is int32.*int64"),
        (GOOD_LOGITS, GOOD_TARGET.float(), "target is float32.*int64"),
        (GOOD_LOGITS, GOOD_TARGET[:1], r"target has shape \[1\].*\[2\]"),
        (GOOD_LOGITS, GOOD_TARGET[:, None], r"target has shape \[2, 1\]"),
        (GOOD_LOGITS, torch.tensor([0, 3]), "target holds class 3.*from 0 to 2"),
        (GOOD_LOGITS, torch.tensor([-1, 0]), "target holds class -1.*from 0 to 2"),
        (GOOD_LOGITS, GOOD_TARGET.to("meta"), "target is on meta and logits are on cpu"),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_bad_arguments_get_a_sentence(
    logits: Tensor, target: Tensor, sentence: str, impl: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        target_log_prob(logits, target, impl=impl)


def test_an_unknown_impl_is_refused() -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        target_log_prob(GOOD_LOGITS, GOOD_TARGET, impl="fast")  # type: ignore[arg-type]


def out_of_range_rows_give_nan(
    function: Callable[[Tensor, Tensor], Tensor], device: str = "cpu"
) -> None:
    logits, target, dlog_probs = (t.to(device) for t in make_inputs(4, 6))
    wanted = run(function, logits, target, dlog_probs)
    bad = target.clone()
    bad[1], bad[2] = -1, 6
    value, dlogits = run(function, logits, bad, dlog_probs)
    assert value[1:3].isnan().all() and dlogits[1:3].isnan().all()
    assert torch.equal(value[[0, 3]], wanted[0][[0, 3]])
    assert torch.equal(dlogits[[0, 3]], wanted[1][[0, 3]])


@pytest.mark.parametrize(
    "function", [lambda x, t: OP(x, t)[0], target_log_prob_ref], ids=["op", "reference"]
)
def test_unchecked_targets_out_of_range_give_nan(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    out_of_range_rows_give_nan(function)


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(torch.zeros(2, 3, 4), GOOD_TARGET)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cuda_matches_float64(shape: tuple[int, int], dtype: torch.dtype) -> None:
    logits, target, dlog_probs = (t.cuda() for t in make_inputs(*shape, dtype))
    value, dlogits = run(target_log_prob, logits, target, dlog_probs)
    wanted_value, wanted_dlogits = expected(logits, target, dlog_probs)
    assert_near(value, wanted_value, value.dtype)
    assert_near(dlogits, wanted_dlogits, dtype)


@pytest.mark.gpu
def test_cuda_gives_nan_for_targets_out_of_range_without_synchronising() -> None:
    out_of_range_rows_give_nan(target_log_prob, "cuda")
    logits, target, dlog_probs = (t.cuda() for t in make_inputs(4, 6))
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(target_log_prob, logits, target, dlog_probs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
