"""softmax_pair_distance against float64, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import softmax_pair_distance, softmax_pair_distance_ref
from tests.ops import maps

OP = torch.ops.amfast.softmax_pair_distance.default
BACKWARD_OP = torch.ops.amfast.softmax_pair_distance_backward.default
#: Rows, classes and pairs.
SHAPES = [
    (0, 5, 0),
    (1, 1, 1),
    (2, 1, 3),
    (3, 7, 0),
    (2, 2, 1),
    (5, 16, 4),
    (7, 17, 30),
    (33, 31, 5),
    (20, 1000, 10),
    (4, 1003, 6),
]
Inputs = tuple[Tensor, Tensor, Tensor]


def make_inputs(
    rows: int,
    classes: int,
    count: int,
    dtype: torch.dtype = torch.float32,
    scale: float = 3.0,
    seed: int = 0,
) -> Inputs:
    """Logits [N, C], pairs [P, 2], some of a row with itself, and the result's gradient [P]."""
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=random, dtype=torch.float64)
    pairs = torch.randint(max(rows, 1), (count, 2), generator=random)
    ddistances = torch.rand(count, generator=random, dtype=torch.float64) - 0.5
    return logits.to(dtype), pairs, ddistances.to(maps.accumulator(dtype))


def run(
    function: Callable[[Tensor, Tensor], Tensor], logits: Tensor, pairs: Tensor, ddistances: Tensor
) -> list[Tensor]:
    """The distances and the gradient of the logits."""
    leaf = logits.detach().requires_grad_()
    distances = function(leaf, pairs)
    (dlogits,) = torch.autograd.grad(distances, leaf, ddistances.to(distances.dtype))
    return [distances.detach(), dlogits]


def pytorch(logits: Tensor, pairs: Tensor) -> Tensor:
    """In PyTorch's own operators; its norm has the gradient 0 at 0."""
    probs = logits.softmax(1)
    return torch.linalg.vector_norm(probs[pairs[:, 0]] - probs[pairs[:, 1]], dim=1)


def expected(inputs: Inputs) -> list[Tensor]:
    """The same inputs, values exactly as given, worked out by PyTorch in float64."""
    logits, pairs, ddistances = inputs
    return run(pytorch, logits.double(), pairs, ddistances.double())


def test_the_implementation_under_test_is_the_one_meant() -> None:
    ops = ("softmax_pair_distance", "softmax_pair_distance_backward")
    assert maps.served(*ops) == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_match_float64(
    shape: tuple[int, int, int], dtype: torch.dtype, impl: str
) -> None:
    inputs = make_inputs(*shape, dtype)
    found = run(functools.partial(softmax_pair_distance, impl=impl), *inputs)
    maps.assert_near(found, expected(inputs))
    assert [x.dtype for x in found] == [maps.accumulator(dtype), dtype]


def test_many_rows_and_pairs() -> None:
    """More than one thread's share of either, and one row in very many pairs."""
    logits, pairs, ddistances = make_inputs(40, 700, 90)
    pairs[:50, 0] = 7
    inputs = (logits, pairs, ddistances / 10)
    maps.assert_near(run(softmax_pair_distance, *inputs), expected(inputs))


@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_half_types_err_at_most_twice_as_much_as_pytorch(dtype: torch.dtype, scale: float) -> None:
    logits, _, _ = make_inputs(64, 200, 0, dtype, scale)
    inputs = (logits, torch.arange(64).view(32, 2), torch.linspace(-1, 1, 32))
    maps.assert_half_error_is_pytorchs(
        run(softmax_pair_distance, *inputs), run(pytorch, *inputs), expected(inputs)
    )


@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 70),
    count=st.integers(0, 6),
    scale=st.floats(1e-2, 1e3),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=maps.examples(60), deadline=None, derandomize=True)
def test_any_shape_and_scale(rows: int, classes: int, count: int, scale: float, seed: int) -> None:
    inputs = make_inputs(rows, classes, count, scale=scale, seed=seed)
    maps.assert_near(run(softmax_pair_distance, *inputs), expected(inputs))


def test_by_hand() -> None:
    logits = torch.tensor([[50.0, 0.0, 0.0], [0.0, 50.0, 0.0], [0.0, 0.0, 0.0]])
    distances = softmax_pair_distance(logits, torch.tensor([[0, 1], [2, 0], [1, 1]]))
    torch.testing.assert_close(distances, torch.tensor([2**0.5, (2 / 3) ** 0.5, 0.0]))


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_equal_rows_are_at_0_and_add_no_gradient(impl: str) -> None:
    logits, _, _ = make_inputs(4, 19, 0)
    logits[2] = logits[0]
    pairs = torch.tensor([[0, 2], [1, 1], [0, 3]])
    function = functools.partial(softmax_pair_distance, impl=impl)
    distances, dlogits = run(function, logits, pairs, torch.ones(3))
    assert distances[0] == 0 and distances[1] == 0 and distances[2] > 0
    alone = run(function, logits, pairs[2:], torch.ones(1))[1]
    assert torch.equal(dlogits, alone) and dlogits[0].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_a_large_offset_costs_no_digits(dtype: torch.dtype, offset: float) -> None:
    logits, pairs, ddistances = make_inputs(9, 50, 6, dtype)
    inputs = (logits + offset, pairs, ddistances)
    maps.assert_near(run(softmax_pair_distance, *inputs), expected(inputs))


