from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from amfast.images.picture import PictureRow, side_by_side, to_image


def test_pixels_are_rounded_and_clamped() -> None:
    images = torch.tensor([-1.5, -1.0, 0.0, 1.0, 7.0]).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    pixels = np.asarray(to_image(images))
    assert pixels.shape == (2, 10, 3)
    assert pixels[0, ::2, 0].tolist() == [0, 0, 128, 255, 255]


def test_large_images_are_pooled_down() -> None:
    assert to_image(torch.zeros(2, 3, 256, 256)).size == (256, 128)


def test_groups_stand_side_by_side_and_gaps_stay_empty() -> None:
    black, grey = torch.full((3, 3, 8, 8), -1.0), torch.zeros(3, 3, 8, 8)
    rows = [PictureRow("one", [black, grey]), PictureRow("<b>two</b>", [None, grey])]
    picture = np.asarray(Image.open(io.BytesIO(side_by_side(["left", "right"], rows))))
    black_pixels = (picture == 0).all(axis=2)
    assert black_pixels.sum() == 3 * 8 * 8
    assert (picture == 128).all(axis=2).sum() >= 2 * 3 * 8 * 8
    assert np.argwhere(black_pixels)[:, 1].max() < picture.shape[1] / 2
