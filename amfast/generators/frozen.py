"""BigGAN with everything frozen folded into its weights: what the optimisation runs.

Exact rewrites of ``reference.BigGAN`` in evaluation mode: spectral norm and batch-norm statistics
become part of the weights, the 1x1 skip convolution runs before the upsampling it commutes with,
upsampling and 3x3 convolution are one transposed convolution, and the gains and biases of every
cond batch norm come from one product with the embedding plus a part that depends on the latents
alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.generators.reference import (
    Attention,
    BigGAN,
    Block,
    CondBatchNorm,
    OutputBatchNorm,
    SNConv2d,
)


@dataclass(frozen=True)
class PreparedLatents:
    """What latents ``[T, Z, D]`` contribute to a pass, independent of the embeddings."""

    seed_map: Tensor  # [T*Z, widths[0], 4, 4]
    affine: Tensor  # [T, Z, A]: the latents' part of every scale and shift


class _FrozenConv(nn.Module):
    weight: Tensor
    bias: Tensor | None

    def __init__(self, conv: SNConv2d) -> None:
        super().__init__()
        weight = conv.normalized_weight().detach()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.padding = conv.padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


class _FrozenUpsampleConv(nn.Module):
    """Nearest-neighbour upsampling and a 3x3 convolution as one transposed convolution.

    The 3x3 kernel convolved with a 2x2 box, at stride 2: 4 products per output pixel instead of 9,
    and no upsampled tensor.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: SNConv2d) -> None:
        super().__init__()
        weight = conv.normalized_weight().detach()  # [out, in, 3, 3]
        box = weight.new_ones(1, 1, 2, 2)
        spread = F.conv2d(weight.flatten(0, 1)[:, None], box, padding=1)  # [out * in, 1, 4, 4]
        kernel = spread.view(*weight.shape[:2], 4, 4).flip(2, 3).transpose(0, 1)
        self.register_buffer("weight", kernel.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", cast(nn.Parameter, conv.bias).detach())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


class _FrozenAttention(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.theta, self.phi = _FrozenConv(attention.theta), _FrozenConv(attention.phi)
        self.g, self.o = _FrozenConv(attention.g), _FrozenConv(attention.o)
        self.o.weight.mul_(attention.gamma.detach())

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        query = self.theta(x).flatten(2).transpose(1, 2)[:, None]  # [N, 1, HW, C/8]
        key = F.max_pool2d(self.phi(x), 2).flatten(2).transpose(1, 2)[:, None]
        value = F.max_pool2d(self.g(x), 2).flatten(2).transpose(1, 2)[:, None]
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
        return x + cast(Tensor, self.o(mixed.transpose(1, 2).reshape(n, -1, height, width)))


def _scale_shift(norm: CondBatchNorm) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fold statistics: (x - mean) / std * gain + bias == x * scale + shift, both linear in cond.

    Returns the weights ``[C, cond]`` and constants ``[C]`` of scale and of shift.
    """
    inv_std = (norm.stored_var + norm.eps).rsqrt()
    gain, bias = norm.gain.normalized_weight(), norm.bias.normalized_weight()
    scale_weight = gain * inv_std[:, None]
    return (
        scale_weight,
        inv_std,
        bias - scale_weight * norm.stored_mean[:, None],
        -norm.stored_mean * inv_std,
    )


class FrozenBigGAN(nn.Module):
    """The frozen form of one ``BigGAN``. Takes embeddings ``[T, E]`` and latents ``[T, Z, D]``.

    Weights are folded in float64 and then rounded to ``dtype`` once. Move it with ``.to(device)``
    only: the embedding's product stays in float64 whatever ``dtype`` is.
    """

    seed_weight: Tensor
    seed_bias: Tensor
    embedding_weight: Tensor
    latent_weight: Tensor
    constant: Tensor
    output_scale: Tensor
    output_shift: Tensor

    @torch.no_grad()
    def __init__(self, source: BigGAN, dtype: torch.dtype) -> None:
        super().__init__()
        source, config = copy.deepcopy(source).double(), source.config
        self.config = config
        dim = config.embedding_dim
        self.convs = nn.ModuleList()
        self.attentions = nn.ModuleDict()
        parts: list[tuple[Tensor, Tensor, Tensor]] = []  # weight on embedding, on z, constant
        for i, stage in enumerate(source.blocks):
            block = cast(Block, cast(nn.ModuleList, stage)[0])
            conv1 = _FrozenUpsampleConv(block.conv1)
            rest = (_FrozenConv(block.conv2), _FrozenConv(block.conv_sc))
            self.convs.append(nn.ModuleList((conv1, *rest)))
            if i == config.attention_block:
                attention = cast(Attention, cast(nn.ModuleList, stage)[1])
                self.attentions[str(i)] = _FrozenAttention(attention)
            start = (i + 1) * config.chunk_dim
            for norm in (block.bn1, block.bn2):
                scale_w, scale_c, shift_w, shift_c = _scale_shift(norm)
                for weight, constant in ((scale_w, scale_c), (shift_w, shift_c)):
                    on_z = weight.new_zeros(len(weight), config.latent_dim)
                    on_z[:, start : start + config.chunk_dim] = weight[:, dim:]
                    parts.append((weight[:, :dim], on_z, constant))
        self.register_buffer("latent_weight", torch.cat([p[1] for p in parts]).t().contiguous())
        self.register_buffer("constant", torch.cat([p[2] for p in parts]))
        self._splits = [len(p[0]) for p in parts]

        self.register_buffer("seed_weight", source.linear.normalized_weight())
        self.register_buffer("seed_bias", cast(nn.Parameter, source.linear.bias).detach())
        norm_out = cast(OutputBatchNorm, source.output_layer[0])
        output_scale = norm_out.gain * (norm_out.stored_var + norm_out.eps).rsqrt()
        self.register_buffer("output_scale", output_scale[:, None, None])
        shift = norm_out.bias - norm_out.stored_mean * output_scale
        self.register_buffer("output_shift", shift[:, None, None])
        self.output_conv = _FrozenConv(cast(SNConv2d, source.output_layer[2]))
        self.to(dtype)
        self.register_buffer("embedding_weight", torch.cat([p[0] for p in parts]).t().contiguous())

    @torch.no_grad()
    def prepare_latents(self, latents: Tensor) -> PreparedLatents:
        """Latents ``[T, Z, D]`` -> the first map and the latents' part of every scale and shift."""
        latents = latents.to(self.seed_weight.dtype)
        seed = F.linear(latents[..., : self.config.chunk_dim], self.seed_weight, self.seed_bias)
        maps = seed.flatten(0, 1).unflatten(1, (-1, 4, 4))
        affine = latents @ self.latent_weight + self.constant
        return PreparedLatents(maps.contiguous(memory_format=torch.channels_last), affine)

    def forward(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        prepared = self.prepare_latents(latents) if isinstance(latents, Tensor) else latents
        # In float64: then a row's rounding does not depend on how many rows share the product.
        of_embedding = (embeddings.double() @ self.embedding_weight).to(prepared.affine)  # [T, A]
        affine = (of_embedding[:, None] + prepared.affine).flatten(0, 1)[..., None, None]
        scales_shifts = iter(affine.split(self._splits, dim=1))  # each [T*Z, C, 1, 1]

        def norm_relu(x: Tensor) -> Tensor:
            scale, shift = next(scales_shifts), next(scales_shifts)
            return torch.addcmul(shift, x, scale).relu_()

        h = prepared.seed_map
        for i, convs in enumerate(self.convs):
            conv1, conv2, conv_sc = cast(nn.ModuleList, convs)
            skip = conv_sc(h)
            h = conv2(norm_relu(conv1(norm_relu(h)))) + F.interpolate(skip, scale_factor=2.0)
            if str(i) in self.attentions:
                h = self.attentions[str(i)](h)
        h = torch.addcmul(self.output_shift, h, self.output_scale).relu_()
        return torch.tanh(self.output_conv(h))
