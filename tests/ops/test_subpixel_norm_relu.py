"""subpixel_norm_relu against float64, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import subpixel_norm_relu, subpixel_norm_relu_ref
from tests.ops import maps

OP = torch.ops.amfast.subpixel_norm_relu.default
BACKWARD_OP = torch.ops.amfast.subpixel_norm_relu_backward.default


def make_inputs(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    channels_last: bool = True,
) -> list[Tensor]:
    n, c, height, width = shape  # of one phase in the result
    draw = maps.Draw(dtype, seed)
    x = draw.map(n, 4 * c, height + 1, width + 1, channels_last=channels_last)
    return [x, draw.factor(n, c), draw.factor(n, c)]


def pytorch(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The same in PyTorch's own operators, in the dtype of the maps throughout."""
    n, channels, height, width = x.shape
    y = x.new_empty(n, channels // 4, 2 * height - 2, 2 * width - 2)
    for phase, part in enumerate(x.chunk(4, dim=1)):
        p, q = divmod(phase, 2)
        y[:, :, p::2, q::2] = part[:, :, p : p + height - 1, q : q + width - 1]
    scale, shift = scale.to(x.dtype)[..., None, None], shift.to(x.dtype)[..., None, None]
    return torch.addcmul(shift, y, scale).relu()


def test_the_implementation_under_test_is_the_one_meant() -> None:
    assert maps.served("subpixel_norm_relu", "subpixel_norm_relu_backward") == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", maps.SHAPES, ids=str)
def test_values_and_gradients_match_float64(
    shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    inputs = make_inputs(shape, dtype)
    found = maps.run(functools.partial(subpixel_norm_relu, impl=impl), inputs)
    maps.assert_near(found, maps.exact(subpixel_norm_relu_ref, inputs))
    assert found[0].dtype == dtype
    maps.assert_channels_last(found[0])


@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
def test_half_types_err_at_most_twice_as_much_as_pytorch(dtype: torch.dtype) -> None:
    inputs = make_inputs((4, 24, 8, 8), dtype)
    maps.assert_half_error_is_pytorchs(
        maps.run(subpixel_norm_relu, inputs),
        maps.run(pytorch, inputs),
        maps.exact(subpixel_norm_relu_ref, inputs),
    )


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 5), st.integers(0, 5)),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_shape_and_layout(shape: tuple[int, ...], channels_last: bool, seed: int) -> None:
    inputs = make_inputs(shape, seed=seed, channels_last=channels_last)
    maps.assert_near(
        maps.run(subpixel_norm_relu, inputs), maps.exact(subpixel_norm_relu_ref, inputs)
    )


def test_strided_and_expanded_inputs() -> None:
    inputs = make_inputs((3, 17, 4, 4))
    wanted = maps.run(subpixel_norm_relu, inputs)
    spread = [torch.stack([x, x + 1], dim=-1)[..., 0] for x in inputs]
    for a, b in zip(maps.run(subpixel_norm_relu, spread), wanted, strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        row = [x[:1].expand(x.shape) for x in inputs]
        found = maps._as_tuple(subpixel_norm_relu(*row))[0]
    assert torch.equal(found[0], found[2])


def test_nan_stays_in_its_image() -> None:
    inputs = make_inputs((3, 5, 4, 4))
    clean = maps.run(subpixel_norm_relu, inputs)
    poisoned = [x.clone() for x in inputs]
    poisoned[0][1, 2] = torch.nan
    for a, b in zip(maps.run(subpixel_norm_relu, poisoned), clean, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert maps._as_tuple(subpixel_norm_relu(*poisoned))[-1][1].isnan().any()


def test_gradcheck_in_float64() -> None:
    inputs = [x.requires_grad_() for x in make_inputs((2, 3, 2, 2), torch.float64)]
    assert torch.autograd.gradcheck(subpixel_norm_relu, inputs)
    assert torch.autograd.gradcheck(subpixel_norm_relu_ref, inputs)


def test_a_second_derivative_is_refused_and_the_reference_has_one() -> None:
    inputs = [x.requires_grad_() for x in make_inputs((2, 3, 2, 2), torch.float64)]
    value = maps._as_tuple(subpixel_norm_relu(*inputs))[-1]
    first = torch.autograd.grad(value.square().sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        first[-1].square().sum().backward()
    assert torch.autograd.gradgradcheck(subpixel_norm_relu_ref, inputs)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 17, 3, 2), (1, 4, 1, 1)], ids=str)
def test_opcheck(shape: tuple[int, ...]) -> None:
    inputs = make_inputs(shape)
    torch.library.opcheck(
        OP, tuple(x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs)
    )
    x, scale, shift = inputs
    dy = torch.randn_like(OP(*inputs))
    torch.library.opcheck(BACKWARD_OP, (dy, x, scale, shift))


def test_compiles_without_a_graph_break() -> None:
    inputs = make_inputs((2, 5, 3, 4))
    compiled = torch.compile(subpixel_norm_relu, backend="aot_eager", fullgraph=True)
    for a, b in zip(maps.run(compiled, inputs), maps.run(subpixel_norm_relu, inputs), strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_the_backward() -> None:
    kept = [tuple(x.shape) for x in maps.saved(subpixel_norm_relu, make_inputs((2, 5, 3, 4)))]
    assert kept == [(2, 20, 4, 5), (2, 5), (2, 5)]


GOOD = make_inputs((2, 3, 2, 2))


@pytest.mark.parametrize(
    ("index", "bad", "sentence"),
    [
        (0, torch.zeros(2, 12, 3, 3, dtype=torch.int64), "x is int64.*float32.*float16"),
        (0, torch.zeros(2, 12, 3), r"x has shape \[2, 12, 3\].*\[N, C, H, W\]"),
        (0, torch.zeros(2, 13, 3, 3), r"x has shape .*4 \* C, H \+ 1"),
        (0, torch.zeros(2, 12, 0, 3), r"x has shape .*4 \* C, H \+ 1"),
        (1, torch.zeros(2, 4), r"scale has shape \[2, 4\].*\[2, 3\]"),
        (2, torch.zeros(3), r"shift has shape \[3\].*\[2, 3\]"),
        (1, GOOD[1].double(), "scale is float64.*float32 maps.*float32"),
        (2, GOOD[2].to("meta"), "shift is on meta and the maps on cpu"),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_bad_arguments_get_a_sentence(index: int, bad: Tensor, sentence: str, impl: str) -> None:
    inputs = [*GOOD[:index], bad, *GOOD[index + 1 :]]
    with pytest.raises(UsageError, match=sentence):
        subpixel_norm_relu(*inputs, impl=impl)


def test_an_unknown_impl_is_refused() -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        subpixel_norm_relu(*GOOD, impl="fast")  # type: ignore[arg-type]


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(*GOOD[:-1], torch.zeros(2, 2))


def test_every_phase_lands_where_the_docstring_says() -> None:
    x = torch.randn(1, 8, 4, 3)
    y = subpixel_norm_relu(x, torch.ones(1, 2), torch.full((1, 2), 9.0)) - 9
    for p in (0, 1):
        for q in (0, 1):
            for i, j, c in ((0, 0, 0), (2, 1, 1)):
                wanted = x[0, (2 * p + q) * 2 + c, i + p, j + q]
                torch.testing.assert_close(y[0, c, 2 * i + p, 2 * j + q], wanted, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", maps.SHAPES, ids=str)
def test_cuda_matches_float64(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = [x.cuda() for x in make_inputs(shape, dtype)]
    maps.assert_near(
        maps.run(subpixel_norm_relu, inputs), maps.exact(subpixel_norm_relu_ref, inputs)
    )
