"""Sets of images of a class side by side: as trained, optimised, a mixture of both, and real."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from amfast.classifiers import ModuleClassifier, to_classifier_input
from amfast.evaluation.networks import Networks
from amfast.evaluation.pictures import to_float
from amfast.metrics.accuracy import in_top
from amfast.metrics.diversity import random_pairs
from amfast.metrics.features import ClassifierFeatures, FeatureNetwork, measure_name
from amfast.metrics.frechet import RunningMoments, measure_fid
from amfast.metrics.inception_score import SPLITS, measure_inception_score
from amfast.metrics.jackknife import GroupedSums
from amfast.metrics.lpips import Lpips
from amfast.metrics.measure import Measure, measure_mean
from amfast.metrics.ms_ssim import pairwise_ms_ssim
from amfast.metrics.neighbours import NEAREST, measure_neighbours

SetName = Literal["original", "am", "mixed", "real"]
Metric = Literal["lpips", "ms_ssim", "accuracy", "inception_score", "fid", "neighbours"]
METRICS: tuple[Metric, ...] = get_args(Metric)
#: Those of one class; the others are of all classes together.
PER_CLASS: tuple[Metric, ...] = ("lpips", "ms_ssim", "accuracy")

#: Features are kept of so many images of a set: precision and its like take the distance of all.
_KEPT = 10_000
_IMAGES_PER_PASS = 50
_OF_FEATURES: frozenset[Metric] = frozenset({"inception_score", "fid", "neighbours"})

#: What is known of the images of one set: ``features`` and ``logits`` of the feature network and
#: ``judged``, the judge's logits, ``[N, ...]``; ``lpips`` and ``ms_ssim`` of each pair.
Seen = dict[str, Tensor]
_Value = TypeVar("_Value")


class Comparison:
    """Looks at the images of one class after another, and keeps what the measures need of them.

    ``pairs`` random pairs of a set's images are compared, the same for every class and set of as
    many images. ``reference`` is the set that FID and precision's like compare with. The images of
    the set ``alike`` are the same for every class, and their pairs and features count once among
    all: as many copies are no more images, and among its copies none has a neighbour. ``add_more``
    takes in others of that set. The networks that
    ``metrics`` need are loaded at once, as ``load_needed`` does.
    """

    def __init__(
        self,
        networks: Networks,
        metrics: Collection[Metric],
        *,
        classes: int,
        pairs: int,
        seed: int,
        reference: SetName,
        alike: SetName | None = None,
    ) -> None:
        self._metrics = frozenset(metrics)
        self._pairs, self._seed, self._reference = pairs, seed, reference
        self._judge, self._lpips, self._network = load_needed(networks, self._metrics)
        self._device = networks.device
        self._kept_per_class, self._alike = max(1, _KEPT // classes), alike
        self._per_image: dict[tuple[Metric, SetName], list[Tensor]] = defaultdict(list)
        self._features: dict[SetName, list[Tensor]] = defaultdict(list)
        self._logits: dict[SetName, list[Tensor]] = defaultdict(list)
        self._moments: dict[SetName, RunningMoments] = {}
        self._groups: dict[SetName, GroupedSums] = {}
        #: Sentences on what ``overall`` could not measure.
        self.notes: list[str] = []

    @property
    def key(self) -> str:
        """A hash of all that decides what ``look`` sees in a class's images, but for the images."""
        networks = [found.fingerprint for found in (self._lpips, self._network) if found]
        judge = None if self._judge is None else self._judge.spec.fingerprint
        decided = [sorted(self._metrics), networks, judge]
        text = json.dumps([*decided, self._pairs, self._seed])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def needs_features(self) -> bool:
        return self._network is not None

    @torch.no_grad()
    def look(self, images: Mapping[SetName, Tensor]) -> dict[SetName, Seen]:
        """What is known of images ``[N, 3, R, R]``, uint8, set by set, whatever class they are of.

        Where there are both, the mixed set is the first half of the original and the second of the
        optimised one (paper, section 3.3: BigGAN+AM).
        """
        pool, rows = torch.cat(list(images.values())), _rows(images)
        seen: dict[SetName, Seen] = {name: {} for name in rows}
        if self._metrics & {"lpips", "ms_ssim"}:
            self._look_at_pairs(pool, rows, seen)
        judged = None
        if self._network is not None:
            of_pool = self.look_at_features(pool)
            for name, indices in rows.items():
                seen[name] |= {what: found[indices] for what, found in of_pool.items()}
            network = self._network
            if isinstance(network, ClassifierFeatures) and network.classifier is self._judge:
                judged = of_pool["logits"]
        if self._judge is not None:
            if judged is None:
                judged = torch.cat([_judged(self._judge, part) for part in self._passes(pool)])
            for name, indices in rows.items():
                seen[name]["judged"] = judged[indices]
        return seen

    @torch.no_grad()
    def look_at_features(self, images: Tensor) -> Seen:
        """Of images ``[N, 3, R, R]``, uint8, N at least 1; nothing where no metric needs them."""
        if self._network is None:
            return {}
        parts = [self._network(part) for part in self._passes(images)]
        features, logits = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        return {"features": features, "logits": logits}

    def add(self, class_id: int, seen: Mapping[SetName, Seen]) -> dict[SetName, list[Measure]]:
        """Take in what ``look`` saw of one class; its own measures, set by set."""
        found: dict[SetName, list[Measure]] = {name: [] for name in _in_order(seen)}
        for metric in PER_CLASS:
            for name, of_set in _in_order(seen).items():
                if metric == "accuracy" and "judged" in of_set:
                    values = in_top(of_set["judged"], class_id, 1)
                elif metric in of_set:
                    values = of_set[metric]
                else:
                    continue
                found[name].append(self._mean(metric, [values]))
                # Of the same images the judge's hits are others for every class, pairs are not.
                if metric == "accuracy" or not self._again(name, self._per_image[metric, name]):
                    self._per_image[metric, name].append(values)
        for name, of_set in _in_order(seen).items():
            before = [*self._features.get(name, []), *self._logits.get(name, [])]
            if not self._again(name, before):
                self.add_more(name, of_set)
        return found

    def add_more(self, name: SetName, seen: Seen) -> None:
        """Take in the features of images of a set, whatever class they are of."""
        if self._network is None or "features" not in seen:
            return
        if self._metrics & {"fid", "neighbours"}:
            self._take_features(name, seen["features"], self._network)
        if "inception_score" in self._metrics:
            self._logits[name].append(seen["logits"])

    def _again(self, name: SetName, before: Sequence[Tensor]) -> bool:
        return name == self._alike and len(before) > 0

    def overall(self) -> dict[SetName, list[Measure]]:
        """The measures of all classes together."""
        found: dict[SetName, list[Measure]] = defaultdict(list)
        for (metric, name), values in self._per_image.items():
            found[name].append(self._mean(metric, values))
        if self._network is not None:
            for name, logits in self._logits.items():
                found[name].append(self._inception_score(torch.cat(logits), self._network))
            for name in filter(self._has_distance, self._moments):
                found[name] += self._beside_reference(name, self._network)
        return _in_order(found)

    def _has_distance(self, name: SetName) -> bool:
        """To the reference; half of the mixed set are the original's own images."""
        return name != self._reference and (name, self._reference) != ("mixed", "original")

    def _inception_score(self, logits: Tensor, network: FeatureNetwork) -> Measure:
        splits = min(SPLITS, len(logits))
        return measure_inception_score(logits, network, seed=self._seed, splits=splits)

    def _beside_reference(self, name: SetName, network: FeatureNetwork) -> list[Measure]:
        """FID and precision's like, with a note in place of what too few images do not give."""
        found: list[Measure] = []
        counts = {of: self._moments[of].images if of in self._moments else 0
                  for of in (name, self._reference)}  # fmt: skip
        for metric, least in (("fid", 2), ("neighbours", NEAREST + 1)):
            if metric not in self._metrics:
                continue
            if min(counts.values()) < least:
                held = " and ".join(f"{count} {of}" for of, count in counts.items())
                self.notes.append(f"no {metric} of {held} images: it takes {least} of each")
            elif metric == "fid":
                one, other = (self._moments[of].moments() for of in counts)
                groups = self._groups[name]
                found.append(measure_fid(one, other, groups=groups, seed=self._seed))
            else:
                one_set, other_set = (torch.cat(self._features[of]) for of in counts)
                found += measure_neighbours(one_set, other_set, network, seed=self._seed)
        return found

    def _look_at_pairs(
        self, pool: Tensor, rows: Mapping[SetName, Tensor], seen: Mapping[SetName, Seen]
    ) -> None:
        """Distances over random pairs; an image that several pairs and sets share is seen once."""
        pairs = {
            name: indices[random_pairs(len(indices), self._pairs, self._seed)]
            for name, indices in rows.items()
            if len(indices) > 1
        }
        if not pairs:
            return
        used, where = torch.cat(list(pairs.values())).unique(return_inverse=True)
        images = to_float(pool[used], self._device)
        of_set = dict(zip(pairs, where.split([len(p) for p in pairs.values()]), strict=True))
        features = None if self._lpips is None else self._lpips.features(images)
        for name, drawn in of_set.items():
            if self._lpips is not None and features is not None:
                seen[name]["lpips"] = self._lpips.distances(features, drawn).cpu()
            if "ms_ssim" in self._metrics:
                seen[name]["ms_ssim"] = pairwise_ms_ssim(images, drawn).cpu()

    def _take_features(self, name: SetName, features: Tensor, network: FeatureNetwork) -> None:
        if name not in self._moments:
            self._moments[name] = RunningMoments(network)
            self._groups[name] = GroupedSums()
        self._moments[name].update(features)
        if "fid" in self._metrics and self._has_distance(name):
            self._groups[name].update(features)
        kept = self._kept_per_class
        if name == self._alike:
            kept = _KEPT - sum(map(len, self._features[name]))
        self._features[name].append(features[:kept])

    def _passes(self, pool: Tensor) -> Iterator[Tensor]:
        return (to_float(part, self._device) for part in pool.split(_IMAGES_PER_PASS))

    def _mean(self, metric: Metric, values: Sequence[Tensor]) -> Measure:
        name, weights = "ms_ssim", None
        if metric == "lpips" and self._lpips is not None:
            name, weights = self._lpips.name, self._lpips.fingerprint
        elif metric == "accuracy" and self._judge is not None:
            judge = self._judge.spec
            name, weights = measure_name("top1", judge.name), judge.fingerprint
        unit: Literal["images", "pairs"] = "images" if metric == "accuracy" else "pairs"
        return measure_mean(
            name, torch.cat(list(values)), unit=unit, seed=self._seed, weights=weights
        )


