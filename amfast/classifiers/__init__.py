"""Frozen classifiers: normalised images in, logits out."""

from __future__ import annotations

from pathlib import Path

import torch

from amfast.classifiers.protocol import (
    Classifier,
    ClassifierSpec,
    ModuleClassifier,
    to_classifier_input,
    wrap_module,
)
from amfast.config import DtypeName
from amfast.device import resolve_device, resolve_dtype
from amfast.embedded import EMBEDDED
from amfast.embedded.shapenet import ShapeNet
from amfast.errors import UsageError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.weights.files import read_labels, read_safetensors

__all__ = [
    "Classifier",
    "ClassifierSpec",
    "ModuleClassifier",
    "load_classifier",
    "to_classifier_input",
    "wrap_module",
]

#: Name -> file in amfast/embedded.
EMBEDDED_CLASSIFIERS = {
    "embedded": "classifier.safetensors",
    "embedded-unseen": "classifier-unseen.safetensors",
}


def load_classifier(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: DtypeName = "auto",
) -> ModuleClassifier:
    """Load a frozen classifier.

    ``"embedded"`` knows the shapes that the embedded generator was trained on,
    ``"embedded-unseen"`` eight others. ``weights`` replaces the file that ships. Raises
    ``UsageError`` for an unknown name and ``WeightsError`` for a file that does not fit.
    """
    if name not in EMBEDDED_CLASSIFIERS:
        known = ", ".join(EMBEDDED_CLASSIFIERS)
        raise UsageError(f"unknown classifier {name!r}: this version knows {known}")
    target = resolve_device(device)
    path = EMBEDDED / EMBEDDED_CLASSIFIERS[name] if weights is None else Path(weights)
    state, metadata = read_safetensors(path)
    labels = tuple(read_labels(metadata, path))
    module = ShapeNet(len(labels))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path} is not an embedded classifier's file: {error}") from None
    spec = ClassifierSpec(
        name=name,
        size=64,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        labels=labels,
        fingerprint=fingerprint(module.state_dict()),
    )
    module.eval().freeze(subpixel_gradients=target.type == "cpu")
    return ModuleClassifier(module, spec, target, resolve_dtype(dtype, target))
