"""The embedded classifiers' network: a small VGG-like stack whose every layer can be read."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (16, 32, 32, 64, 64, 96)
STRIDES = (2, 2, 1, 2, 1, 2)


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
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def fold_norms(self) -> None:
        """Fold every batch norm, in evaluation mode, into the convolution before it."""
        folded = [
            fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm))
            for conv, norm in zip(self.convs, self.norms, strict=True)
        ]
        self.convs = nn.ModuleList(folded)
        self.norms = nn.ModuleList(nn.Identity() for _ in folded)

    def features(self, x: Tensor) -> list[Tensor]:
        """The map after every layer, from ``[N, 16, 32, 32]`` to ``[N, 96, 4, 4]``."""
        maps = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x)[-1].mean(dim=(2, 3)))
        return logits
