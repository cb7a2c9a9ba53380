"""The ops over maps as tests/ops/test_map_ops.py needs them: inputs, what is right, what is bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from amfast.ops import (
    cond_norm_relu,
    cond_norm_relu_ref,
    subpixel_norm_relu,
    subpixel_norm_relu_ref,
    upsample_add,
    upsample_add_norm_relu,
    upsample_add_norm_relu_ref,
    upsample_add_to_rgb,
    upsample_add_to_rgb_ref,
)
from tests.ops import maps


@dataclass(frozen=True)
class MapOp:
    """An op with arguments ``names``, of which the first ``leaves`` have gradients.

    ``shape`` is always (N, C, H, W) of the smallest map that the op reads or writes.
    """

    function: maps.Function
    reference: maps.Function
    names: tuple[str, ...]
    leaves: int
    draw: Callable[[maps.Draw, tuple[int, ...], bool], list[Tensor]]
    #: For these inputs: what is right, a function of the leaves in float64 ...
    specified: Callable[[Sequence[Tensor]], maps.Function]
    #: ... and the same in PyTorch's own operators, in the dtype of the maps throughout.
    pytorch: Callable[[Sequence[Tensor]], maps.Function]
    #: For these inputs and results: arguments that the backward operator may get.
    backward_arguments: Callable[[Sequence[Tensor], Sequence[Tensor]], list[tuple[object, ...]]]
    #: What is kept for the backward of maps (2, 5, 3, 4).
    kept: list[tuple[int, ...]]
    #: A name, what is wrong with it beside ``inputs((2, 3, 2, 2))``, and the sentence it gets.
    bad: list[tuple[str, Tensor, str]]
    #: A map of several tiles for each of many threads, the last tile only a part.
    large: tuple[int, ...] = (1, 128, 9, 31)
    more_shapes: tuple[tuple[int, ...], ...] = ()
    #: Whether maps without channels or pixels are accepted.
    empty_maps: bool = True
    #: PyTorch rounds the gradients that the reference adds up to a half type before it does so.
    reference_rounds_early: bool = False

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        shapes = [*maps.SHAPES, *self.more_shapes]
        return [shape for shape in shapes if self.empty_maps or 0 not in shape[1:]]

    @property
    def operator(self) -> Callable[..., object]:
        return getattr(torch.ops.amfast, self.name).default  # type: ignore[no-any-return]

    @property
    def backward_operator(self) -> Callable[..., object]:
        return getattr(torch.ops.amfast, f"{self.name}_backward").default  # type: ignore[no-any-return]

    def inputs(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        channels_last: bool = True,
    ) -> list[Tensor]:
        return self.draw(maps.Draw(dtype, seed), shape, channels_last)

    def bound(self, inputs: Sequence[Tensor], impl: str = "auto") -> maps.Function:
        """The op as a function of its leaves."""
        rest = inputs[self.leaves :]
        return lambda *leaves: self.function(*leaves, *rest, impl=impl)

    def run(self, inputs: Sequence[Tensor], impl: str = "auto") -> list[Tensor]:
        """Results and gradients."""
        return maps.run(self.bound(inputs, impl), inputs[: self.leaves])

    def exact(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What ``run`` should give."""
        return maps.exact(self.specified(inputs), inputs[: self.leaves])


def _norm_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """In the dtype of ``x`` throughout."""
    scale, shift = (f.to(x.dtype)[..., None, None] for f in (scale, shift))
    return torch.addcmul(shift, x, scale).relu()


