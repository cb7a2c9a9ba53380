"""upsample_add_to_rgb against float64, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import upsample_add, upsample_add_to_rgb
from tests.ops import maps

OP = torch.ops.amfast.upsample_add_to_rgb.default
BACKWARD_OP = torch.ops.amfast.upsample_add_to_rgb_backward.default
NAMES = ("h", "skip", "scale", "shift", "weight", "bias")


def make_inputs(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    channels_last: bool = True,
) -> list[Tensor]:
    n, c, height, width = shape  # of skip
    draw = maps.Draw(dtype, seed)
    h = draw.map(n, c, 2 * height, 2 * width, channels_last=channels_last)
    skip = draw.map(n, c, height, width, channels_last=channels_last)
    scale, shift = draw.factor(1, c)[0], draw.factor(1, c)[0]
    return [h, skip, scale, shift, draw.map(3, c, 3, 3), draw.map(1, 3, 1, 1).flatten()]


def bound(inputs: list[Tensor], impl: str = "auto") -> maps.Function:
    """The op as a function of its two maps."""
    frozen = inputs[2:]
    return lambda h, skip: upsample_add_to_rgb(h, skip, *frozen, impl=impl)  # type: ignore[arg-type]


def specified(inputs: list[Tensor]) -> maps.Function:
    """The specification in float64, but for the sum, which is rounded to the dtype of the maps."""
    scale, shift, weight, bias = (x.double() for x in inputs[2:])

    def run(h: Tensor, skip: Tensor) -> Tensor:
        added = upsample_add(h, skip)
        added = added + (added.to(inputs[0].dtype).double() - added).detach()
        activated = (added * scale[:, None, None] + shift[:, None, None]).relu()
        return F.conv2d(activated, weight, bias, padding=1)

    return run


def pytorch(inputs: list[Tensor]) -> maps.Function:
    """The same in PyTorch's own operators, in the dtype of the maps throughout."""
    scale, shift, weight, bias = (x.to(inputs[0].dtype) for x in inputs[2:])

    def run(h: Tensor, skip: Tensor) -> Tensor:
        added = h + skip.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        activated = torch.addcmul(shift[:, None, None], added, scale[:, None, None]).relu()
        return F.conv2d(activated, weight, bias, padding=1)

    return run


def test_the_implementation_under_test_is_the_one_meant() -> None:
    assert maps.served("upsample_add_to_rgb", "upsample_add_to_rgb_backward") == maps.meant()


