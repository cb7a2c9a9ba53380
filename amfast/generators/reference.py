"""BigGAN as published: the plain, trainable model that every faster form is tested against.

Module and parameter names are those of the published checkpoints, so a checkpoint's state_dict
loads unchanged. Source: Brock, Donahue, Simonyan, "Large Scale GAN Training for High Fidelity
Natural Image Synthesis" (ICLR 2019), section 3 and appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class BigGANConfig:
    """The shape of one BigGAN.

    ``widths`` are the channels of the 4x4 map and then of every block's output, so a network with
    B blocks has B + 1 widths and makes images of ``4 * 2**B`` pixels. ``attention_block`` is the
    index of the block that self-attention follows. ``norm_eps`` and ``spectral_eps`` differ between
    published training scripts and cannot be read from a checkpoint; the output batch norm always
    uses 1e-5.
    """

    widths: tuple[int, ...]
    attention_block: int
    num_classes: int
    embedding_dim: int = 128
    chunk_dim: int = 20
    norm_eps: float = 1e-4
    spectral_eps: float = 1e-4

    @property
    def num_blocks(self) -> int:
        return len(self.widths) - 1

    @property
    def latent_dim(self) -> int:
        """Width of z: one chunk for the first linear layer and one for each block."""
        return self.chunk_dim * (self.num_blocks + 1)

    @property
    def resolution(self) -> int:
        return 4 << self.num_blocks


class SpectralNorm(nn.Module):
    """A weight divided by an estimate of its largest singular value.

    The estimate comes from one power iteration that starts at the buffer ``u0``; training keeps the
    improved ``u0``, evaluation does not. ``sv0`` only records the estimate.
    """

    weight: nn.Parameter
    u0: Tensor
    sv0: Tensor

    def __init__(self, weight_shape: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(weight_shape)))
        self.register_buffer("u0", torch.randn(1, weight_shape[0]))
        self.register_buffer("sv0", torch.ones(1))
        self.eps = eps

    def normalized_weight(self) -> Tensor:
        matrix = self.weight.flatten(1)  # [out, in * kh * kw]
        with torch.no_grad():
            v = F.normalize(self.u0 @ matrix, eps=self.eps)
            u = F.normalize(v @ matrix.t(), eps=self.eps)
            if self.training:
                self.u0.copy_(u)
        sigma = (v @ matrix.t() @ u.t()).squeeze()
        if self.training:
            with torch.no_grad():
                self.sv0.fill_(sigma)
        return self.weight / sigma


class SNLinear(SpectralNorm):
    def __init__(self, fan_in: int, fan_out: int, *, eps: float, bias: bool = True) -> None:
        super().__init__((fan_out, fan_in), eps)
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalized_weight(), self.bias)


class SNConv2d(SpectralNorm):
    def __init__(
        self, fan_in: int, fan_out: int, kernel: int, *, eps: float, bias: bool = True
    ) -> None:
        super().__init__((fan_out, fan_in, kernel, kernel), eps)
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalized_weight(), self.bias, padding=self.padding)


class StoredStatistics(nn.Module):
    """Batch normalisation without its affine part, under the checkpoints' buffer names."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))
        self.eps = eps

    def normalize(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.stored_mean, self.stored_var, training=self.training, momentum=0.1, eps=self.eps
        )


class CondBatchNorm(StoredStatistics):
    """Cond batch norm: gain = 1 + Linear(cond) and bias = Linear(cond), per image."""

    def __init__(self, channels: int, cond_dim: int, *, eps: float, spectral_eps: float) -> None:
        super().__init__(channels, eps)
        self.gain = SNLinear(cond_dim, channels, eps=spectral_eps, bias=False)
        self.bias = SNLinear(cond_dim, channels, eps=spectral_eps, bias=False)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        gain = 1 + self.gain(cond)  # [N, C]
        bias = self.bias(cond)
        return torch.addcmul(bias[:, :, None, None], self.normalize(x), gain[:, :, None, None])


