"""Images to a classifier's input: tanh where it is still to come, resize, normalise, cast."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops._checks import FLOAT_DTYPES, check_impl, check_map
from amfast.ops._library import define_gradient, define_op, forbid_second_derivative

ResizeMode = Literal["bilinear", "nearest", "bilinear_antialias"]
ImageInput = Literal["image", "pre_tanh"]

MODES = ("bilinear", "nearest", "bilinear_antialias")
INPUTS = ("image", "pre_tanh")
#: Up to here the kernels' index arithmetic is exact in 32 bits.
LARGEST_SIDE = 1 << 14
#: Beyond these the arithmetic leaves float32.
LARGEST_MEAN, LEAST_STD = 1e6, 1e-6


def resize_to_classifier(
    x: Tensor,
    size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    mode: ResizeMode = "bilinear",
    input: ImageInput = "image",
    dtype: torch.dtype | None = None,
    impl: Literal["auto", "ref"] = "auto",
) -> Tensor:
    """Bring images in [-1, 1] to a classifier's size, mean and standard deviation.

    ((v + 1) / 2 - mean) / std, where v is the image, resized as ``torch.nn.functional.interpolate``
    does: ``"nearest"``, ``"bilinear"`` with ``align_corners=False`` and, for
    ``"bilinear_antialias"``, with ``antialias=True`` as well. An image that has the size already
    stays as it is. The arithmetic runs in float64 where ``x`` or ``dtype`` is float64, in float32
    otherwise, and is rounded once; nearest pixels are those of float32 images in every dtype. For
    the backward ``x`` is kept where ``input`` is ``"pre_tanh"``, otherwise nothing.

    Args:
        x: ``[N, 3, H, W]``, float32, float64, bfloat16 or float16, in any memory format; N may be
            0, sides are at most ``LARGEST_SIDE``.
        size: the side of the square result, or its ``[height, width]``, in pixels.
        mean, std: three numbers each, for images in [0, 1]. Not tensors: copying those to a device
            would make the host wait and spoil a recorded CUDA graph.
        mode: how to resize.
        input: ``"pre_tanh"`` if the image is the tanh of ``x``.
        dtype: of the result; by default that of ``x``.
        impl: ``"auto"`` lets PyTorch's dispatcher choose the kernel; ``"ref"`` runs
            ``resize_to_classifier_ref``, which is differentiable any number of times.

    Returns:
        ``[N, 3, height, width]``, channels_last.

    Raises:
        UsageError: wrong rank, size or dtype of an argument, a mean or std that is not finite, a
            std that is not positive, or an unknown ``mode``, ``input`` or ``impl``.
    """
    check_impl(impl)
    _check_images(x)
    height, width = _check_size(size)
    _check_normalisation(mean, std)
    if mode not in MODES:
        raise UsageError(f"mode is {mode!r}; it may be one of {', '.join(map(repr, MODES))}.")
    if input not in INPUTS:
        raise UsageError(f"input is {input!r}; it may be 'image' or 'pre_tanh'.")
    if dtype is not None and dtype not in FLOAT_DTYPES:
        accepted = ", ".join(map(str, FLOAT_DTYPES))
        raise UsageError(f"dtype is {dtype!r}; it must be one of {accepted}.")
    function = _forward_ref if impl == "ref" else _FORWARD
    y: Tensor = function(
        x, [height, width], [*mean], [*std], mode, input == "pre_tanh", dtype or x.dtype
    )
    return y


def resize_to_classifier_ref(
    x: Tensor,
    size: int | Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    mode: ResizeMode = "bilinear",
    input: ImageInput = "image",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The specification of ``resize_to_classifier``, in plain PyTorch."""
    height, width = _check_size(size)
    return _forward_ref(x, [height, width], mean, std, mode, input == "pre_tanh", dtype or x.dtype)


def _forward_ref(
    x: Tensor,
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    pre_tanh: bool,
    dtype: torch.dtype,
) -> Tensor:
    images = x.to(_arithmetic(x.dtype, dtype))
    if pre_tanh:
        images = images.tanh()
    shift = [(0.5 - m) / s for m, s in zip(mean, std, strict=True)]
    resized = _resize(images, size, mode)
    y = torch.addcmul(_per_channel(shift, images), resized, _per_channel(_factors(std), images))
    return y.to(dtype).contiguous(memory_format=torch.channels_last)


def _backward_ref(
    dy: Tensor,
    x: Tensor | None,
    image_size: Sequence[int],
    std: Sequence[float],
    mode: str,
    dtype: torch.dtype,
) -> Tensor:
    """Gradient of x ``[N, 3, H, W]`` in ``dtype``; ``x`` is given where the image is its tanh."""
    d = dy.to(_arithmetic(dy.dtype, dtype))
    dx = _resize_backward(d * _per_channel(_factors(std), d), image_size, mode)
    if x is not None:  # 1 - tanh(x)^2, without the cancellation where tanh saturates
        decay = (-2 * x.to(dx.dtype).abs()).exp()
        dx = dx * (4 * decay / (1 + decay).square())
    return dx.to(dtype).contiguous(memory_format=torch.channels_last)


def _arithmetic(*dtypes: torch.dtype) -> torch.dtype:
    return torch.float64 if torch.float64 in dtypes else torch.float32


def _factors(std: Sequence[float]) -> list[float]:
    return [0.5 / s for s in std]


