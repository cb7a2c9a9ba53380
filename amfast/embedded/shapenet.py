"""The embedded classifiers' network: a small VGG-like stack whose every layer can be read."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (16, 32, 32, 64, 64, 96)
STRIDES = (2, 2, 1, 2, 1, 2)
#: The map after every layer, from ``[N, 16, 32, 32]`` to ``[N, 96, 4, 4]``.
FEATURE_LAYERS = tuple(f"relus.{i}" for i in range(len(WIDTHS)))


class ShapeNet(nn.Module):
    """Normalised images ``[N, 3, 64, 64]`` -> logits ``[N, num_classes]``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        fan_ins = (3, *WIDTHS[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=s, padding=1)
            for i, o, s in zip(fan_ins, WIDTHS, STRIDES, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in WIDTHS)
        self.relus = nn.ModuleList(nn.ReLU() for _ in WIDTHS)
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def freeze(self, *, subpixel_gradients: bool) -> None:
        """Fold every batch norm, in evaluation mode, into the convolution before it.

        With ``subpixel_gradients``, convolutions at stride 2 with few input channels become
        ``FrozenHalvingConv``.
        """
        folded = [
            fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
            for conv, norm in zip(self.convs, self.norms, strict=True)
        ]
        self.convs = nn.ModuleList(
            FrozenHalvingConv(conv)
            if subpixel_gradients and conv.stride == (2, 2) and conv.in_channels <= _FEW_CHANNELS
            else conv
            for conv in folded
        )
        self.norms = nn.ModuleList(nn.Identity() for _ in folded)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm, relu in zip(self.convs, self.norms, self.relus, strict=True):
            x = relu(norm(conv(x)))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: FrozenHalvingConv) -> Tensor:
        ctx.conv = conv
        return F.conv2d(x, conv.weight, conv.bias, stride=2, padding=1)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        n, _, height, width = dy.shape
        weight = ctx.conv.backward_weight.to(dy.dtype)  # autocast ends with the forward
        phases = F.conv2d(F.pad(dy, (0, 1, 0, 1)), weight)
        by_pixel = phases.permute(0, 2, 3, 1).reshape(n, height, width, 2, 2, -1)
        pixels = by_pixel.transpose(2, 3).reshape(n, 2 * height, 2 * width, -1)  # channels_last
        return pixels.permute(0, 3, 1, 2), None


#: Measured on an AVX-512 CPU: with 3 and 16 input channels the gradient in subpixel form takes half
#: and four fifths of the time, with 32 and 64 it takes more.
_FEW_CHANNELS = 16


class FrozenHalvingConv(nn.Module):
    """A frozen 3x3 convolution at stride 2: ``[N, in, 2 * H, 2 * W]`` -> ``[N, out, H, W]``.

    Its input's gradient is worked out as four phases, the channels of an ordinary 2x2 convolution,
    and then shuffled into pixels: libraries run the transposed convolution that it is otherwise
    badly at few channels.
    """

    weight: Tensor
    bias: Tensor
    backward_weight: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach()  # [out, in, 3, 3]
        # Which of the 3 taps reach an even and an odd pixel, from the same and the next gradient.
        taps = weight.new_tensor([[[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]]])
        phases = torch.einsum("pik,ockl,qjl->pqcoij", taps, weight, taps)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", cast(nn.Parameter, conv.bias).detach())
        self.register_buffer("backward_weight", phases.flatten(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Halve.apply(x, self))
