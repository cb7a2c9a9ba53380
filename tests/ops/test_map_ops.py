"""What every op over maps keeps to, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import implementations
from tests.ops import maps
from tests.ops.map_cases import CASES, MapOp

every_op = pytest.mark.parametrize("op", CASES, ids=lambda op: op.name)
every_shape = pytest.mark.parametrize(
    ("op", "shape"),
    [pytest.param(op, s, id=f"{op.name}-{s}") for op in CASES for s in op.shapes],
)


def serving(name: str) -> str:
    """Which implementation serves on the CPU."""
    (found,) = {i.implementation for i in implementations() if (i.op, i.device) == (name, "cpu")}
    return found


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


@every_op
def test_the_implementation_under_test_is_the_one_meant(op: MapOp) -> None:
    assert maps.served(op.name, f"{op.name}_backward") == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@every_shape
def test_values_and_gradients_match_float64(
    op: MapOp, shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    if impl == "ref" and op.reference_rounds_early and dtype in maps.HALF_DTYPES:
        dtype = torch.float32
    inputs = op.inputs(shape, dtype)
    found = op.run(inputs, impl)
    maps.assert_near(found, op.exact(inputs))
    assert found[0].dtype == dtype
    maps.assert_channels_last(found[0])


@every_op
def test_a_map_that_takes_many_threads(op: MapOp) -> None:
    inputs = op.inputs(op.large, torch.float64)  # whose tiles are smallest
    maps.assert_near(op.run(inputs), op.exact(inputs))


@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
@every_op
def test_half_types_err_at_most_twice_as_much_as_pytorch(op: MapOp, dtype: torch.dtype) -> None:
    inputs = op.inputs((4, 24, 8, 8), dtype)
    theirs = maps.run(op.pytorch(inputs), inputs[: op.leaves])
    maps.assert_half_error_is_pytorchs(op.run(inputs), theirs, op.exact(inputs))


@every_op
@given(data=st.data(), channels_last=st.booleans(), seed=st.integers(0, 2**31))
@settings(max_examples=maps.examples(50), deadline=None, derandomize=True)
def test_any_shape_and_layout(
    op: MapOp, data: st.DataObject, channels_last: bool, seed: int
) -> None:
    least = 0 if op.empty_maps else 1
    shape = data.draw(
        st.tuples(st.integers(0, 3), *(st.integers(least, most) for most in (40, 10, 6)))
    )
    inputs = op.inputs(shape, seed=seed, channels_last=channels_last)
    maps.assert_near(op.run(inputs), op.exact(inputs))


@every_op
def test_strided_and_expanded_inputs(op: MapOp) -> None:
    inputs = op.inputs((3, 17, 4, 4))
    spread = [torch.stack([x, x + 1], dim=-1)[..., 0] for x in inputs]
    assert_equal(op.run([*spread[: op.leaves], *inputs[op.leaves :]]), op.run(inputs))
    maps.assert_near(op.run(spread), op.exact(inputs))
    leaves = [x[:1].expand(x.shape) for x in inputs[: op.leaves]]
    with torch.no_grad():
        found = maps._as_tuple(op.bound(inputs)(*leaves))[0]
    assert torch.equal(found[0], found[2])


@every_op
def test_an_image_does_not_depend_on_its_batch_mates(op: MapOp) -> None:
    inputs = op.inputs((5, 17, 10, 4))
    together = maps._as_tuple(op.function(*inputs))
    leaves = [x[2:3] for x in inputs[: op.leaves]]
    alone, wanted = maps._as_tuple(op.bound(inputs)(*leaves)), [x[2:3] for x in together]
    if serving(op.name) == "reference":  # by PyTorch's products, which on some CPUs round by shape
        maps.assert_near(alone, wanted)
    else:
        assert_equal(list(alone), wanted)


@every_op
def test_nan_stays_in_its_image(op: MapOp) -> None:
    inputs = op.inputs((3, 5, 4, 4))
    clean = op.run(inputs)
    inputs[0][1, 2] = torch.nan
    assert_equal([x[[0, 2]] for x in op.run(inputs)], [x[[0, 2]] for x in clean])
    assert maps._as_tuple(op.function(*inputs))[-1][1].isnan().any()


@every_op
def test_gradcheck_in_float64(op: MapOp) -> None:
    inputs = op.inputs((1, 2, 1, 2), torch.float64)
    leaves = [x.requires_grad_() for x in inputs[: op.leaves]]
    assert torch.autograd.gradcheck(op.bound(inputs), leaves)
    assert torch.autograd.gradcheck(op.bound(inputs, "ref"), leaves)


@every_op
def test_a_second_derivative_is_refused_and_the_reference_has_one(op: MapOp) -> None:
    inputs = op.inputs((2, 3, 2, 2), torch.float64)
    leaves = [x.requires_grad_() for x in inputs[: op.leaves]]
    value = maps._as_tuple(op.function(*inputs))[-1]
    first = torch.autograd.grad(value.square().sum(), leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        first[-1].square().sum().backward()
    assert torch.autograd.gradgradcheck(op.bound(inputs, "ref"), leaves)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 17, 3, 2), (1, 4, 1, 1)], ids=str)
@every_op
def test_opcheck(op: MapOp, shape: tuple[int, ...]) -> None:
    inputs = op.inputs(shape)
    leaves = [x.clone(memory_format=torch.preserve_format) for x in inputs[: op.leaves]]
    rest = inputs[op.leaves :]
    torch.library.opcheck(op.operator, (*(x.requires_grad_() for x in leaves), *rest))
    results = maps._as_tuple(op.operator(*inputs))
    for arguments in op.backward_arguments(inputs, results):
        torch.library.opcheck(op.backward_operator, arguments)


@every_op
def test_compiles_without_a_graph_break(op: MapOp) -> None:
    inputs = op.inputs((2, 5, 3, 4))
    compiled = torch.compile(op.bound(inputs), backend="aot_eager", fullgraph=True)
    assert_equal(maps.run(compiled, inputs[: op.leaves]), op.run(inputs))


@every_op
def test_what_is_kept_for_the_backward(op: MapOp) -> None:
    inputs = op.inputs((2, 5, 3, 4))
    kept = maps.saved(op.bound(inputs), inputs[: op.leaves])
    assert [tuple(x.shape) for x in kept] == op.kept


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize(
    ("op", "name", "bad", "sentence"),
    [pytest.param(op, *bad, id=f"{op.name}-{bad[2]}") for op in CASES for bad in op.bad],
)
def test_bad_arguments_get_a_sentence(
    op: MapOp, name: str, bad: Tensor, sentence: str, impl: str
) -> None:
    good = op.inputs((2, 3, 2, 2))
    inputs = [bad if n == name else x for n, x in zip(op.names, good, strict=True)]
    with pytest.raises(UsageError, match=sentence):
        op.function(*inputs, impl=impl)


@every_op
def test_an_unknown_impl_is_refused(op: MapOp) -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        op.function(*op.inputs((2, 3, 2, 2)), impl="fast")


@pytest.mark.parametrize("place", [-2, -1])
@every_op
def test_the_kernel_itself_refuses_what_it_cannot_read(op: MapOp, place: int) -> None:
    inputs = op.inputs((2, 3, 2, 2))
    inputs[place] = torch.zeros(2, 2)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        op.operator(*inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize(
    ("op", "shape"),
    # The convolution of the fourth is PyTorch's own there, with its own tolerances.
    [pytest.param(op, s, id=f"{op.name}-{s}") for op in CASES[:3] for s in op.shapes],
)
def test_cuda_matches_float64(op: MapOp, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = [x.cuda() for x in op.inputs(shape, dtype)]
    maps.assert_near(op.run(inputs), op.exact(inputs))