def _per_channel(numbers: Sequence[float], like: Tensor) -> Tensor:
    """``[3, 1, 1]``, filled on the device: nothing is copied to it."""
    return torch.stack([like.new_full((), number) for number in numbers])[:, None, None]


def _resize(images: Tensor, size: Sequence[int], mode: str) -> Tensor:
    if [*images.shape[2:]] == [*size]:
        return images
    if mode == "nearest":
        rows, columns = _nearest(images, images.shape[2:], size)
        return images.index_select(2, rows).index_select(3, columns)
    antialias = mode == "bilinear_antialias"
    return F.interpolate(images, [*size], mode="bilinear", antialias=antialias)


def _resize_backward(d: Tensor, image_size: Sequence[int], mode: str) -> Tensor:
    n, channels, *size = d.shape
    if size == [*image_size]:
        return d
    if mode == "nearest":
        rows, columns = _nearest(d, image_size, size)
        wide = d.new_zeros(n, channels, size[0], image_size[1]).index_add(3, columns, d)
        return d.new_zeros(n, channels, *image_size).index_add(2, rows, wide)
    if mode == "bilinear":
        backward = torch.ops.aten.upsample_bilinear2d_backward
    else:
        backward = torch.ops.aten._upsample_bilinear2d_aa_backward
    dx: Tensor = backward(d, size, [n, channels, *image_size], False, None, None)
    return dx


def _nearest(like: Tensor, image_size: Sequence[int], size: Sequence[int]) -> list[Tensor]:
    """The nearest row of every row of the result, and the nearest column of every column.

    Found in float32 whatever the images' dtype: on the CPU, torch itself takes other pixels of
    float64 images where the product of a coordinate and the scale rounds to another integer.
    """
    return [
        F.interpolate(torch.arange(count, dtype=torch.float32, device=like.device)[None, None], to)[
            0, 0
        ].long()
        for count, to in zip(image_size, size, strict=True)
    ]


def _check_images(x: Tensor) -> None:
    check_map("x", x)
    if x.shape[1] != 3:
        raise UsageError(
            f"x has shape {list(x.shape)}; it must be [N, 3, H, W], the channels red, green, blue."
        )
    if not all(1 <= side <= LARGEST_SIDE for side in x.shape[2:]):
        raise UsageError(
            f"x has shape {list(x.shape)}; its height and width must be from 1 to {LARGEST_SIDE}."
        )


def _check_size(size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    whole = all(isinstance(s, Integral | torch.SymInt) and s is not True for s in sides)
    if not whole or len(sides) != 2 or not all(1 <= side <= LARGEST_SIDE for side in sides):
        raise UsageError(
            f"size is {size!r}; it must be a whole number from 1 to {LARGEST_SIDE}, the side of a "
            "square, or two of them, [height, width]."
        )
    height, width = (side if isinstance(side, torch.SymInt) else int(side) for side in sides)
    return height, width


def _check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    for name, numbers in (("mean", mean), ("std", std)):
        listed = isinstance(numbers, Sequence) and not isinstance(numbers, str)
        if not listed or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise UsageError(f"{name} is {numbers!r}; it must be three finite numbers.")
    if min(std) < LEAST_STD:
        raise UsageError(f"std is {std!r}; its numbers must be positive, {LEAST_STD:g} or more.")


def _is_number(value: Any) -> bool:
    number = isinstance(value, Real | torch.SymFloat)
    return number and bool(-LARGEST_MEAN <= value <= LARGEST_MEAN)


def _forward_fake(
    x: Tensor,
    size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    mode: str,
    pre_tanh: bool,
    dtype: torch.dtype,
) -> Tensor:
    return _empty(x, size, dtype)


def _backward_fake(
    dy: Tensor,
    x: Tensor | None,
    image_size: Sequence[int],
    std: Sequence[float],
    mode: str,
    dtype: torch.dtype,
) -> Tensor:
    return _empty(dy, image_size, dtype)


def _empty(like: Tensor, size: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(
        (like.shape[0], 3, *size),
        dtype=dtype,
        device=like.device,
        memory_format=torch.channels_last,
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, _, _, ctx.std, ctx.mode, pre_tanh, _ = inputs
    ctx.image_size, ctx.dtype = x.shape[2:], x.dtype
    ctx.save_for_backward(*([x] if pre_tanh else []))


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    (x,) = ctx.saved_tensors or (None,)
    dx = _BACKWARD(dy, x, ctx.image_size, ctx.std, ctx.mode, ctx.dtype)
    return dx, None, None, None, None, None, None


_FORWARD = define_op(
    "resize_to_classifier(Tensor x, SymInt[] size, float[] mean, float[] std, str mode,"
    " bool pre_tanh, ScalarType dtype) -> Tensor",
    reference=_forward_ref,
    fake=_forward_fake,
    triton="resize_to_classifier.forward",
)
_BACKWARD = define_op(
    "resize_to_classifier_backward(Tensor dy, Tensor? x, SymInt[] image_size, float[] std,"
    " str mode, ScalarType dtype) -> Tensor",
    reference=_backward_ref,
    fake=_backward_fake,
    triton="resize_to_classifier.backward",
)
define_gradient(_FORWARD, _backward, setup_context=_setup_context)
forbid_second_derivative(_BACKWARD, public="amfast.ops.resize_to_classifier")
