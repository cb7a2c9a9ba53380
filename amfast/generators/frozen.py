"""BigGAN with everything frozen folded into its weights: what the optimisation runs.

Exact rewrites of ``reference.BigGAN`` in evaluation mode: spectral norm and batch-norm statistics
become part of the weights, the 1x1 skip convolution runs before the upsampling it commutes with,
upsampling and 3x3 convolution are one convolution (``frozen_layers``), and the gains and biases of
every cond batch norm come from one product with the embedding plus a part that depends on the
latents alone. ``FrozenNetwork`` is what the frozen forms of all families share.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from amfast.generators.frozen_layers import (
    FrozenAttention,
    FrozenConv,
    FrozenSubpixelConv,
    FrozenUpsampleConv,
    NormalizedConv,
)
from amfast.generators.reference import (
    Attention,
    BigGAN,
    Block,
    CondBatchNorm,
    OutputBatchNorm,
    SNConv2d,
)
from amfast.ops import (
    cond_norm_relu,
    upsample_add,
    upsample_add_norm_relu,
    upsample_add_to_rgb,
)


@dataclass(frozen=True)
class PreparedLatents:
    """What latents ``[T, Z, D]`` contribute to a pass, independent of the embeddings."""

    seed: Tensor  # [T, Z, 16 * C]: their part of the first map, pixel by pixel
    affine: Tensor  # [T, Z, A]: their part of every scale and shift


class Affine(NamedTuple):
    """R numbers that are affine in a class embedding ``[E]`` and a latent ``[D]``."""

    on_embedding: Tensor  # [R, E]
    on_latent: Tensor  # [R, D]
    constant: Tensor  # [R]


def fold_norm(
    gain: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Fold statistics: (x - mean) / std * (1 + gain) + bias == x * scale + shift.

    ``gain`` and ``bias`` are the weights ``[C, cond]`` of maps of the cond vector, and so scale and
    shift are affine in it: weights ``[2 * C, cond]`` and constants ``[2 * C]``, scale's first.
    """
    inv_std = (var + eps).rsqrt()
    scale = gain * inv_std[:, None]
    weight = torch.cat([scale, bias - scale * mean[:, None]])
    return weight, torch.cat([inv_std, -mean * inv_std])