def _repeat(skip: Tensor) -> Tensor:
    return skip.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def _rounded_sum(h: Tensor, skip: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum as the ops keep it: rounded to the dtype of the maps."""
    added = upsample_add(h, skip)
    return added + (added.to(dtype).double() - added).detach()


def _draw_cond(draw: maps.Draw, shape: tuple[int, ...], channels_last: bool) -> list[Tensor]:
    x = draw.map(*shape, channels_last=channels_last)
    return [x, draw.factor(*shape[:2]), draw.factor(*shape[:2])]


COND = MapOp(
    function=cond_norm_relu,
    reference=cond_norm_relu_ref,
    names=("x", "scale", "shift"),
    leaves=3,
    draw=_draw_cond,
    specified=lambda inputs: cond_norm_relu_ref,
    pytorch=lambda inputs: _norm_relu,
    backward_arguments=lambda inputs, results: [(torch.randn_like(inputs[0]), *inputs)],
    kept=[(2, 5, 3, 4), (2, 5), (2, 5)],
    large=(1, 128, 17, 31),
    bad=[
        ("x", torch.zeros(2, 3, 2, 2, dtype=torch.int64), "x is int64.*float32.*float16"),
        ("x", torch.zeros(2, 3, 2), r"x has shape \[2, 3, 2\].*\[N, C, H, W\]"),
        ("scale", torch.zeros(2, 4), r"scale has shape \[2, 4\].*\[2, 3\]"),
        ("shift", torch.zeros(3), r"shift has shape \[3\].*\[2, 3\]"),
        ("scale", torch.zeros(2, 3).double(), "scale is float64.*float32 maps.*float32"),
        ("shift", torch.zeros(2, 3, device="meta"), "shift is on meta and the maps on cpu"),
    ],
)


def _draw_subpixel(draw: maps.Draw, shape: tuple[int, ...], channels_last: bool) -> list[Tensor]:
    n, c, height, width = shape  # of one phase in the result
    x = draw.map(n, 4 * c, height + 1, width + 1, channels_last=channels_last)
    return [x, draw.factor(n, c), draw.factor(n, c)]


def _subpixel_pytorch(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    n, channels, height, width = x.shape
    y = x.new_empty(n, channels // 4, 2 * height - 2, 2 * width - 2)
    for phase, part in enumerate(x.chunk(4, dim=1)):
        p, q = divmod(phase, 2)
        y[:, :, p::2, q::2] = part[:, :, p : p + height - 1, q : q + width - 1]
    return _norm_relu(y, scale, shift)


SUBPIXEL = MapOp(
    function=subpixel_norm_relu,
    reference=subpixel_norm_relu_ref,
    names=("x", "scale", "shift"),
    leaves=3,
    draw=_draw_subpixel,
    specified=lambda inputs: subpixel_norm_relu_ref,
    pytorch=lambda inputs: _subpixel_pytorch,
    backward_arguments=lambda inputs, results: [(torch.randn_like(results[0]), *inputs)],
    kept=[(2, 20, 4, 5), (2, 5), (2, 5)],
    bad=[
        ("x", torch.zeros(2, 12, 3, 3, dtype=torch.int64), "x is int64.*float32.*float16"),
        ("x", torch.zeros(2, 12, 3), r"x has shape \[2, 12, 3\].*\[N, C, H, W\]"),
        ("x", torch.zeros(2, 13, 3, 3), r"x has shape .*4 \* C, H \+ 1"),
        ("x", torch.zeros(2, 12, 0, 3), r"x has shape .*4 \* C, H \+ 1"),
        ("scale", torch.zeros(2, 4), r"scale has shape \[2, 4\].*\[2, 3\]"),
        ("shift", torch.zeros(3), r"shift has shape \[3\].*\[2, 3\]"),
        ("scale", torch.zeros(2, 3).double(), "scale is float64.*float32 maps.*float32"),
        ("shift", torch.zeros(2, 3, device="meta"), "shift is on meta and the maps on cpu"),
    ],
)


def _draw_pair(draw: maps.Draw, shape: tuple[int, ...], channels_last: bool) -> list[Tensor]:
    n, c, height, width = shape  # of skip
    h = draw.map(n, c, 2 * height, 2 * width, channels_last=channels_last)
    return [h, draw.map(*shape, channels_last=channels_last)]


def _draw_junction(draw: maps.Draw, shape: tuple[int, ...], channels_last: bool) -> list[Tensor]:
    pair = _draw_pair(draw, shape, channels_last)
    return [*pair, draw.factor(*shape[:2]), draw.factor(*shape[:2])]


def _junction_specified(inputs: Sequence[Tensor]) -> maps.Function:
    def run(h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        added = _rounded_sum(h, skip, inputs[0].dtype)
        return added, (added * scale[..., None, None] + shift[..., None, None]).relu()

    return run


def _junction_pytorch(
    h: Tensor, skip: Tensor, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    added = h + _repeat(skip)
    return added, _norm_relu(added, scale, shift)


JUNCTION = MapOp(
    function=upsample_add_norm_relu,
    reference=upsample_add_norm_relu_ref,
    names=("h", "skip", "scale", "shift"),
    leaves=4,
    draw=_draw_junction,
    specified=_junction_specified,
    pytorch=lambda inputs: _junction_pytorch,
    backward_arguments=lambda inputs, results: [
        (dsum, torch.randn_like(results[1]), results[0], *inputs[2:])
        for dsum in (None, torch.randn_like(results[0]))
    ],
    kept=[(2, 5, 6, 8), (2, 5), (2, 5)],
    bad=[
        ("h", torch.zeros(2, 3, 4, 4, dtype=torch.int64), "h is int64.*float32.*float16"),
        ("h", torch.zeros(2, 3, 4), r"h has shape \[2, 3, 4\].*\[N, C, H, W\]"),
        ("h", torch.zeros(2, 3, 3, 4), "h has shape .*must be even"),
        ("skip", torch.zeros(2, 3, 4, 4), r"skip has shape .*\[2, 3, 2, 2\]"),
        ("skip", torch.zeros(2, 3, 2, 2).double(), "skip is float64.*float32, as h is"),
        ("skip", torch.zeros(2, 3, 2, 2, device="meta"), "skip is on meta and h on cpu"),
        ("scale", torch.zeros(2, 4), r"scale has shape \[2, 4\].*\[2, 3\]"),
        ("shift", torch.zeros(3), r"shift has shape \[3\].*\[2, 3\]"),
        ("scale", torch.zeros(2, 3).double(), "scale is float64.*float32 maps.*float32"),
        ("shift", torch.zeros(2, 3, device="meta"), "shift is on meta and the maps on cpu"),
    ],
    reference_rounds_early=True,
)


def _draw_to_rgb(draw: maps.Draw, shape: tuple[int, ...], channels_last: bool) -> list[Tensor]:
    pair, channels = _draw_pair(draw, shape, channels_last), shape[1]
    scale, shift = draw.factor(1, channels)[0], draw.factor(1, channels)[0]
    return [*pair, scale, shift, draw.map(3, channels, 3, 3), draw.map(1, 3, 1, 1).flatten()]


def _to_rgb_specified(inputs: Sequence[Tensor]) -> maps.Function:
    scale, shift, weight, bias = (x.double() for x in inputs[2:])

    def run(h: Tensor, skip: Tensor) -> Tensor:
        added = _rounded_sum(h, skip, inputs[0].dtype)
        activated = (added * scale[:, None, None] + shift[:, None, None]).relu()
        return F.conv2d(activated, weight, bias, padding=1)

    return run


def _to_rgb_pytorch(inputs: Sequence[Tensor]) -> maps.Function:
    scale, shift, weight, bias = (x.to(inputs[0].dtype) for x in inputs[2:])

    def run(h: Tensor, skip: Tensor) -> Tensor:
        return F.conv2d(_norm_relu(h + _repeat(skip), scale, shift), weight, bias, padding=1)

    return run


def _to_rgb_backward_arguments(
    inputs: Sequence[Tensor], results: Sequence[Tensor]
) -> list[tuple[object, ...]]:
    return [(torch.randn_like(results[1]), results[0], *inputs[2:5])]


TO_RGB = MapOp(
    function=upsample_add_to_rgb,
    reference=upsample_add_to_rgb_ref,
    names=("h", "skip", "scale", "shift", "weight", "bias"),
    leaves=2,
    draw=_draw_to_rgb,
    specified=_to_rgb_specified,
    pytorch=_to_rgb_pytorch,
    backward_arguments=_to_rgb_backward_arguments,
    kept=[(2, 5, 6, 8), (5,), (5,), (3, 5, 3, 3)],
    bad=[
        ("h", torch.zeros(2, 3, 5, 4), r"h has shape \[2, 3, 5, 4\].*must be even"),
        ("h", torch.zeros(2, 3, 4, 4, dtype=torch.int64), "h is int64.*float32.*float16"),
        ("skip", torch.zeros(2, 3, 4, 4), r"skip has shape \[2, 3, 4, 4\].*\[2, 3, 2, 2\]"),
        ("scale", torch.zeros(2, 3), r"scale has shape \[2, 3\].*\[3\]"),
        ("shift", torch.zeros(3).double(), "shift is float64; it must be float32"),
        ("weight", torch.zeros(4, 3, 3, 3), r"weight has shape \[4, 3, 3, 3\].*\[3, 3, 3, 3\]"),
        ("bias", torch.zeros(3, device="meta"), "bias is on meta and h on cpu"),
        ("weight", torch.zeros(3, 3, 3, 3, requires_grad=True), "weight requires a gradient"),
    ],
    more_shapes=((2, 16, 17, 3), (1, 33, 9, 20)),
    empty_maps=False,
    reference_rounds_early=True,
)

CASES = (COND, SUBPIXEL, JUNCTION, TO_RGB)
