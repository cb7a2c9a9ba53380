"""What is particular to upsample_add_to_rgb; the rest is in tests/ops/test_map_ops.py."""

from __future__ import annotations

import torch

from amfast.ops import upsample_add_to_rgb
from tests.ops.map_cases import TO_RGB


def test_no_images() -> None:
    shapes = [tuple(x.shape) for x in TO_RGB.run(TO_RGB.inputs((0, 3, 2, 2)))]
    assert shapes == [(0, 3, 4, 4), (0, 3, 4, 4), (0, 3, 2, 2)]


def test_nan_reaches_the_pixels_around_it() -> None:
    inputs = TO_RGB.inputs((3, 5, 4, 4))
    clean = upsample_add_to_rgb(*inputs)
    inputs[0][1, 2, 3, 3] = torch.nan
    found = upsample_add_to_rgb(*inputs)
    assert torch.equal(found[[0, 2]], clean[[0, 2]])
    assert found[1, :, 2:5, 2:5].isnan().all()
