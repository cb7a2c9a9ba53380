"""Under which licences the models of a run may be used."""

from __future__ import annotations

from dataclasses import dataclass

from amfast.classifiers import EMBEDDED_CLASSIFIERS
from amfast.classifiers.published import TIMM
from amfast.config import RunConfig
from amfast.text import printable
from amfast.weights.catalogue import CATALOGUE
from amfast.weights.files import RANDOM


@dataclass(frozen=True)
class ModelLicence:
    """A model of the run; ``citation`` is empty where there is none."""

    role: str
    name: str
    licence: str
    citation: str = ""


def model_licences(config: RunConfig) -> list[ModelLicence]:
    """The generator's and the classifier's."""
    return [
        _licence("generator", config.generator, config.weights),
        _licence("classifier", config.classifier, config.classifier_weights),
    ]


def _licence(role: str, name: str, weights: str | None) -> ModelLicence:
    shown = printable(name)
    if weights == RANDOM:
        return ModelLicence(role, shown, "none needed: random weights")
    if weights is not None:
        return ModelLicence(role, shown, "unknown: your own file")
    if name == "embedded" or name in EMBEDDED_CLASSIFIERS:
        return ModelLicence(role, shown, "Apache-2.0, as amfast itself")
    if name in CATALOGUE:
        return ModelLicence(role, shown, CATALOGUE[name].licence, CATALOGUE[name].citation)
    if name.startswith(TIMM):
        return ModelLicence(role, shown, "unknown here: timm's page of the model says")
    return ModelLicence(role, shown, "unknown: your own model")
