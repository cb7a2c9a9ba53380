"""Frozen layers: convolutions that keep nothing for the backward, and attention.

The gradient of a frozen convolution is another convolution of its gradient, whose weight is known
when the layer is built; no activation is needed for it. Plain ``conv2d`` would keep its input.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from amfast.ops import cond_norm_relu, subpixel_norm_relu


class NormalizedConv(Protocol):
    """A plain convolution with a spectral norm, of either family."""

    bias: nn.Parameter | None
    padding: int

    def normalized_weight(self) -> Tensor: ...


class _Linear(Protocol):
    """A map that is linear but for its bias, and the gradient of its input."""

    def apply_forward(self, x: Tensor) -> Tensor: ...
    def apply_backward(self, dy: Tensor) -> Tensor: ...


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _Linear) -> Tensor:
        ctx.layer = layer
        return layer.apply_forward(x)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return ctx.layer.apply_backward(dy), None


def _apply(x: Tensor, layer: _Linear) -> Tensor:
    return cast(Tensor, _Apply.apply(x, layer))  # type: ignore[no-untyped-call]


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


class FrozenConv(nn.Module):
    """``[N, in, H, W]`` -> ``[N, out, H + 2p - k + 1, W + 2p - k + 1]``, stride 1."""

    weight: Tensor
    bias: Tensor | None
    backward_weight: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, padding: int) -> None:
        super().__init__()
        self.register_buffer("weight", _channels_last(weight))
        self.register_buffer("bias", bias)
        turned = weight.flip(2, 3).transpose(0, 1)
        self.register_buffer("backward_weight", _channels_last(turned))
        self.padding, self._backward_padding = padding, weight.shape[-1] - 1 - padding

    @classmethod
    def of(cls, conv: NormalizedConv, factor: Tensor | float = 1.0) -> FrozenConv:
        """The convolution with its spectral norm and a ``factor`` folded into its weight."""
        bias = None if conv.bias is None else conv.bias.detach()
        return cls(conv.normalized_weight().detach() * factor, bias, conv.padding)

    def apply_forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)

    def apply_backward(self, dy: Tensor) -> Tensor:
        return F.conv2d(dy, self.backward_weight, padding=self._backward_padding)

    def forward(self, x: Tensor) -> Tensor:
        return _apply(x, self)


class FrozenUpsampleConv(nn.Module):
    """Nearest-neighbour upsampling, 3x3 convolution, cond batch norm and relu.

    Upsampling and convolution are one transposed convolution, with the 3x3 kernel convolved with a
    2x2 box at stride 2: 4 products per output pixel instead of 9, and no upsampled map.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: NormalizedConv) -> None:
        super().__init__()
        weight = conv.normalized_weight().detach()  # [out, in, 3, 3]
        box = weight.new_ones(1, 1, 2, 2)
        spread = F.conv2d(weight.flatten(0, 1)[:, None], box, padding=1)  # [out * in, 1, 4, 4]
        kernel = spread.view(*weight.shape[:2], 4, 4).flip(2, 3).transpose(0, 1)
        self.register_buffer("weight", _channels_last(kernel))
        self.register_buffer("bias", cast(nn.Parameter, conv.bias).detach())

    def apply_forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)

    def apply_backward(self, dy: Tensor) -> Tensor:
        return F.conv2d(dy, self.weight, stride=2, padding=1)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return cond_norm_relu(_apply(x, self), scale, shift)


class FrozenSubpixelConv(nn.Module):
    """The same as ``FrozenUpsampleConv``, as a 2x2 convolution with four times the channels.

    Each channel is a phase of the upsampled map; ``subpixel_norm_relu`` puts the phases together.
    As many products but for a margin of one pixel, and an ordinary convolution, which some
    libraries run faster than a transposed one.
    """

    def __init__(self, conv: NormalizedConv) -> None:
        super().__init__()
        weight = conv.normalized_weight().detach()
        # Which of the 3 taps fall on the first and on the second of 2 source pixels, by phase.
        taps = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        phases = torch.einsum("pik,ockl,qjl->pqocij", taps, weight, taps)
        bias = cast(nn.Parameter, conv.bias).detach().repeat(4)
        self.conv = FrozenConv(phases.flatten(0, 2), bias, padding=1)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return subpixel_norm_relu(self.conv(x), scale, shift)


class FrozenAttention(nn.Module):
    """Self-attention (Zhang et al., "Self-Attention GANs", section 3), gamma folded into ``o``."""

    def __init__(
        self,
        theta: NormalizedConv,
        phi: NormalizedConv,
        g: NormalizedConv,
        o: NormalizedConv,
        gamma: Tensor,
    ) -> None:
        super().__init__()
        weights = [conv.normalized_weight().detach() for conv in (theta, phi, g)]
        self.theta_phi_g = FrozenConv(torch.cat(weights), None, padding=0)
        self.o = FrozenConv.of(o, gamma.detach())
        self._widths = [len(weight) for weight in weights]

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        of_query, *of_pairs = self._widths
        theta, phi_g = self.theta_phi_g(x).split([of_query, sum(of_pairs)], dim=1)
        query = theta.flatten(2).transpose(1, 2)  # [N, HW, C/8]
        pairs = F.max_pool2d(phi_g, 2).flatten(2).transpose(1, 2)
        key, value = pairs.split(of_pairs, dim=2)  # [N, HW/4, C/8], [N, HW/4, C/2]
        mixed = _attend(query, key, value)
        return x + cast(Tensor, self.o(mixed.transpose(1, 2).reshape(n, -1, height, width)))


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q k^T) v, unscaled: ``[N, Q, D]``, ``[N, K, D]``, ``[N, K, E]`` -> ``[N, Q, E]``."""
    if query.device.type == "cuda":
        heads = (query[:, None], key[:, None], value[:, None])
        return F.scaled_dot_product_attention(*heads, scale=1.0)[:, 0]
    return cast(Tensor, _Attend.apply(query, key, value))  # type: ignore[no-untyped-call]


class _Attend(torch.autograd.Function):
    """Attention that keeps its inputs and never holds the whole map, ``[N, Q, K]``.

    For the CPU, whose fused kernels take no values of another width than the keys; elsewhere
    ``scaled_dot_product_attention`` does this. The backward works the map out again.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        return _joined([_weights(q, key) @ value for q in query.split(_QUERIES, dim=1)])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        dqueries, dkeys, dvalues = [], [], []
        for q, d in zip(query.split(_QUERIES, dim=1), dy.split(_QUERIES, dim=1), strict=True):
            weights = _weights(q, key)  # [N, q, K]
            dvalues.append(weights.transpose(1, 2) @ d)
            dscores = torch.ops.aten._softmax_backward_data(
                d @ value.transpose(1, 2), weights, -1, weights.dtype
            )
            dqueries.append(dscores @ key)
            dkeys.append(dscores.transpose(1, 2) @ q)
        return _joined(dqueries), reduce(torch.add, dkeys), reduce(torch.add, dvalues)


#: Queries whose weights are held at once: 16 MB of them in fp32 at BigGAN-256's 4096 keys.
_QUERIES = 1024


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    return (query @ key.transpose(1, 2)).softmax(dim=-1)
