"""BigGAN-deep as published: the plain model that its frozen form is tested against.

Module and parameter names are those of the published 128, 256 and 512 files, so their state_dicts
load unchanged. Source: Brock, Donahue, Simonyan, "Large Scale GAN Training for High Fidelity
Natural Image Synthesis" (ICLR 2019), appendix B, and the pytorch-pretrained-biggan package, whose
images this model reproduces. It is published for evaluation alone, and so is this form: neither
spectral norms nor statistics are trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.config import TruncationStats
from amfast.errors import UsageError
from amfast.generators.reference import mix_by_attention


@dataclass(frozen=True)
class BigGANDeepConfig:
    """The shape of one BigGAN-deep.

    ``widths`` are the channels of the 4x4 map and then of every stage's output; a stage is two
    bottleneck blocks, of which the second doubles the side and keeps or halves the channels. So a
    network with S stages has S + 1 widths and makes images of ``4 * 2**S`` pixels.
    ``attention_stage`` is the index of the stage that self-attention follows. ``statistics`` is the
    number of truncations, evenly spaced from 0 to 1, whose batch-norm statistics are stored.
    ``norm_eps`` cannot be read from a checkpoint.
    """

    widths: tuple[int, ...]
    attention_stage: int
    num_classes: int
    embedding_dim: int = 128
    latent_dim: int = 128
    statistics: int = 51
    norm_eps: float = 1e-4

    @property
    def cond_dim(self) -> int:
        return self.latent_dim + self.embedding_dim

    @property
    def num_stages(self) -> int:
        return len(self.widths) - 1

    @property
    def resolution(self) -> int:
        return 4 << self.num_stages


def check_truncation(truncation: float, stats: TruncationStats) -> None:
    """Raise ``UsageError`` for a truncation outside (0, 1] or an unknown rule."""
    if not 0 < truncation <= 1:
        raise UsageError(f"truncation must lie in (0, 1], given {truncation}")
    if stats not in get_args(TruncationStats):
        raise UsageError(f"truncation_stats is {stats!r}; it may be 'upstream' or 'exact'.")


def statistics_weights(truncation: float, stats: TruncationStats, rows: int) -> Tensor:
    """What each row of stored statistics counts for at a truncation: ``[rows]``, float64, sum 1.

    ``"exact"`` interpolates linearly between the two rows around the truncation. ``"upstream"`` is
    the published package's rule, with which published images were made: it gives the nearer row the
    smaller share, and takes a truncation whose quotient by the spacing is rounded down for one just
    short of its row (0.58 of 51 rows: row 28, not 29). Raises ``UsageError`` as
    ``check_truncation`` does.
    """
    check_truncation(truncation, stats)
    last = rows - 1
    position = truncation / (1 / last) if stats == "upstream" else truncation * last
    part, low = math.modf(min(position, last))
    if part and stats == "upstream":
        part = 1 - part
    weights = torch.zeros(rows, dtype=torch.float64)
    weights[int(low)] = 1 - part
    if part:
        weights[int(low) + 1] = part
    return weights


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.square().sum().sqrt()


class StoredSpectralNorm(nn.Module):
    """A weight divided by its largest singular value, of which both vectors are stored.

    Nothing is iterated: the value is ``u^T W v`` with the vectors as they are. The weight is random
    until one is loaded: this family is not trained here.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, weight_shape: tuple[int, ...], *, bias: bool) -> None:
        super().__init__()
        self.weight_orig = nn.Parameter(torch.randn(weight_shape))
        u = _unit(torch.randn(weight_shape[0]))
        self.register_buffer("weight_u", u)
        self.register_buffer("weight_v", _unit(u @ self.weight_orig.detach().flatten(1)))
        self.bias = nn.Parameter(torch.zeros(weight_shape[0])) if bias else None

    def normalized_weight(self) -> Tensor:
        sigma = self.weight_u @ self.weight_orig.flatten(1) @ self.weight_v
        return self.weight_orig / sigma


class DeepLinear(StoredSpectralNorm):
    def __init__(self, fan_in: int, fan_out: int, *, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalized_weight(), self.bias)


class DeepConv2d(StoredSpectralNorm):
    def __init__(self, fan_in: int, fan_out: int, kernel: int, *, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in, kernel, kernel), bias=bias)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalized_weight(), self.bias, padding=self.padding)


