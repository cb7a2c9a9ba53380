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
from amfast.classifiers.published import (
    PUBLISHED,
    TIMM,
    load_published,
    load_timm,
    published_labels,
)
from amfast.config import DtypeName
from amfast.device import resolve_device, resolve_dtype
from amfast.embedded import EMBEDDED
from amfast.embedded.shapenet import FEATURE_LAYERS, ShapeNet
from amfast.errors import UsageError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.weights.files import RANDOM, read_labels, read_safetensors

__all__ = [
    "Classifier",
    "ClassifierSpec",
    "ModuleClassifier",
    "check_name",
    "class_names",
    "load_classifier",
    "to_classifier_input",
    "wrap_module",
]

#: Name -> file in amfast/embedded.
EMBEDDED_CLASSIFIERS = {
    "embedded": "classifier.safetensors",
    "embedded-unseen": "classifier-unseen.safetensors",
    "embedded-again": "classifier-again.safetensors",
    "embedded-undisturbed": "classifier-undisturbed.safetensors",
    "embedded-robust": "classifier-robust.safetensors",
}


def check_name(name: str) -> None:
    """``UsageError`` for a name that is no classifier's; which of timm's there are is not asked."""
    if name not in EMBEDDED_CLASSIFIERS and name not in PUBLISHED and not name.startswith(TIMM):
        known = ", ".join([*EMBEDDED_CLASSIFIERS, *PUBLISHED, f"{TIMM}NAME"])
        raise UsageError(f"unknown classifier {name!r}; it may be one of {known}")


def class_names(name: str) -> tuple[str, ...]:
    """The names of a classifier's classes; those of the paper's need no weights to be here.

    Errors are those of ``load_classifier``.
    """
    return published_labels(name) if name in PUBLISHED else load_classifier(name).spec.labels


def load_classifier(
    name: str,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: DtypeName = "auto",
) -> ModuleClassifier:
    """Load a frozen classifier.

    ``"embedded"`` knows the shapes that the embedded generator was trained on, and so do
    ``"embedded-again"``, ``"embedded-undisturbed"`` and ``"embedded-robust"`` from other trainings;
    ``"embedded-unseen"`` knows eight others. Those of the paper are ``"alexnet"``, ``"resnet50"``,
    ``"inception_v3"``, ``"resnet50-robust"``, ``"resnet18-places365"`` and ``"alexnet-places365"``;
    ``"timm:<name>"`` is any of timm's. Their weights come from the weight store, timm's from its
    own.

    ``weights`` is a file in their place, or ``"random"`` for seeded random ones of all but the
    embedded. Raises ``UsageError`` for an unknown name or a library that is missing, and
    ``WeightsError`` for weights that are not here or do not fit, whose keys are listed.
    """
    check_name(name)
    target = resolve_device(device)
    if name in PUBLISHED or name.startswith(TIMM):
        load = load_timm if name.startswith(TIMM) else load_published
        network, facts = load(name, weights)
        return ModuleClassifier(network, facts, target, resolve_dtype(dtype, target))
    if str(weights) == RANDOM:
        known = ", ".join([*PUBLISHED, f"{TIMM}NAME"])
        raise UsageError(f"random weights are for {known}; {name} has its own")
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
        feature_layers=FEATURE_LAYERS,
    )
    module.eval().freeze(subpixel_gradients=target.type == "cpu")
    return ModuleClassifier(module, spec, target, resolve_dtype(dtype, target))
