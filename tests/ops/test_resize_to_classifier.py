"""resize_to_classifier against float64, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import resize_to_classifier, resize_to_classifier_ref
from tests.ops import maps

OP = torch.ops.amfast.resize_to_classifier.default
BACKWARD_OP = torch.ops.amfast.resize_to_classifier_backward.default

MODES = ["bilinear", "nearest", "bilinear_antialias"]
INPUTS = ["image", "pre_tanh"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: With these a result is the resized image itself.
AS_IT_IS = ((0.5,) * 3, (0.5,) * 3)
#: Images N, H, W and the height and width to bring them to: empty, a single pixel, as they are,
#: enlarged, made smaller, and one in one direction and the other in the other.
SIZES = [
    ((0, 2, 3), (4, 4)),
    ((1, 1, 1), (1, 1)),
    ((1, 1, 1), (3, 2)),
    ((1, 5, 4), (1, 1)),
    ((2, 6, 6), (6, 6)),
    ((1, 3, 6), (5, 6)),
    ((2, 8, 7), (14, 12)),
    ((1, 11, 9), (5, 4)),
    ((1, 3, 13), (7, 4)),
]
#: Every dtype, and what is given in it.
CASES = [*((dtype, "pre_tanh") for dtype in maps.DTYPES), (torch.float32, "image")]


def make_image(
    n: int,
    height: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    channels_last: bool = True,
) -> Tensor:
    return maps.Draw(dtype, seed).map(n, 3, height, width, channels_last=channels_last)


def to(size: int | tuple[int, int], function: Any = resize_to_classifier, **options: Any) -> Any:
    """What ``maps.run`` takes: a function of the image alone."""
    return functools.partial(function, size=size, mean=MEAN, std=STD, **options)


def exactly(size: int | tuple[int, int], **options: Any) -> Any:
    return to(size, resize_to_classifier_ref, **options)


def pytorch(x: Tensor, size: tuple[int, int], mode: str, input: str) -> Tensor:
    """The same in PyTorch's own operators, in the dtype of the image throughout."""
    images = x.tanh() if input == "pre_tanh" else x
    resized = F.interpolate(images, size, mode=mode)
    mean, std = (torch.tensor(v, dtype=x.dtype)[:, None, None] for v in (MEAN, STD))
    return ((resized + 1) / 2 - mean) / std


def test_the_implementation_under_test_is_the_one_meant() -> None:
    assert maps.served("resize_to_classifier", "resize_to_classifier_backward") == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "input"), CASES, ids=str)
@pytest.mark.parametrize(("image", "size"), SIZES, ids=str)
def test_values_and_gradients_match_float64(
    image: tuple[int, int, int],
    size: tuple[int, int],
    dtype: torch.dtype,
    mode: str,
    input: str,
    impl: str,
) -> None:
    x = make_image(*image, dtype)
    found = maps.run(to(size, mode=mode, input=input, impl=impl), [x])
    maps.assert_near(found, maps.exact(exactly(size, mode=mode, input=input), [x]))
    assert found[0].shape == (image[0], 3, *size) and found[0].dtype == dtype
    for result in found if impl == "auto" else found[:1]:
        maps.assert_channels_last(result)


@pytest.mark.parametrize("result", maps.DTYPES, ids=str)
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
def test_the_result_has_the_dtype_asked_for(dtype: torch.dtype, result: torch.dtype) -> None:
    x = make_image(1, 5, 4, dtype)
    for size, input in (((5, 4), "image"), ((7, 6), "pre_tanh")):
        found = maps.run(to(size, input=input, dtype=result), [x])
        assert found[0].dtype == result and found[1].dtype == dtype
        wanted = maps.run(exactly(size, input=input, dtype=result), [x.double()])
        maps.assert_near(found, wanted)


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])  # all that PyTorch has in half types
@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
def test_half_types_err_at_most_twice_as_much_as_pytorch(
    dtype: torch.dtype, mode: str, input: str
) -> None:
    x, size = make_image(1, 9, 16, dtype), (13, 23)
    maps.assert_half_error_is_pytorchs(
        maps.run(to(size, mode=mode, input=input), [x]),
        maps.run(functools.partial(pytorch, size=size, mode=mode, input=input), [x]),
        maps.exact(exactly(size, mode=mode, input=input), [x]),
    )


@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    mode=st.sampled_from(MODES),
    input=st.sampled_from(INPUTS),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=maps.examples(40), deadline=None, derandomize=True)
def test_any_size_and_layout(
    shape: tuple[int, int, int],
    size: tuple[int, int],
    mode: str,
    input: str,
    channels_last: bool,
    seed: int,
) -> None:
    x = make_image(*shape, seed=seed, channels_last=channels_last)
    options = {"mode": mode, "input": input}
    wanted = maps.exact(exactly(size, **options), [x])
    maps.assert_near(maps.run(to(size, **options), [x]), wanted)


