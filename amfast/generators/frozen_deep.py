"""BigGAN-deep with everything frozen folded into its weights.

The rewrites are those of ``frozen``. Here the embedding has a part in the first map, the skip is
the input's leading channels at the low resolution, and of ``conv_to_rgb`` three channels remain.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from amfast.config import TruncationStats
from amfast.generators.frozen import (
    Affine,
    FrozenNetwork,
    Norms,
    fold_norm,
    fold_output_norm,
    upsample_conv,
)
from amfast.generators.frozen_layers import FrozenAttention, FrozenConv
from amfast.generators.reference_deep import (
    BigGANDeep,
    Bottleneck,
    DeepAttention,
    DeepCondBatchNorm,
    statistics_weights,
)
from amfast.ops import cond_norm_relu


class _Bottleneck(nn.Module):
    """One block; ``side`` is that of its output."""

    def __init__(self, block: Bottleneck, side: int, device: torch.device) -> None:
        super().__init__()
        self.conv_0 = FrozenConv.of(block.conv_0)
        if block.upsample:
            self.upsample = upsample_conv(block.conv_1, side, device)
        else:
            self.conv_1 = FrozenConv.of(block.conv_1)
        self.conv_2 = FrozenConv.of(block.conv_2)
        self.conv_3 = FrozenConv.of(block.conv_3)
        self._fan_out, self._upsamples = block.fan_out, block.upsample

    def forward(self, h: Tensor, a: Tensor, norms: Norms) -> tuple[Tensor, Tensor]:
        a = cond_norm_relu(self.conv_0(a), *next(norms))
        if self._upsamples:
            a = self.upsample(a, *next(norms))
        else:
            a = cond_norm_relu(self.conv_1(a), *next(norms))
        a = cond_norm_relu(self.conv_2(a), *next(norms))
        return self.conv_3(a), h[:, : self._fan_out]


class FrozenBigGANDeep(FrozenNetwork):
    """The frozen form of one ``BigGANDeep`` at one truncation."""

    @torch.no_grad()
    def __init__(
        self,
        source: BigGANDeep,
        dtype: torch.dtype,
        device: torch.device,
        *,
        truncation: float = 1.0,
        truncation_stats: TruncationStats = "upstream",
    ) -> None:
        source, config = copy.deepcopy(source).double(), source.config
        rows = statistics_weights(truncation, truncation_stats, config.statistics)
        network, latent_dim = source.generator, config.latent_dim

        def spread(norm: DeepCondBatchNorm) -> Affine:
            gain, bias = norm.scale.normalized_weight(), norm.offset.normalized_weight()
            weight, constant = fold_norm(gain, bias, *norm.at(rows), norm.eps)
            return Affine(weight[:, latent_dim:], weight[:, :latent_dim], constant)

        blocks: list[nn.Module] = []
        attentions: dict[int, FrozenAttention] = {}
        norms: list[Affine] = []
        side = 4
        for layer in network.layers:
            if isinstance(layer, DeepAttention):
                attentions[len(blocks) - 1] = FrozenAttention(
                    layer.snconv1x1_theta,
                    layer.snconv1x1_phi,
                    layer.snconv1x1_g,
                    layer.snconv1x1_o_conv,
                    layer.gamma,
                )
                continue
            block = cast(Bottleneck, layer)
            side *= 2 if block.upsample else 1
            blocks.append(_Bottleneck(block, side, device))
            norms += [spread(norm) for norm in (block.bn_0, block.bn_1, block.bn_2, block.bn_3)]
        weight = network.gen_z.normalized_weight()  # its rows: pixels, then channels
        to_rgb = network.conv_to_rgb
        bias = cast(nn.Parameter, to_rgb.bias)
        super().__init__(
            seed=Affine(
                on_embedding=weight[:, latent_dim:],
                on_latent=weight[:, :latent_dim],
                constant=cast(nn.Parameter, network.gen_z.bias).detach(),
            ),
            blocks=blocks,
            attentions=attentions,
            norms=norms,
            output_norm=fold_output_norm(
                network.bn.weight, network.bn.bias, *network.bn.at(rows), network.bn.eps
            ),
            output_conv=FrozenConv(to_rgb.normalized_weight()[:3], bias.detach()[:3], padding=1),
            dtype=dtype,
            device=device,
        )
