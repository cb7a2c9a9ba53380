"""The networks that an evaluation looks through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import torch

from amfast.classifiers import ModuleClassifier, check_name, load_classifier
from amfast.classifiers.published import PUBLISHED, published_labels
from amfast.errors import UsageError
from amfast.metrics.features import ClassifierFeatures, FeatureNetwork
from amfast.metrics.inception import load_inception
from amfast.metrics.lpips import Lpips, classifier_lpips, load_lpips

Features = Literal["auto", "published", "classifier"]


class Networks:
    """``judge`` says what an image shows, ``features`` give Inception Score, FID and their like.

    Each is loaded, onto ``device``, when it is first asked for: weights that no chosen metric needs
    may be missing. ``labels`` are the judge's, which those of the paper have without their weights.
    """

    def __init__(
        self,
        judge: Callable[[], ModuleClassifier],
        lpips: Callable[[], Lpips],
        features: Callable[[], FeatureNetwork],
        *,
        labels: Callable[[], Sequence[str]],
        device: torch.device,
    ) -> None:
        self.device = device
        self._load_judge, self._find_labels = judge, labels
        self._load_lpips, self._load_features = lpips, features

    @cached_property
    def judge(self) -> ModuleClassifier:
        return self._load_judge()

    @cached_property
    def labels(self) -> Sequence[str]:
        return self._find_labels()

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

    Raises ``UsageError`` for unknown names. What is asked of them raises it too, for a library that
    is missing and a judge that calls a class otherwise, and ``WeightsError`` for weights that are
    not here.
    """
    if features not in get_args(Features):
        known = ", ".join(get_args(Features))
        raise UsageError(f"features is {features!r}; it may be one of {known}")
    name = judge or ("embedded" if generator == "embedded" else "inception_v3")
    check_name(name)

    def load_judge() -> ModuleClassifier:
        loaded = load_classifier(name, weights=judge_weights, device=device, dtype="fp32")
        _check_names(name, loaded.spec.labels, class_names or {})
        return loaded

    def labels() -> Sequence[str]:
        if judge_weights is not None or name not in PUBLISHED:
            return networks.judge.spec.labels
        known = published_labels(name)
        _check_names(name, known, class_names or {})
        return known

    own = features == "classifier" or (features == "auto" and generator == "embedded")
    networks = Networks(
        load_judge,
        lambda: classifier_lpips(networks.judge) if own else load_lpips("alex", device=device),
        lambda: ClassifierFeatures(networks.judge) if own else load_inception(device=device),
        labels=labels,
        device=device,
    )
    return networks


def _check_names(judge: str, labels: Sequence[str], class_names: Mapping[int, str]) -> None:
    for class_id, called in class_names.items():
        theirs = labels[class_id] if 0 <= class_id < len(labels) else None
        if theirs != called:
            known = "not there" if theirs is None else repr(theirs)
            raise UsageError(
                f"class {class_id} is {called!r} in these embeddings and {known} for the judge "
                f"{judge}: name a classifier of the same classes with --judge"
            )