#: A side and another; with the first two, rounding decides about a nearest pixel.
SIDES = [(21, 133), (39, 132), (64, 224), (128, 299), (299, 64)]


@pytest.mark.parametrize(("side", "size"), SIDES)
def test_nearest_pixels_are_torchs(side: int, size: int) -> None:
    places = torch.arange(float(side)).expand(1, 3, 1, side)
    for x, to_size in ((places, (1, size)), (places.mT, (size, 1))):
        wanted = F.interpolate(x, to_size)
        for dtype in (torch.float32, torch.float64):
            found = resize_to_classifier(x.to(dtype), to_size, *AS_IT_IS, mode="nearest")
            assert torch.equal(found, wanted.to(dtype))
    leaf = places.clone().requires_grad_()
    found = resize_to_classifier(leaf, (1, size), *AS_IT_IS, mode="nearest")
    counts = [
        torch.autograd.grad(y.sum(), leaf)[0] for y in (found, F.interpolate(leaf, (1, size)))
    ]
    assert torch.equal(*counts)


@pytest.mark.parametrize("mode", ["bilinear", "bilinear_antialias"])
@pytest.mark.parametrize(("side", "size"), [(5, 12), (128, 224), (256, 224), (299, 64)])
def test_other_pixels_are_torchs(side: int, size: int, mode: str) -> None:
    draw = maps.Draw(torch.float64)
    for image, to_size in (((1, side), (1, size)), ((side, 1), (size, 1))):
        x = draw.map(1, 3, *image).requires_grad_()
        d = draw.map(1, 3, *to_size)
        found = resize_to_classifier(x, to_size, *AS_IT_IS, mode=mode)  # type: ignore[arg-type]
        wanted = F.interpolate(x, to_size, mode="bilinear", antialias="antialias" in mode)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            *(torch.autograd.grad(y, x, d)[0] for y in (found, wanted)), rtol=1e-12, atol=1e-12
        )


def test_an_int_is_the_side_of_a_square() -> None:
    x = make_image(2, 5, 4)
    assert torch.equal(to(7)(x), to((7, 7))(x))


@pytest.mark.parametrize("input", INPUTS)
def test_strided_and_expanded_images(input: str) -> None:
    x = make_image(3, 5, 4)
    wanted = maps.run(to(7, input=input), [x])
    wide = torch.cat([x + 1, x, x - 1], dim=1)[:, 3:6]
    for spread in (torch.stack([x, x + 1], dim=-1)[..., 0], wide, x.mT.contiguous().mT):
        for a, b in zip(maps.run(to(7, input=input), [spread]), wanted, strict=True):
            assert torch.equal(a, b)
    with torch.no_grad():
        found = to(7, input=input)(x[:1].expand(x.shape))
    assert torch.equal(found[0], wanted[0][0]) and torch.equal(found[2], wanted[0][0])


