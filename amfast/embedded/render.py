"""Pictures of coloured silhouettes whose every factor is a smooth function of a latent.

The latent has BigGAN's layout: five chunks of four coordinates.

    chunk 0   x, y, size, turn
    chunk 1   direction and strength of the background's gradient (2), stretch, unused
    chunk 2   direction and strength of the shading inside the shape (2), unused, unused
    chunk 3   background: hue (angle of 2), value, saturation
    chunk 4   shape: hue (angle of 2), value, saturation

Uniform factors are the normal CDF of a coordinate; a hue is the angle of two coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from amfast.embedded.shapes import Shape

RESOLUTION = 64
CHUNK_DIM = 4
LATENT_DIM = 5 * CHUNK_DIM
#: The coordinates that decide gradients, shading and stretch.
SHADING = slice(CHUNK_DIM, 3 * CHUNK_DIM)
#: The coordinates that decide colour; fixing them gives renderings in one colour scheme.
COLOUR = slice(3 * CHUNK_DIM, 5 * CHUNK_DIM)


def _uniform(z: Tensor, low: float, high: float) -> Tensor:
    cdf: Tensor = torch.special.ndtr(z)
    return low + (high - low) * cdf


def _colour(hue_xy: Tensor, value: Tensor, saturation: Tensor) -> Tensor:
    """[N, 2], [N], [N] -> [N, 3] in [0, 1]: a cosine palette, smooth in the hue angle."""
    hue = torch.atan2(hue_xy[:, 1], hue_xy[:, 0])
    phases = torch.tensor([0.0, 2 * torch.pi / 3, 4 * torch.pi / 3])
    pure = 0.5 + 0.5 * torch.cos(hue[:, None] - phases)
    return value[:, None] * (1 - saturation[:, None] * (1 - pure))


def render(shapes: Sequence[Shape], class_ids: Tensor, z: Tensor) -> Tensor:
    """Draw one picture per latent: ids ``[N]``, z ``[N, 20]`` -> ``[N, 3, 64, 64]`` in [-1, 1]."""
    n = len(z)
    axis = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, -axis, indexing="xy"), dim=-1).view(1, -1, 2)  # y up

    centre = torch.stack([_uniform(z[:, 0], -0.33, 0.33), _uniform(z[:, 1], -0.33, 0.33)], dim=1)
    size = _uniform(z[:, 2], 0.45, 0.66)
    turn = _uniform(z[:, 3], -0.36, 0.36)  # +-21 degrees
    stretch = _uniform(z[:, 6], 0.88, 1.14)
    cos, sin = turn.cos(), turn.sin()
    rotation = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], dim=2)
    aspect = torch.stack([stretch, 1 / stretch], dim=1)
    local = (grid - centre[:, None]) @ rotation / (size[:, None] * aspect)[:, None]  # [N, P, 2]

    distance = torch.empty(n, RESOLUTION**2)
    for class_id in class_ids.unique().tolist():
        rows = class_ids == class_id
        distance[rows] = shapes[class_id](local[rows])
    pixel = 2 / RESOLUTION / size[:, None]  # a pixel's width in the shape's own units
    cover = (0.5 - distance / (1.5 * pixel)).clamp(0, 1)[..., None]  # [N, P, 1], antialiased edge

    def shade(direction: Tensor, points: Tensor) -> Tensor:
        strength = torch.tanh(direction / 2) * 0.35
        return 1 + (points * strength[:, None]).sum(-1, keepdim=True)  # [N, P, 1]

    background = _colour(z[:, 12:14], _uniform(z[:, 14], 0.15, 0.6), _uniform(z[:, 15], 0.4, 0.95))
    foreground = _colour(z[:, 16:18], _uniform(z[:, 18], 0.75, 1.0), _uniform(z[:, 19], 0.35, 0.95))
    back = background[:, None] * shade(z[:, 4:6], grid.expand(n, -1, -1))
    front = foreground[:, None] * shade(z[:, 8:10], local)
    image = (back * (1 - cover) + front * cover).clamp(0, 1)
    return image.transpose(1, 2).reshape(n, 3, RESOLUTION, RESOLUTION) * 2 - 1