@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
def test_a_large_spread_stays_finite(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype=dtype)
    inputs = (logits, torch.tensor([[0, 1]]), torch.ones(1))
    maps.assert_near(run(softmax_pair_distance, *inputs), expected(inputs))


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_infinities_and_nan_stay_in_their_pairs(impl: str) -> None:
    inf, nan = math.inf, math.nan
    logits, _, _ = make_inputs(10, 20, 0)
    pairs = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [0, 8]])
    ddistances = torch.linspace(-1, 1, 6)
    function = functools.partial(softmax_pair_distance, impl=impl)
    clean = run(function, logits, pairs, ddistances)
    poisoned = logits.clone()
    poisoned[1, 5] = -inf  # one class impossible: everything defined
    poisoned[3, 7], poisoned[4], poisoned[6, 0] = nan, -inf, inf
    distances, dlogits = run(function, poisoned, pairs, ddistances)
    assert distances[1:4].isnan().all() and dlogits[2:8].isnan().all()
    wanted = expected((poisoned[:2], pairs[:1], ddistances[:1]))
    maps.assert_near([distances[:1], dlogits[1:2]], [wanted[0], wanted[1][1:]])
    assert torch.equal(distances[4:], clean[0][4:])
    assert torch.equal(dlogits[8:], clean[1][8:])


def test_pairs_do_not_depend_on_their_neighbours() -> None:
    logits, pairs, ddistances = make_inputs(40, 123, 50)
    distances, _ = run(softmax_pair_distance, logits, pairs, ddistances)
    for k in (0, 17, 49):
        alone = softmax_pair_distance(logits[pairs[k]], torch.tensor([[0, 1]]))
        assert torch.equal(alone, distances[k : k + 1])


def test_non_contiguous_and_expanded_inputs() -> None:
    inputs = make_inputs(12, 18, 9)
    logits, pairs, ddistances = inputs
    wanted = expected(inputs)
    wide = torch.full((12, 40), math.nan)
    wide[:, 3:21] = logits
    columns = pairs.T.contiguous().T
    strided = torch.stack([ddistances, ddistances + 1], 1)[:, 0]
    for layout in (wide[:, 3:21], logits.T.contiguous().T, logits.repeat_interleave(2, 1)[:, ::2]):
        maps.assert_near(run(softmax_pair_distance, layout, columns, strided), wanted)
    leaf = logits.clone().requires_grad_()
    softmax_pair_distance(leaf, pairs[:1].expand(5, 2)).sum().backward()
    assert leaf.grad is not None
    maps.assert_near([leaf.grad], expected((logits, pairs[:1], torch.tensor([5.0])))[1:])


def test_gradcheck_in_float64() -> None:
    logits, _, _ = make_inputs(4, 5, 0, torch.float64)
    pairs = torch.tensor([[0, 1], [2, 0], [3, 3], [1, 0]])
    leaf = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: softmax_pair_distance(x, pairs)[[0, 1, 3]], leaf)
    assert torch.autograd.gradcheck(lambda x: softmax_pair_distance_ref(x, pairs)[[0, 1, 3]], leaf)