@pytest.mark.parametrize("size", [4, 7])
def test_an_image_does_not_depend_on_its_batch_mates(size: int) -> None:
    x = make_image(3, 4, 4)
    together = to(size, input="pre_tanh")(x)
    alone = [to(size, input="pre_tanh")(x[i : i + 1]) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    poisoned = x.clone()
    poisoned[1, 0, 2, 2] = torch.nan
    for a, b in zip(
        maps.run(to(size, input="pre_tanh"), [poisoned]),
        maps.run(to(size, input="pre_tanh"), [x]),
        strict=True,
    ):
        assert torch.equal(a[[0, 2]], b[[0, 2]]) and a[1].isnan().any()


def test_saturated_pixels_keep_their_gradient() -> None:
    """tanh(9) is 1 in float32, and 1 less its square would be 0."""
    x = torch.tensor([6.0, 9.0, -12.0, 40.0, torch.inf, -torch.inf]).expand(1, 3, 1, 6)
    leaf = x.clone().requires_grad_()
    y = resize_to_classifier(leaf, (1, 6), *AS_IT_IS, input="pre_tanh")
    (dx,) = torch.autograd.grad(y.sum(), leaf)
    torch.testing.assert_close(y.detach(), x.tanh())
    assert torch.equal(dx[0, 0, 0, 4:], torch.zeros(2))
    torch.testing.assert_close(dx.double(), x.double().cosh() ** -2, rtol=1e-5, atol=1e-38)


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("mode", MODES)
def test_gradcheck_in_float64(mode: str, input: str) -> None:
    x = make_image(1, 3, 4, torch.float64).requires_grad_()
    for function in (resize_to_classifier, resize_to_classifier_ref):
        tested = to((4, 3), function, mode=mode, input=input)
        assert torch.autograd.gradcheck(tested, x, fast_mode=True)


@pytest.mark.parametrize("input", INPUTS)
def test_a_second_derivative_is_refused_and_the_reference_has_one(input: str) -> None:
    x = make_image(1, 3, 3, torch.float64).requires_grad_()
    value = to(4, input=input)(x)
    (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        first.square().sum().backward()
    assert torch.autograd.gradgradcheck(exactly(4, input=input), x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pre_tanh", [False, True])
def test_opcheck(mode: str, pre_tanh: bool) -> None:
    for n, height, size in ((0, 2, (2, 2)), (2, 3, (4, 5)), (1, 4, (4, 4))):
        x = make_image(n, height, 4)
        d = make_image(n, *size, torch.bfloat16)
        arguments = ([*size], [*MEAN], [*STD], mode, pre_tanh, torch.bfloat16)
        torch.library.opcheck(
            OP, (x.clone(memory_format=torch.preserve_format).requires_grad_(), *arguments)
        )
        arguments = ([height, 4], [*STD], mode, torch.float32)
        torch.library.opcheck(BACKWARD_OP, (d, x if pre_tanh else None, *arguments))


def test_compiles_without_a_graph_break() -> None:
    function = to(5, input="pre_tanh", dtype=torch.bfloat16)
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    x = make_image(2, 3, 4)
    for a, b in zip(maps.run(compiled, [x]), maps.run(function, [x]), strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_the_backward() -> None:
    x = make_image(2, 3, 4)
    assert maps.saved(to(5), [x]) == []
    assert [k.shape for k in maps.saved(to(5, input="pre_tanh"), [x])] == [x.shape]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"x": torch.zeros(2, 3, 2, 2, dtype=torch.int64)}, "x is int64.*float32.*float16"),
        ({"x": torch.zeros(2, 3, 2)}, r"x has shape \[2, 3, 2\].*\[N, C, H, W\]"),
        ({"x": torch.zeros(2, 1, 2, 2)}, r"x has shape \[2, 1, 2, 2\].*\[N, 3, H, W\]"),
        ({"x": torch.zeros(2, 3, 0, 2)}, r"x has shape \[2, 3, 0, 2\].*from 1 to 16384"),
        ({"x": torch.zeros(1).expand(1, 3, 1, 16385)}, "16385.*from 1 to 16384"),
        ({"size": 0}, "size is 0.*from 1 to 16384"),
        ({"size": 16385}, "size is 16385.*from 1 to 16384"),
        ({"size": (4, 5, 6)}, r"size is \(4, 5, 6\).*\[height, width\]"),
        ({"size": 2.0}, r"size is 2.0; it must be a whole number"),
        ({"mean": (0.5, 0.5)}, r"mean is \(0.5, 0.5\).*three finite numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is .*nan.*three finite numbers"),
        ({"std": (0.5, 0.5, float("inf"))}, "std is .*inf.*three finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, r"std is \(0.5, 0.0, 0.5\).*positive"),
        ({"mode": "bicubic"}, "mode is 'bicubic'.*'bilinear', 'nearest', 'bilinear_antialias'"),
        ({"input": "tanh"}, "input is 'tanh'.*'image' or 'pre_tanh'"),
        ({"dtype": torch.int32}, "dtype is torch.int32.*float32.*float16"),
        ({"impl": "fast"}, "impl is 'fast'.*'auto' or 'ref'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_get_a_sentence(changed: dict[str, Any], sentence: str) -> None:
    good = {"x": torch.zeros(2, 3, 2, 2), "size": 4, "mean": MEAN, "std": STD}
    with pytest.raises(UsageError, match=sentence):
        resize_to_classifier(**{**good, **changed})


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    arguments = ([2, 2], [*MEAN], [*STD], "bilinear", False, torch.float32)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(torch.zeros(1, 2, 4, 4), *arguments)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(torch.zeros(1, 3, 4, 4), [2, 2], [0.5], *arguments[2:])


@pytest.mark.gpu
@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize(("image", "size"), [*SIZES, ((4, 64, 64), (224, 224))], ids=str)
def test_cuda_matches_float64(
    image: tuple[int, int, int], size: tuple[int, int], dtype: torch.dtype, mode: str, input: str
) -> None:
    x = make_image(*image, dtype).cuda()
    found = maps.run(to(size, mode=mode, input=input), [x])
    maps.assert_near(found, maps.exact(exactly(size, mode=mode, input=input), [x]))
    for a, b in zip(found, maps.run(to(size, mode=mode, input=input), [x]), strict=True):
        assert torch.equal(a, b)
