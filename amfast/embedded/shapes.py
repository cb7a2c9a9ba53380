"""The silhouettes, as signed distance functions.

A shape maps points ``[N, P, 2]`` (x right, y up) to signed distances ``[N, P]``, negative inside,
and fits the unit disk.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Shape = Callable[[Tensor], Tensor]


def disk(radius: float, x: float = 0.0, y: float = 0.0) -> Shape:
    return lambda p: torch.hypot(p[..., 0] - x, p[..., 1] - y) - radius


def polygon(*vertices: tuple[float, float]) -> Shape:
    """Exact distance to a simple polygon; the sign is the parity of edge crossings."""
    corners = [torch.tensor(v, dtype=torch.float32) for v in vertices]

    def distance(p: Tensor) -> Tensor:
        nearest = torch.full(p.shape[:-1], torch.inf)
        inside = torch.zeros(p.shape[:-1], dtype=torch.bool)
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
            edge, offset = b - a, p - a
            along = ((offset @ edge) / edge.dot(edge)).clamp(0, 1)
            nearest = torch.minimum(nearest, (offset - along[..., None] * edge).norm(dim=-1))
            if a[1] != b[1]:
                straddles = (p[..., 1] >= a[1]) != (p[..., 1] >= b[1])
                crossing = a[0] + (p[..., 1] - a[1]) * (edge[0] / edge[1])
                inside ^= straddles & (p[..., 0] < crossing)
        return torch.where(inside, -nearest, nearest)

    return distance


def union(*shapes: Shape) -> Shape:
    return lambda p: torch.stack([shape(p) for shape in shapes]).amin(dim=0)


def minus(shape: Shape, hole: Shape) -> Shape:
    return lambda p: torch.maximum(shape(p), -hole(p))


def stretched(shape: Shape, sx: float, sy: float) -> Shape:
    return lambda p: shape(p / torch.tensor([sx, sy])) * min(sx, sy)


def box(half_width: float, half_height: float) -> Shape:
    w, h = half_width, half_height
    return polygon((-w, -h), (w, -h), (w, h), (-w, h))


def star(points: int, inner: float) -> Shape:
    angles = torch.arange(2 * points) * torch.pi / points
    radii = torch.tensor([1.0, inner]).repeat(points)
    tips = zip((radii * angles.sin()).tolist(), (radii * angles.cos()).tolist(), strict=True)
    return polygon(*tips)


#: What the generator knows.
GENERATOR_SHAPES: dict[str, Shape] = {
    "disk": disk(0.82),
    "square": box(0.7, 0.7),
    "triangle": polygon((-0.9, -0.65), (0.9, -0.65), (0.0, 0.9)),
    "star": star(5, 0.42),
    "ring": minus(disk(0.88), disk(0.48)),
    "plus": union(box(0.9, 0.28), box(0.28, 0.9)),
    "heart": union(
        disk(0.47, -0.42, 0.3),
        disk(0.47, 0.42, 0.3),
        polygon((-0.81, 0.04), (0.0, -0.92), (0.81, 0.04), (0.0, 0.55)),
    ),
    "crescent": minus(disk(0.9), disk(0.72, 0.42, 0.12)),
    "rhombus": polygon((0.0, -0.98), (0.56, 0.0), (0.0, 0.98), (-0.56, 0.0)),
    "bar": box(0.95, 0.32),
    "arrow": polygon(
        (-0.95, -0.26),
        (0.1, -0.26),
        (0.1, -0.72),
        (0.95, 0.0),
        (0.1, 0.72),
        (0.1, 0.26),
        (-0.95, 0.26),
    ),
    "hourglass": polygon(
        (-0.75, -0.85), (0.75, -0.85), (0.14, 0.0), (0.75, 0.85), (-0.75, 0.85), (-0.14, 0.0)
    ),
}

#: What only the second classifier knows; each lies between shapes of the generator.
UNSEEN_SHAPES: dict[str, Shape] = {
    "ellipse": stretched(disk(1.0), 0.97, 0.58),
    "dome": minus(disk(0.95, 0.0, -0.35), polygon((-2, -3), (2, -3), (2, -0.35), (-2, -0.35))),
    "trapezoid": polygon((-0.95, -0.6), (0.95, -0.6), (0.42, 0.62), (-0.42, 0.62)),
    "house": polygon((-0.66, -0.8), (0.66, -0.8), (0.66, 0.15), (0.0, 0.95), (-0.66, 0.15)),
    "drop": union(disk(0.58, 0.0, -0.36), polygon((-0.52, -0.1), (0.52, -0.1), (0.0, 0.98))),
    "shield": polygon((-0.72, 0.8), (0.72, 0.8), (0.72, 0.1), (0.0, -0.95), (-0.72, 0.1)),
    "frame": minus(box(0.76, 0.76), box(0.42, 0.42)),
    "hexagon": polygon(
        (-0.92, 0.0), (-0.46, -0.8), (0.46, -0.8), (0.92, 0.0), (0.46, 0.8), (-0.46, 0.8)
    ),
}