def test_a_second_derivative_is_refused_and_the_reference_has_one() -> None:
    logits, _, _ = make_inputs(4, 5, 0, torch.float64)
    pairs = torch.tensor([[0, 1], [2, 0]])
    leaf = logits.requires_grad_()
    value = softmax_pair_distance(leaf, pairs).sum()
    (first,) = torch.autograd.grad(value, leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        first.square().sum().backward()
    assert torch.autograd.gradgradcheck(lambda x: softmax_pair_distance_ref(x, pairs), leaf)


@pytest.mark.parametrize("shape", [(0, 5, 0), (3, 7, 4), (4, 1, 2)], ids=str)
def test_opcheck(shape: tuple[int, int, int]) -> None:
    logits, pairs, ddistances = make_inputs(*shape)
    torch.library.opcheck(OP, (logits.requires_grad_(), pairs))
    distances, lse = OP(logits.detach(), pairs)
    torch.library.opcheck(BACKWARD_OP, (ddistances, logits.detach(), pairs, distances, lse))


@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
def test_fakes_have_the_layout_of_the_real_results(dtype: torch.dtype) -> None:
    logits, pairs, ddistances = make_inputs(3, 7, 4, dtype)
    column_major = logits.T.contiguous().T
    torch.library.opcheck(OP, (column_major, pairs), test_utils="test_faketensor")
    distances, lse = OP(column_major, pairs)
    inputs = (ddistances, column_major, pairs, distances, lse)
    torch.library.opcheck(BACKWARD_OP, inputs, test_utils="test_faketensor")


def test_compiles_without_a_graph_break() -> None:
    inputs = make_inputs(5, 9, 4)
    compiled = torch.compile(softmax_pair_distance, backend="aot_eager", fullgraph=True)
    for a, b in zip(run(compiled, *inputs), run(softmax_pair_distance, *inputs), strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_the_backward() -> None:
    logits, pairs, _ = make_inputs(6, 11, 4)
    kept = maps.saved(lambda x: softmax_pair_distance(x, pairs), [logits])
    assert [tuple(x.shape) for x in kept] == [(6, 11), (4, 2), (4,), (2, 6)]


GOOD_LOGITS = torch.zeros(3, 4)
GOOD_PAIRS = torch.tensor([[0, 2], [1, 0]])


@pytest.mark.parametrize(
    ("logits", "pairs", "sentence"),
    [
        (GOOD_LOGITS.long(), GOOD_PAIRS, "logits is int64.*float32.*float16"),
        (torch.zeros(3), GOOD_PAIRS, r"logits has shape \[3\].*\[N, C\]"),
        (torch.zeros(3, 0), GOOD_PAIRS, "at least one class"),
        (GOOD_LOGITS, GOOD_PAIRS.int(), r"pairs is int32.*int64.*pairs\.long\(\)"),
        (GOOD_LOGITS, GOOD_PAIRS.float(), "pairs is float32.*int64"),
        (GOOD_LOGITS, GOOD_PAIRS[0], r"pairs has shape \[2\].*\[P, 2\]"),
        (GOOD_LOGITS, torch.zeros(2, 3, dtype=torch.int64), r"pairs has shape \[2, 3\]"),
        (GOOD_LOGITS, GOOD_PAIRS.to("meta"), "pairs is on meta and logits on cpu"),
        (GOOD_LOGITS, GOOD_PAIRS + 1, "pairs holds 3; there are 3 rows of logits"),
        (GOOD_LOGITS, GOOD_PAIRS - 1, "pairs holds -1; there are 3 rows of logits"),
        (GOOD_LOGITS[:0], GOOD_PAIRS, "pairs holds 2; there are 0 rows of logits"),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_bad_arguments_get_a_sentence(
    logits: Tensor, pairs: Tensor, sentence: str, impl: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        softmax_pair_distance(logits, pairs, impl=impl)


def test_an_unknown_impl_is_refused() -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        softmax_pair_distance(GOOD_LOGITS, GOOD_PAIRS, impl="fast")  # type: ignore[arg-type]


def out_of_range_pairs_give_nan(
    function: Callable[[Tensor, Tensor], Tensor], device: str = "cpu"
) -> None:
    logits, _, _ = make_inputs(6, 9, 0)
    logits, ddistances = logits.to(device), torch.ones(5, device=device)
    pairs = torch.tensor([[0, 1], [2, 6], [-1, 3], [-2, 99], [0, 4]], device=device)
    distances, dlogits = run(function, logits, pairs, ddistances)
    wanted = run(function, logits, pairs[[0, 4]], ddistances[:2])
    assert distances[1:4].isnan().all() and dlogits[2:4].isnan().all()
    assert torch.equal(distances[[0, 4]], wanted[0])
    assert torch.equal(dlogits[[0, 1, 4, 5]], wanted[1][[0, 1, 4, 5]])


@pytest.mark.parametrize(
    "function", [lambda x, p: OP(x, p)[0], softmax_pair_distance_ref], ids=["op", "reference"]
)
def test_unchecked_pairs_out_of_range_give_nan(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    out_of_range_pairs_give_nan(function)


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(torch.zeros(2, 3, 4), GOOD_PAIRS)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cuda_matches_float64(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    inputs = make_inputs(*shape, dtype)
    there = tuple(x.cuda() for x in inputs)
    maps.assert_near([x.cpu() for x in run(softmax_pair_distance, *there)], expected(inputs))


@pytest.mark.gpu
def test_cuda_gives_nan_for_pairs_out_of_range_without_synchronising() -> None:
    out_of_range_pairs_give_nan(softmax_pair_distance, "cuda")
    inputs = tuple(x.cuda() for x in make_inputs(4, 6, 3))
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(softmax_pair_distance, *inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
