"""The networks that an evaluation looks through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import torch

from amfast.classifiers import ModuleClassifier, load_classifier
from amfast.errors import UsageError
from amfast.metrics.features import ClassifierFeatures, FeatureNetwork
from amfast.metrics.inception import load_inception
from amfast.metrics.lpips import Lpips, classifier_lpips, load_lpips

Features = Literal["auto", "published", "classifier"]


class Networks:
    """``judge`` says what an image shows, ``features`` give Inception Score, FID and their like.

    ``lpips`` and ``features`` are loaded when they are first asked for: weights that no chosen
    metric needs may be missing.
    """

    def __init__(
        self,
        judge: ModuleClassifier,
        lpips: Callable[[], Lpips],
        features: Callable[[], FeatureNetwork],
    ) -> None:
        self.judge = judge
        self._load_lpips, self._load_features = lpips, features

    @cached_property
    def lpips(self) -> Lpips:
        return self._load_lpips()

    @cached_property
    def features(self) -> FeatureNetwork:
        return self._load_features()


def load_networks(
    *,
    generator: str,
    class_names: Mapping[int, str] | None = None,
    judge: str | None = None,
    judge_weights: str | Path | None = None,
    features: Features = "auto",
    device: torch.device,
) -> Networks:
    """The networks for images of a generator, of classes that the judge must know by these names.

    ``judge`` is a classifier; by default the embedded one for the embedded generator and
    Inception-v3, whose accuracy the paper reports, for any other. ``features`` are
    ``"published"``, LPIPS's AlexNet and FID's Inception, or the judge's own (``"classifier"``),
    under whose name the figures then stand; ``"auto"`` is the judge's own for the embedded pair
    alone. All compute in fp32.

    Raises ``UsageError`` for unknown names, a library that is missing and a judge that calls a
    class otherwise, and ``WeightsError`` for weights that are not here; for those of LPIPS and the
    features when they are first asked for.
    """
    if features not in get_args(Features):
        known = ", ".join(get_args(Features))
        raise UsageError(f"features is {features!r}; it may be one of {known}")
    name = judge or ("embedded" if generator == "embedded" else "inception_v3")
    loaded = load_classifier(name, weights=judge_weights, device=device, dtype="fp32")
    labels = loaded.spec.labels
    for class_id, called in (class_names or {}).items():
        theirs = labels[class_id] if 0 <= class_id < len(labels) else None
        if theirs != called:
            known = "not there" if theirs is None else repr(theirs)
            raise UsageError(
                f"class {class_id} is {called!r} in these embeddings and {known} for the judge "
                f"{name}: name a classifier of the same classes with --judge"
            )
    own = features == "classifier" or (features == "auto" and generator == "embedded")
    if own:
        return Networks(
            loaded, lambda: classifier_lpips(loaded), lambda: ClassifierFeatures(loaded)
        )
    return Networks(
        loaded, lambda: load_lpips("alex", device=device), lambda: load_inception(device=device)
    )