class OutputBatchNorm(StoredStatistics):
    """The last batch norm: an unconditional gain and bias."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.normalize(x) * self.gain[:, None, None] + self.bias[:, None, None]


class Block(nn.Module):
    """Residual block that doubles the side: two 3x3 convolutions beside a 1x1 skip."""

    def __init__(self, fan_in: int, fan_out: int, cond_dim: int, config: BigGANConfig) -> None:
        super().__init__()
        eps = config.spectral_eps
        self.conv1 = SNConv2d(fan_in, fan_out, 3, eps=eps)
        self.conv2 = SNConv2d(fan_out, fan_out, 3, eps=eps)
        self.conv_sc = SNConv2d(fan_in, fan_out, 1, eps=eps)
        self.bn1 = CondBatchNorm(fan_in, cond_dim, eps=config.norm_eps, spectral_eps=eps)
        self.bn2 = CondBatchNorm(fan_out, cond_dim, eps=config.norm_eps, spectral_eps=eps)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.interpolate(F.relu(self.bn1(x, cond)), scale_factor=2.0))
        h = self.conv2(F.relu(self.bn2(h, cond)))
        skip: Tensor = self.conv_sc(F.interpolate(x, scale_factor=2.0))
        return h + skip


def mix_by_attention(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """Queries and keys ``[N, C/8, H, W]``, values ``[N, C/2, H, W]`` -> ``[N, C/2, H, W]``.

    Keys and values are max-pooled; the softmax is not scaled.
    """
    query = theta.flatten(2)  # [N, C/8, HW]
    key = F.max_pool2d(phi, 2).flatten(2)  # [N, C/8, HW/4]
    value = F.max_pool2d(g, 2).flatten(2)  # [N, C/2, HW/4]
    weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # [N, HW, HW/4]
    mixed: Tensor = (value @ weights.transpose(1, 2)).unflatten(2, theta.shape[2:])
    return mixed


class Attention(nn.Module):
    """Self-attention with max-pooled keys and values, no softmax scaling, and a learned gate."""

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__()
        self.theta = SNConv2d(channels, channels // 8, 1, eps=eps, bias=False)
        self.phi = SNConv2d(channels, channels // 8, 1, eps=eps, bias=False)
        self.g = SNConv2d(channels, channels // 2, 1, eps=eps, bias=False)
        self.o = SNConv2d(channels // 2, channels, 1, eps=eps, bias=False)
        self.gamma = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(mix_by_attention(self.theta(x), self.phi(x), self.g(x)))
        return x + self.gamma * out


class BigGAN(nn.Module):
    """The generator of BigGAN, with hierarchical z and a shared class embedding.

    ``forward(embedding, z)`` takes a class embedding ``[N, E]`` and a latent ``[N, D]`` per image
    and returns images ``[N, 3, R, R]`` in [-1, 1]. z is used as given: truncation is the caller's.
    """

    def __init__(self, config: BigGANConfig) -> None:
        super().__init__()
        self.config = config
        eps, widths = config.spectral_eps, config.widths
        # Given its numbers: its own drawing, on the meta device, imports torch's compiler (seconds,
        # and a place to write).
        table = torch.randn(config.num_classes, config.embedding_dim)
        self.shared = nn.Embedding(config.num_classes, config.embedding_dim, _weight=table)
        self.linear = SNLinear(config.chunk_dim, widths[0] * 16, eps=eps)
        self.blocks = nn.ModuleList()
        cond_dim = config.embedding_dim + config.chunk_dim
        for i in range(config.num_blocks):
            stage = nn.ModuleList([Block(widths[i], widths[i + 1], cond_dim, config)])
            if i == config.attention_block:
                stage.append(Attention(widths[i + 1], eps=eps))
            self.blocks.append(stage)
        self.output_layer = nn.Sequential(
            OutputBatchNorm(widths[-1]), nn.ReLU(), SNConv2d(widths[-1], 3, 3, eps=eps)
        )

    def forward(self, embedding: Tensor, z: Tensor) -> Tensor:
        chunks = z.split(self.config.chunk_dim, dim=1)
        h = self.linear(chunks[0]).view(len(z), -1, 4, 4)
        for stage, chunk in zip(self.blocks, chunks[1:], strict=True):
            assert isinstance(stage, nn.ModuleList)
            h = stage[0](h, torch.cat([embedding, chunk], dim=1))
            for attention in stage[1:]:
                h = attention(h)
        return torch.tanh(self.output_layer(h))
