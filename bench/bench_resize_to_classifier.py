"""resize_to_classifier, forward and backward: the kernel, the reference, the reference compiled.

Compare within one run. The images are the generators' before their tanh, the sizes those of the
embedded classifier, of AlexNet and ResNet-50, and of Inception-v3; on the CPU few at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from amfast.classifiers.protocol import IMAGENET_MEAN, IMAGENET_STD
from amfast.ops import resize_to_classifier, resize_to_classifier_ref
from bench.contestants import CONTESTANTS, DEVICES, draw, time_op

#: Where -> images, their side, the classifier's and the mode.
SIZES = {
    "cpu": {
        "embedded-64-64": (20, 64, 64, "bilinear"),
        "biggan-128-224": (4, 128, 224, "bilinear"),
        "biggan-256-224": (4, 256, 224, "bilinear"),
        "biggan-256-224-antialias": (4, 256, 224, "bilinear_antialias"),
        "biggan-256-299": (4, 256, 299, "bilinear"),
    },
    "cuda": {
        "biggan-128-224": (20, 128, 224, "bilinear"),
        "biggan-128-224-many": (160, 128, 224, "bilinear"),
        "biggan-256-224": (20, 256, 224, "bilinear"),
        "biggan-256-224-antialias": (20, 256, 224, "bilinear_antialias"),
        "biggan-256-299": (20, 256, 299, "bilinear"),
    },
}
PLACES = [(device, shape) for device in DEVICES for shape in SIZES[device]]


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("place", PLACES, ids="-".join)
def test_forward_and_backward(place: tuple[str, str], name: str, benchmark: Any) -> None:
    device, shape = place
    n, side, size, mode = SIZES[device][shape]
    options = {"size": size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "mode": mode}
    ours, reference = (
        partial(function, **options, input="pre_tanh")
        for function in (resize_to_classifier, resize_to_classifier_ref)
    )
    x = draw(device).map(n, 3, side, side)
    # x and the result forward; the result's gradient, x and its gradient backward
    moved = 3 * x.numel() + 2 * n * 3 * size**2
    time_op(benchmark, "resize_to_classifier", name, place, (ours, reference), [x], moved)
