"""BigGAN's discriminator as published: what the original GAN loss of one embedding needs.

Module and parameter names are those of the published checkpoints. Source: Brock, Donahue, Simonyan,
"Large Scale GAN Training for High Fidelity Natural Image Synthesis" (ICLR 2019), appendix B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amfast.device import resolve_device
from amfast.embedded import EMBEDDED
from amfast.errors import UsageError, WeightsError
from amfast.generators.family import fill
from amfast.generators.reference import Attention, SNConv2d, SNLinear, SpectralNorm
from amfast.weights.files import read_weights


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The shape of one discriminator.

    ``widths`` are the channels after every block. Every block but the last halves the side.
    ``attention_block`` is the block that self-attention follows.
    """

    widths: tuple[int, ...]
    attention_block: int
    num_classes: int
    spectral_eps: float = 1e-6

    @property
    def resolution(self) -> int:
        """The side of the images that end as a 4x4 map."""
        return 4 << (len(self.widths) - 1)


#: The published ones, with ch = 96 (appendix B, table 4).
ARCHITECTURES = {
    "biggan-128": DiscriminatorConfig((96, 192, 384, 768, 1536, 1536), 0, num_classes=1000),
}


class SNEmbedding(SpectralNorm):
    def __init__(self, num_classes: int, width: int, *, eps: float) -> None:
        super().__init__((num_classes, width), eps)

    def forward(self, class_ids: Tensor) -> Tensor:
        return F.embedding(class_ids, self.normalized_weight())


class Block(nn.Module):
    """Residual block: two 3x3 convolutions beside a skip, both halved in side by averaging.

    The first block of the network gets an image, which no activation precedes. The skip has a 1x1
    convolution where the width changes or the side is halved.
    """

    def __init__(self, fan_in: int, fan_out: int, *, first: bool, halves: bool, eps: float) -> None:
        super().__init__()
        self.first, self.halves = first, halves
        self.conv1 = SNConv2d(fan_in, fan_out, 3, eps=eps)
        self.conv2 = SNConv2d(fan_out, fan_out, 3, eps=eps)
        if halves or fan_in != fan_out:
            self.conv_sc = SNConv2d(fan_in, fan_out, 1, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.halves:  # averaging commutes with the 1x1 convolution, whichever comes first
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        skip = self.conv_sc(x) if hasattr(self, "conv_sc") else x
        out: Tensor = h + skip
        return out


class Discriminator(nn.Module):
    """Images ``[N, 3, R, R]`` in [-1, 1] and class ids ``[N]`` -> scores ``[N]``, high for real."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        eps, widths = config.spectral_eps, config.widths
        self.blocks = nn.ModuleList()
        for i, (fan_in, fan_out) in enumerate(zip((3, *widths), widths, strict=False)):
            halves = i < len(widths) - 1
            stage = nn.ModuleList([Block(fan_in, fan_out, first=i == 0, halves=halves, eps=eps)])
            if i == config.attention_block:
                stage.append(Attention(fan_out, eps=eps))
            self.blocks.append(stage)
        self.linear = SNLinear(widths[-1], 1, eps=eps)
        self.embed = SNEmbedding(config.num_classes, widths[-1], eps=eps)

    def forward(self, images: Tensor, class_ids: Tensor) -> Tensor:
        h = images
        for stage in self.blocks:
            assert isinstance(stage, nn.ModuleList)
            for part in stage:
                h = part(h)
        h = F.relu(h).sum(dim=(2, 3))
        scores: Tensor = self.linear(h)[:, 0] + (self.embed(class_ids) * h).sum(dim=1)
        return scores


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """The hinge loss that the discriminator minimises, of scores ``[N]`` (appendix C)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def infer_config(state: Mapping[str, Tensor]) -> DiscriminatorConfig:
    """Read the architecture off the tensors' shapes; ``WeightsError`` for another network's."""
    try:
        blocks = len([k for k in state if re.fullmatch(r"blocks\.\d+\.0\.conv1\.weight", k)])
        widths = tuple(state[f"blocks.{i}.0.conv1.weight"].shape[0] for i in range(blocks))
        (attention,) = (int(k.split(".")[1]) for k in state if k.endswith(".1.gamma"))
        return DiscriminatorConfig(widths, attention, num_classes=state["embed.weight"].shape[0])
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            "these weights are not a BigGAN discriminator's: a key such as 'embed.weight' or "
            f"'blocks.0.0.conv1.weight' is missing or misshapen ({error})"
        ) from None


def load_discriminator(
    generator: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
) -> Discriminator:
    """The discriminator that goes with a generator, ``"embedded"`` or ``"biggan-128"``.

    In fp32, to be trained on. The published 128 model's is ``138k/D.pth`` in the archive of its
    generator; give its file as ``weights``. Raises ``UsageError`` for a generator whose
    discriminator was not published, and ``WeightsError`` for a file that is missing or of another
    network.
    """
    if generator != "embedded" and generator not in ARCHITECTURES:
        known = ", ".join(["embedded", *ARCHITECTURES])
        raise UsageError(
            f"generator {generator!r} has no published discriminator; there are those of {known}"
        )
    if weights is None and generator != "embedded":
        raise UsageError(
            f"the discriminator of {generator} is not among the fetched weights: give its file, "
            "138k/D.pth in the archive of the published model, with --discriminator-weights"
        )
    path = EMBEDDED / "discriminator.safetensors" if weights is None else Path(weights)
    state, _ = read_weights(path)
    try:
        config = infer_config(state)
        with torch.device("meta"):
            model = Discriminator(config)
        loaded = fill(model, state, f"a discriminator of {config.resolution} px", may_lack=".sv0")
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    wanted = ARCHITECTURES.get(generator)
    if wanted is not None and replace(config, num_classes=wanted.num_classes) != wanted:
        raise WeightsError(
            f"{path} holds a discriminator of {config.resolution} px and widths "
            f"{list(config.widths)}, which is not that of {generator}: it has {list(wanted.widths)}"
        )
    return loaded.to(resolve_device(device))