SHAPES = [shape for shape in maps.SHAPES if 0 not in shape]


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 16, 17, 3), (1, 33, 9, 20)], ids=str)
def test_values_and_gradients_match_float64(
    shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    if impl == "ref" and dtype in maps.HALF_DTYPES:
        dtype = torch.float32  # PyTorch rounds the sum's gradient before it adds up the skip's
    inputs = make_inputs(shape, dtype)
    found = maps.run(bound(inputs, impl), inputs[:2])
    maps.assert_near(found, maps.exact(specified(inputs), inputs[:2]))
    assert found[0].dtype == dtype
    maps.assert_channels_last(found[0])


def test_no_images() -> None:
    inputs = make_inputs((0, 3, 2, 2))
    shapes = [tuple(x.shape) for x in maps.run(bound(inputs), inputs[:2])]
    assert shapes == [(0, 3, 4, 4), (0, 3, 4, 4), (0, 3, 2, 2)]


@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
def test_half_types_err_at_most_twice_as_much_as_pytorch(dtype: torch.dtype) -> None:
    inputs = make_inputs((4, 24, 8, 8), dtype)
    ours, theirs = maps.run(bound(inputs), inputs[:2]), maps.run(pytorch(inputs), inputs[:2])
    maps.assert_half_error_is_pytorchs(ours, theirs, maps.exact(specified(inputs), inputs[:2]))


@given(
    shape=st.tuples(*(st.integers(1, most) for most in (3, 40, 10, 6))),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_shape_and_layout(shape: tuple[int, ...], channels_last: bool, seed: int) -> None:
    inputs = make_inputs(shape, seed=seed, channels_last=channels_last)
    maps.assert_near(maps.run(bound(inputs), inputs[:2]), maps.exact(specified(inputs), inputs[:2]))


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    inputs = make_inputs((5, 17, 10, 4))
    together = maps.run(bound(inputs), inputs[:2])
    alone = upsample_add_to_rgb(inputs[0][2:3], inputs[1][2:3], *inputs[2:])
    assert torch.equal(alone, together[0][2:3])


def test_nan_stays_in_its_image() -> None:
    inputs = make_inputs((3, 5, 4, 4))
    clean = upsample_add_to_rgb(*inputs)
    inputs[0][1, 2, 3, 3] = torch.nan
    found = upsample_add_to_rgb(*inputs)
    assert torch.equal(found[[0, 2]], clean[[0, 2]])
    assert found[1, :, 2:5, 2:5].isnan().all()


def test_gradcheck_in_float64() -> None:
    inputs = make_inputs((2, 3, 2, 2), torch.float64)
    leaves = [x.requires_grad_() for x in inputs[:2]]
    assert torch.autograd.gradcheck(bound(inputs), leaves)
    assert torch.autograd.gradcheck(bound(inputs, "ref"), leaves)


def test_a_second_derivative_is_refused() -> None:
    inputs = make_inputs((2, 3, 2, 2), torch.float64)
    h = inputs[0].requires_grad_()
    (dh,) = torch.autograd.grad(upsample_add_to_rgb(*inputs).square().sum(), h, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        dh.square().sum().backward()


@pytest.mark.parametrize("shape", [(2, 17, 3, 2), (1, 4, 1, 1)], ids=str)
def test_opcheck(shape: tuple[int, ...]) -> None:
    inputs = make_inputs(shape)
    leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs[:2]]
    torch.library.opcheck(OP, (*leaves, *inputs[2:]))
    n, _, height, width = inputs[0].shape
    drgb = torch.randn(n, 3, height, width)
    torch.library.opcheck(BACKWARD_OP, (drgb, inputs[0], *inputs[2:5]))


def test_compiles_without_a_graph_break() -> None:
    inputs = make_inputs((2, 5, 3, 4))
    compiled = torch.compile(bound(inputs), backend="aot_eager", fullgraph=True)
    found, wanted = maps.run(compiled, inputs[:2]), maps.run(bound(inputs), inputs[:2])
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_the_backward() -> None:
    inputs = make_inputs((2, 5, 3, 4))
    kept = [tuple(x.shape) for x in maps.saved(bound(inputs), inputs[:2])]
    assert kept == [(2, 5, 6, 8), (5,), (5,), (3, 5, 3, 3)]


GOOD = make_inputs((2, 3, 2, 2))


@pytest.mark.parametrize(
    ("name", "bad", "sentence"),
    [
        ("h", torch.zeros(2, 3, 5, 4), r"h has shape \[2, 3, 5, 4\].*must be even"),
        ("h", torch.zeros(2, 3, 4, 4, dtype=torch.int64), "h is int64.*float32.*float16"),
        ("skip", torch.zeros(2, 3, 4, 4), r"skip has shape \[2, 3, 4, 4\].*\[2, 3, 2, 2\]"),
        ("scale", torch.zeros(2, 3), r"scale has shape \[2, 3\].*\[3\]"),
        ("shift", torch.zeros(3).double(), "shift is float64; it must be float32"),
        ("weight", torch.zeros(4, 3, 3, 3), r"weight has shape \[4, 3, 3, 3\].*\[3, 3, 3, 3\]"),
        ("bias", torch.zeros(3, device="meta"), "bias is on meta and h on cpu"),
        ("weight", torch.zeros(3, 3, 3, 3, requires_grad=True), "weight requires a gradient"),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_bad_arguments_get_a_sentence(name: str, bad: Tensor, sentence: str, impl: str) -> None:
    inputs = [bad if n == name else x for n, x in zip(NAMES, GOOD, strict=True)]
    with pytest.raises(UsageError, match=sentence):
        upsample_add_to_rgb(*inputs, impl=impl)  # type: ignore[arg-type]


def test_an_unknown_impl_is_refused() -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        upsample_add_to_rgb(*GOOD, impl="fast")  # type: ignore[arg-type]


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(*GOOD[:-2], torch.zeros(2, 2), GOOD[-1])