class TruncationStatistics(nn.Module):
    """Batch normalisation without its affine part; a row of statistics for every truncation."""

    running_means: Tensor
    running_vars: Tensor

    def __init__(self, channels: int, config: BigGANDeepConfig) -> None:
        super().__init__()
        self.register_buffer("running_means", torch.zeros(config.statistics, channels))
        self.register_buffer("running_vars", torch.ones(config.statistics, channels))
        self.eps = config.norm_eps

    def at(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance ``[C]`` for the rows' ``weights`` (``statistics_weights``)."""
        weights = weights.to(self.running_means)
        return weights @ self.running_means, weights @ self.running_vars

    def normalize(self, x: Tensor, weights: Tensor) -> Tensor:
        return F.batch_norm(x, *self.at(weights), eps=self.eps)


class DeepCondBatchNorm(TruncationStatistics):
    """Cond batch norm: gain = 1 + Linear(cond) and bias = Linear(cond), per image."""

    def __init__(self, channels: int, config: BigGANDeepConfig) -> None:
        super().__init__(channels, config)
        self.scale = DeepLinear(config.cond_dim, channels, bias=False)
        self.offset = DeepLinear(config.cond_dim, channels, bias=False)

    def forward(self, x: Tensor, cond: Tensor, weights: Tensor) -> Tensor:
        gain = 1 + self.scale(cond)  # [N, C]
        bias = self.offset(cond)
        normal = self.normalize(x, weights)
        return torch.addcmul(bias[:, :, None, None], normal, gain[:, :, None, None])


class DeepOutputBatchNorm(TruncationStatistics):
    """The last batch norm: an unconditional gain and bias."""

    def __init__(self, channels: int, config: BigGANDeepConfig) -> None:
        super().__init__(channels, config)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        normal = self.normalize(x, weights)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class Bottleneck(nn.Module):
    """Residual block: 1x1, 3x3, 3x3 and 1x1 convolutions, a quarter as wide between.

    Upsampling comes before ``conv_1``. The skip has no weights: where the block narrows, it keeps
    the first of its channels.
    """

    def __init__(
        self, fan_in: int, fan_out: int, config: BigGANDeepConfig, *, upsample: bool
    ) -> None:
        super().__init__()
        middle = fan_in // 4
        self.bn_0 = DeepCondBatchNorm(fan_in, config)
        self.conv_0 = DeepConv2d(fan_in, middle, 1)
        self.bn_1 = DeepCondBatchNorm(middle, config)
        self.conv_1 = DeepConv2d(middle, middle, 3)
        self.bn_2 = DeepCondBatchNorm(middle, config)
        self.conv_2 = DeepConv2d(middle, middle, 3)
        self.bn_3 = DeepCondBatchNorm(middle, config)
        self.conv_3 = DeepConv2d(middle, fan_out, 1)
        self.fan_out, self.upsample = fan_out, upsample

    def forward(self, x: Tensor, cond: Tensor, weights: Tensor) -> Tensor:
        h = self.conv_0(F.relu(self.bn_0(x, cond, weights)))
        h = F.relu(self.bn_1(h, cond, weights))
        skip = x[:, : self.fan_out]
        if self.upsample:
            h, skip = (F.interpolate(m, scale_factor=2.0) for m in (h, skip))
        h = self.conv_1(h)
        h = self.conv_2(F.relu(self.bn_2(h, cond, weights)))
        h = self.conv_3(F.relu(self.bn_3(h, cond, weights)))
        return cast(Tensor, h) + skip


class DeepAttention(nn.Module):
    """Self-attention as in ``reference.Attention``, under this family's names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.snconv1x1_theta = DeepConv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_phi = DeepConv2d(channels, channels // 8, 1, bias=False)
        self.snconv1x1_g = DeepConv2d(channels, channels // 2, 1, bias=False)
        self.snconv1x1_o_conv = DeepConv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = mix_by_attention(
            self.snconv1x1_theta(x), self.snconv1x1_phi(x), self.snconv1x1_g(x)
        )
        out: Tensor = self.snconv1x1_o_conv(mixed)
        return x + self.gamma * out


class DeepNetwork(nn.Module):
    """Everything but the class embeddings: cond vectors ``[N, D + E]`` -> images."""

    def __init__(self, config: BigGANDeepConfig) -> None:
        super().__init__()
        widths = config.widths
        self.gen_z = DeepLinear(config.cond_dim, 16 * widths[0])
        self.layers = nn.ModuleList()
        for stage, (fan_in, fan_out) in enumerate(pairwise(widths)):
            self.layers.append(Bottleneck(fan_in, fan_in, config, upsample=False))
            self.layers.append(Bottleneck(fan_in, fan_out, config, upsample=True))
            if stage == config.attention_stage:
                self.layers.append(DeepAttention(fan_out))
        self.bn = DeepOutputBatchNorm(widths[-1], config)
        self.conv_to_rgb = DeepConv2d(widths[-1], widths[-1], 3)

    def forward(self, cond: Tensor, weights: Tensor) -> Tensor:
        rows = self.gen_z(cond).unflatten(1, (4, 4, -1))  # [N, 4, 4, C]
        h = rows.permute(0, 3, 1, 2).contiguous()
        for layer in self.layers:
            h = layer(h) if isinstance(layer, DeepAttention) else layer(h, cond, weights)
        # As published: as many channels as conv_to_rgb takes, of which three are used.
        return torch.tanh(self.conv_to_rgb(F.relu(self.bn(h, weights)))[:, :3])


class BigGANDeep(nn.Module):
    """The generator of BigGAN-deep: z and the class embedding reach every layer undivided.

    ``forward(embedding, z)`` takes a class embedding ``[N, E]`` and a latent ``[N, D]`` per image
    and returns images ``[N, 3, R, R]`` in [-1, 1]. z is used as given; ``truncation``, the scale
    that the caller gave it, selects the batch-norm statistics (``statistics_weights``).
    """

    def __init__(self, config: BigGANDeepConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Linear(config.num_classes, config.embedding_dim, bias=False)
        self.generator = DeepNetwork(config)

    @property
    def class_embeddings(self) -> Tensor:
        """``[num_classes, E]``; stored transposed."""
        return self.embeddings.weight.t()

    def forward(
        self,
        embedding: Tensor,
        z: Tensor,
        truncation: float = 1.0,
        truncation_stats: TruncationStats = "upstream",
    ) -> Tensor:
        weights = statistics_weights(truncation, truncation_stats, self.config.statistics)
        images: Tensor = self.generator(torch.cat([z, embedding], dim=1), weights)
        return images