def parse_metrics(text: str) -> list[str]:
    """``"all"``, or names with commas between them; names are looked at where they are used."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return list(METRICS) if "all" in names else names


def load_needed(
    networks: Networks, metrics: Collection[Metric]
) -> tuple[ModuleClassifier | None, Lpips | None, FeatureNetwork | None]:
    """Judge, LPIPS and feature network, those that the metrics need, with their loaders' errors."""
    return (
        networks.judge if "accuracy" in metrics else None,
        networks.lpips if "lpips" in metrics else None,
        networks.features if _OF_FEATURES & set(metrics) else None,
    )


def _judged(judge: ModuleClassifier, images: Tensor) -> Tensor:
    return judge(to_classifier_input(images, judge.spec, dtype=judge.dtype)).float().cpu()


def _in_order(sets: Mapping[SetName, _Value]) -> dict[SetName, _Value]:
    return {name: sets[name] for name in get_args(SetName) if name in sets}


def _rows(images: Mapping[SetName, Tensor]) -> dict[SetName, Tensor]:
    """Where each set's images are in the pool of all, in the order of ``SetName``."""
    rows: dict[SetName, Tensor] = {}
    first = 0
    for name, of_set in images.items():
        rows[name] = torch.arange(first, first + len(of_set))
        first += len(of_set)
    if "original" in rows and "am" in rows:
        half = len(rows["original"]) // 2
        rows["mixed"] = torch.cat([rows["original"][:half], rows["am"][half:]])
    return _in_order(rows)