def fold_output_norm(
    gain: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift ``[C]`` of a batch norm whose gain and bias ``[C]`` are constant."""
    scale = gain * (var + eps).rsqrt()
    return scale, bias - mean * scale


#: Output resolutions from which upsampling convolutions run in subpixel form, by device. Measured
#: on an AVX-512 CPU, fp32; on CUDA the transposed form stands until both have been timed there.
_SUBPIXEL_FROM = {"cpu": 16}


def upsample_conv(
    conv: NormalizedConv, side: int, device: torch.device
) -> FrozenUpsampleConv | FrozenSubpixelConv:
    """Upsampling to ``side`` pixels and ``conv``, in the form that is faster there."""
    subpixel = side >= _SUBPIXEL_FROM.get(device.type, math.inf)
    return FrozenSubpixelConv(conv) if subpixel else FrozenUpsampleConv(conv)


#: Scale and shift ``[N, C]`` of the norms still to come.
Norms = Iterator[tuple[Tensor, Tensor]]


class FrozenNetwork(nn.Module):
    """Embeddings ``[T, E]`` and latents ``[T, Z, D]`` -> images ``[T*Z, 3, R, R]`` in [-1, 1].

    A block takes the map ``h``, ``relu(norm(h))`` and the norms to come, uses up its own, and
    returns its main path and its skip path, which is upsampled here where it is smaller.
    ``attentions`` follow the blocks of their indices. ``norms`` are scale and shift, in this order,
    of every cond batch norm in the order of use. ``seed`` gives the first map, pixel by pixel; its
    ``on_embedding`` is empty, ``[R, 0]``, where the embedding has no part in it, and its
    ``on_latent`` ``[R, d]`` may be of the first ``d`` latent numbers alone.

    Everything is given in float64. The weights of the blocks are rounded to ``dtype`` once and put
    on ``device``. Scales and shifts, the latents' part of them and the first map before its one
    rounding are float32 (float64 for float64) whatever ``dtype`` is; products with the embedding
    are float64.
    """

    seed_on_embedding: Tensor
    seed_on_latent: Tensor
    seed_constant: Tensor
    norm_on_embedding: Tensor
    norm_on_latent: Tensor
    norm_constant: Tensor
    output_scale: Tensor
    output_shift: Tensor

    def __init__(
        self,
        *,
        seed: Affine,
        blocks: Sequence[nn.Module],
        attentions: Mapping[int, FrozenAttention],
        norms: Sequence[Affine],
        output_norm: tuple[Tensor, Tensor],
        output_conv: FrozenConv,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleDict({str(i): module for i, module in attentions.items()})
        self.output_conv = output_conv
        self.to(dtype)
        self.dtype = dtype
        self._widths = [len(norm.constant) // 2 for norm in norms for _ in ("scale", "shift")]

        norm = Affine(*(torch.cat(parts) for parts in zip(*norms, strict=True)))
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        for name, tensor in (
            ("seed_on_latent", seed.on_latent.t().contiguous()),
            ("seed_constant", seed.constant),
            ("norm_on_latent", norm.on_latent.t().contiguous()),
            ("norm_constant", norm.constant),
            ("output_scale", output_norm[0]),
            ("output_shift", output_norm[1]),
        ):
            self.register_buffer(name, tensor.to(wide))
        # Products in float64: a row's rounding then does not depend on how many rows share it.
        self.register_buffer("seed_on_embedding", seed.on_embedding.t().contiguous())
        self.register_buffer("norm_on_embedding", norm.on_embedding.t().contiguous())
        self.to(device)

    @property
    def device(self) -> torch.device:
        return self.output_scale.device

    def prepare_latents(self, latents: Tensor) -> PreparedLatents:
        """Latents ``[T, Z, D]`` -> their part of the first map and of every scale and shift."""
        latents = latents.to(self.norm_on_latent.dtype)
        leading = latents[..., : len(self.seed_on_latent)]
        return PreparedLatents(
            seed=leading @ self.seed_on_latent + self.seed_constant,
            affine=latents @ self.norm_on_latent + self.norm_constant,
        )

    def forward(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        return torch.tanh(self.pre_tanh(embeddings, latents))

    def pre_tanh(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        """What ``forward`` gives, before its tanh."""
        prepared = self.prepare_latents(latents) if isinstance(latents, Tensor) else latents
        norms = self._norms(embeddings, prepared.affine)
        h = self._first_map(embeddings, prepared.seed)
        a = cond_norm_relu(h, *next(norms))
        for i, block in enumerate(self.blocks):
            main, skip = block(h, a, norms)
            if str(i) in self.attentions:
                h = self.attentions[str(i)](upsample_add(main, skip))
                a = cond_norm_relu(h, *next(norms))
            elif main.shape == skip.shape:
                h = main + skip
                a = cond_norm_relu(h, *next(norms))
            elif i + 1 == len(self.blocks) and h.device.type == "cpu":  # where it has a kernel
                return self._to_rgb(main, skip)
            else:
                h, a = upsample_add_norm_relu(main, skip, *next(norms))
        return cast(Tensor, self.output_conv(a))

    def _first_map(self, embeddings: Tensor, of_latents: Tensor) -> Tensor:
        """``[T*Z, C, 4, 4]``, channels_last."""
        if self.seed_on_embedding.numel():
            of_embedding = (embeddings.double() @ self.seed_on_embedding).to(of_latents)
            of_latents = of_embedding[:, None] + of_latents
        pixels: Tensor = of_latents.to(self.dtype).flatten(0, 1).unflatten(1, (4, 4, -1))
        return pixels.permute(0, 3, 1, 2)

    def _to_rgb(self, main: Tensor, skip: Tensor) -> Tensor:
        conv, bias = self.output_conv, cast(Tensor, self.output_conv.bias)
        return upsample_add_to_rgb(
            main, skip, self.output_scale, self.output_shift, conv.weight, bias
        )

    def _norms(self, embeddings: Tensor, of_latents: Tensor) -> Norms:
        """Scale and shift ``[T*Z, C]`` of every norm in the order of use, the output's last."""
        of_embedding = (embeddings.double() @ self.norm_on_embedding).to(of_latents)  # [T, A]
        affine = (of_embedding[:, None] + of_latents).flatten(0, 1)
        parts = affine.split(self._widths, dim=1)
        yield from zip(parts[::2], parts[1::2], strict=True)
        images = len(affine)
        yield self.output_scale.expand(images, -1), self.output_shift.expand(images, -1)


class _Block(nn.Module):
    """One block: ``upsample`` with the first convolution, ``conv2``, the skip's ``conv_sc``."""

    def __init__(self, block: Block, side: int, device: torch.device) -> None:
        super().__init__()
        self.upsample = upsample_conv(block.conv1, side, device)
        self.conv2 = FrozenConv.of(block.conv2)
        self.conv_sc = FrozenConv.of(block.conv_sc)

    def forward(self, h: Tensor, a: Tensor, norms: Norms) -> tuple[Tensor, Tensor]:
        return self.conv2(self.upsample(a, *next(norms))), self.conv_sc(h)


class FrozenBigGAN(FrozenNetwork):
    """The frozen form of one ``BigGAN``."""

    @torch.no_grad()
    def __init__(self, source: BigGAN, dtype: torch.dtype, device: torch.device) -> None:
        source, config = copy.deepcopy(source).double(), source.config
        embedding_dim, chunk_dim = config.embedding_dim, config.chunk_dim

        def spread(norm: CondBatchNorm, chunk: int) -> Affine:
            weight, constant = fold_norm(
                norm.gain.normalized_weight(),
                norm.bias.normalized_weight(),
                norm.stored_mean,
                norm.stored_var,
                norm.eps,
            )
            on_latent = weight.new_zeros(len(weight), config.latent_dim)
            on_latent[:, chunk * chunk_dim : (chunk + 1) * chunk_dim] = weight[:, embedding_dim:]
            return Affine(weight[:, :embedding_dim], on_latent, constant)

        blocks: list[nn.Module] = []
        attentions: dict[int, FrozenAttention] = {}
        norms: list[Affine] = []
        for i, stage in enumerate(source.blocks):
            block, *after = cast(nn.ModuleList, stage)
            block = cast(Block, block)
            blocks.append(_Block(block, 8 << i, device))
            norms += [spread(norm, i + 1) for norm in (block.bn1, block.bn2)]
            for module in after:
                a = cast(Attention, module)
                attentions[i] = FrozenAttention(a.theta, a.phi, a.g, a.o, a.gamma)
        weight = source.linear.normalized_weight()  # its rows: channels, then pixels
        bias = cast(nn.Parameter, source.linear.bias)
        out = cast(OutputBatchNorm, source.output_layer[0])
        super().__init__(
            seed=Affine(
                on_embedding=weight.new_empty(len(weight), 0),
                on_latent=weight.unflatten(0, (-1, 16)).transpose(0, 1).flatten(0, 1),
                constant=bias.unflatten(0, (-1, 16)).t().flatten(),
            ),
            blocks=blocks,
            attentions=attentions,
            norms=norms,
            output_norm=fold_output_norm(
                out.gain, out.bias, out.stored_mean, out.stored_var, out.eps
            ),
            output_conv=FrozenConv.of(cast(SNConv2d, source.output_layer[2])),
            dtype=dtype,
            device=device,
        )
