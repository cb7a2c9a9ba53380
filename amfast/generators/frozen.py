"""BigGAN with everything frozen folded into its weights: what the optimisation runs.

Exact rewrites of ``reference.BigGAN`` in evaluation mode: spectral norm and batch-norm statistics
become part of the weights, the 1x1 skip convolution runs before the upsampling it commutes with,
upsampling and 3x3 convolution are one convolution (``frozen_layers``), and the gains and biases of
every cond batch norm come from one product with the embedding plus a part that depends on the
latents alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.generators.frozen_layers import (
    FrozenAttention,
    FrozenConv,
    FrozenSubpixelConv,
    FrozenUpsampleConv,
)
from amfast.generators.reference import (
    Attention,
    BigGAN,
    Block,
    CondBatchNorm,
    OutputBatchNorm,
    SNConv2d,
)
from amfast.ops import cond_norm_relu, upsample_add, upsample_add_norm_relu


@dataclass(frozen=True)
class PreparedLatents:
    """What latents ``[T, Z, D]`` contribute to a pass, independent of the embeddings."""

    seed_map: Tensor  # [T*Z, widths[0], 4, 4]
    affine: Tensor  # [T, Z, A]: the latents' part of every scale and shift


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


#: Output resolutions from which upsampling convolutions run in subpixel form, by device. Measured
#: on an AVX-512 CPU, fp32; on CUDA the transposed form stands until both have been timed there.
_SUBPIXEL_FROM = {"cpu": 16}


class _Block(nn.Module):
    """One block: ``upsample`` with the first convolution, ``conv2``, the skip's ``conv_sc``."""

    def __init__(self, block: Block, *, subpixel: bool) -> None:
        super().__init__()
        form = FrozenSubpixelConv if subpixel else FrozenUpsampleConv
        self.upsample = form(block.conv1)
        self.conv2 = FrozenConv.of(block.conv2)
        self.conv_sc = FrozenConv.of(block.conv_sc)


class FrozenBigGAN(nn.Module):
    """The frozen form of one ``BigGAN``. Takes embeddings ``[T, E]`` and latents ``[T, Z, D]``.

    Weights are folded in float64, rounded to ``dtype`` once and put on ``device``. Scales and
    shifts, and the latents' part of them, are float32 (float64 for float64) whatever ``dtype`` is;
    the embedding's product is float64.
    """

    seed_weight: Tensor
    seed_bias: Tensor
    embedding_weight: Tensor
    latent_weight: Tensor
    constant: Tensor
    output_scale: Tensor
    output_shift: Tensor

    @torch.no_grad()
    def __init__(self, source: BigGAN, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        source, config = copy.deepcopy(source).double(), source.config
        self.config, dim = config, config.embedding_dim
        subpixel_from = _SUBPIXEL_FROM.get(device.type, math.inf)
        self.blocks = nn.ModuleList()
        self.attentions = nn.ModuleDict()
        parts: list[tuple[Tensor, Tensor, Tensor]] = []  # weight on embedding, on z, constant
        for i, stage in enumerate(source.blocks):
            block = cast(Block, cast(nn.ModuleList, stage)[0])
            self.blocks.append(_Block(block, subpixel=8 * 2**i >= subpixel_from))
            if i == config.attention_block:
                attention = cast(Attention, cast(nn.ModuleList, stage)[1])
                self.attentions[str(i)] = FrozenAttention(attention)
            start = (i + 1) * config.chunk_dim
            for norm in (block.bn1, block.bn2):
                scale_w, scale_c, shift_w, shift_c = _scale_shift(norm)
                for weight, constant in ((scale_w, scale_c), (shift_w, shift_c)):
                    on_z = weight.new_zeros(len(weight), config.latent_dim)
                    on_z[:, start : start + config.chunk_dim] = weight[:, dim:]
                    parts.append((weight[:, :dim], on_z, constant))
        self._splits = [len(p[0]) for p in parts]
        self.output_conv = FrozenConv.of(cast(SNConv2d, source.output_layer[2]))
        self.register_buffer("seed_weight", source.linear.normalized_weight())
        self.register_buffer("seed_bias", cast(nn.Parameter, source.linear.bias).detach())
        self.to(dtype)

        affine_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        norm_out = cast(OutputBatchNorm, source.output_layer[0])
        output_scale = norm_out.gain * (norm_out.stored_var + norm_out.eps).rsqrt()
        output_shift = norm_out.bias - norm_out.stored_mean * output_scale
        for name, tensor in (
            ("latent_weight", torch.cat([p[1] for p in parts]).t().contiguous()),
            ("constant", torch.cat([p[2] for p in parts])),
            ("output_scale", output_scale),
            ("output_shift", output_shift),
        ):
            self.register_buffer(name, tensor.to(affine_dtype))
        self.register_buffer("embedding_weight", torch.cat([p[0] for p in parts]).t().contiguous())
        self.to(device)

    @torch.no_grad()
    def prepare_latents(self, latents: Tensor) -> PreparedLatents:
        """Latents ``[T, Z, D]`` -> the first map and the latents' part of every scale and shift."""
        chunk = latents[..., : self.config.chunk_dim].to(self.seed_weight.dtype)
        seed = F.linear(chunk, self.seed_weight, self.seed_bias)
        maps = seed.flatten(0, 1).unflatten(1, (-1, 4, 4))
        affine = latents.to(self.latent_weight.dtype) @ self.latent_weight + self.constant
        return PreparedLatents(maps.contiguous(memory_format=torch.channels_last), affine)

    def forward(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        prepared = self.prepare_latents(latents) if isinstance(latents, Tensor) else latents
        norms = self._norms(embeddings, prepared.affine)
        h = prepared.seed_map
        a = cond_norm_relu(h, *next(norms))
        for i, module in enumerate(self.blocks):
            block = cast(_Block, module)
            main, skip = block.conv2(block.upsample(a, *next(norms))), block.conv_sc(h)
            if str(i) in self.attentions:
                h = self.attentions[str(i)](upsample_add(main, skip))
                a = cond_norm_relu(h, *next(norms))
            else:
                h, a = upsample_add_norm_relu(main, skip, *next(norms))
        return torch.tanh(self.output_conv(a))

    def _norms(self, embeddings: Tensor, of_latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Scale and shift ``[T*Z, C]`` of every norm in the order of use, the output's last."""
        # In float64: then a row's rounding does not depend on how many rows share the product.
        of_embedding = (embeddings.double() @ self.embedding_weight).to(of_latents)  # [T, A]
        affine = (of_embedding[:, None] + of_latents).flatten(0, 1)
        parts = affine.split(self._splits, dim=1)
        yield from zip(parts[::2], parts[1::2], strict=True)
        images = len(affine)
        yield self.output_scale.expand(images, -1), self.output_shift.expand(images, -1)
