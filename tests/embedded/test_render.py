"""The renderer: smooth in z, class by class a shape of its own, colours where they belong."""

from __future__ import annotations

import pytest
import torch

from amfast.embedded.render import COLOUR, LATENT_DIM, render
from amfast.embedded.shapes import GENERATOR_SHAPES, UNSEEN_SHAPES, Shape, polygon

ALL = {**GENERATOR_SHAPES, **UNSEEN_SHAPES}


@pytest.mark.parametrize("name", list(ALL))
def test_a_shape_fits_the_unit_disk_and_covers_something(name: str) -> None:
    axis = torch.linspace(-2, 2, 201)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).view(1, -1, 2)
    inside = ALL[name](points)[0] < 0
    assert points[0][inside].norm(dim=1).max() < 1.12
    assert 0.2 < inside.sum() * (4 / 200) ** 2 < 2.6


def test_polygon_distance_by_hand() -> None:
    square = polygon((-1, -1), (1, -1), (1, 1), (-1, 1))
    points = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [2.0, 0.0], [2.0, 2.0], [1.0, 0.3]]])
    expected = torch.tensor([[-1.0, -0.5, 1.0, 2**0.5, 0.0]])
    torch.testing.assert_close(square(points), expected)


def shapes() -> list[Shape]:
    return list(ALL.values())


def test_images_are_in_range_and_differ_by_class() -> None:
    ids = torch.arange(len(ALL))
    images = render(shapes(), ids, torch.zeros(len(ALL), LATENT_DIM))
    assert images.shape == (len(ALL), 3, 64, 64)
    assert images.abs().max() <= 1
    difference = (images[:, None] - images[None]).abs().mean(dim=(2, 3, 4))
    difference.fill_diagonal_(1)
    assert difference.min() > 0.002


def test_smooth_in_z() -> None:
    torch.manual_seed(0)
    z, direction = torch.randn(20, LATENT_DIM), torch.randn(20, LATENT_DIM)
    ids = torch.arange(20)
    step = (render(shapes(), ids, z + 1e-3 * direction) - render(shapes(), ids, z)).abs()
    assert step.mean() < 2e-3


def test_colour_coordinates_leave_the_outline_alone() -> None:
    torch.manual_seed(0)
    z = torch.randn(2, LATENT_DIM)
    z[1] = z[0]
    z[:, 4:12] = 0  # no shading
    z[1, COLOUR] = torch.randn(8)
    images = render(shapes(), torch.tensor([3, 3]), z)
    assert (images[0] - images[1]).abs().mean() > 0.1
    background = [(i - i[:, :1, :1]).abs().sum(dim=0) < 1e-3 for i in images]
    assert (background[0] == background[1]).float().mean() > 0.99
