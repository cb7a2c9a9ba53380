"""``amfast diagnose``: which classes of a generator need repair (the paper's authors looked)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from amfast.api import rows_by_name
from amfast.errors import UsageError
from amfast.evaluation.checks import check_seed, check_whole
from amfast.evaluation.networks import Networks
from amfast.evaluation.pictures import sample_bytes, to_float
from amfast.generators.protocol import Generator, device_of
from amfast.metrics.embedding import evaluation_latents
from amfast.optimize.objective import TargetLogProb

#: Two groups of classes are two when the cut between them explains so much of the variance; of a
#: normal distribution it explains 2 / pi = 0.64, of an even one 0.75.
_TWO_GROUPS = 0.8
#: Otherwise what lies so many deviations below the median is poor.
_DEVIATIONS = 2.0
#: In standard deviations above the median.
_NORMAL_QUARTILE = 0.6745
#: And whatever the distribution, nothing that reaches this share of the median.
_ENOUGH = 0.85


@dataclass(frozen=True)
class ClassDiagnosis:
    """``diversity`` is the mean LPIPS of all pairs of images, ``target_prob`` what the judge gives
    the class on average.

    ``lacks`` names what is below its threshold. ``health`` is the smaller of the two values, each
    over its threshold: below 1 a class needs repair, and the lower the more. (Over a threshold of
    0, which nothing is below, it is 1.)
    """

    class_id: int
    name: str
    diversity: float
    target_prob: float
    lacks: tuple[str, ...]
    health: float


@dataclass(frozen=True)
class Diagnosis:
    """``classes`` are sorted by their health, the worst first."""

    generator: str
    generator_fingerprint: str
    diversity_measure: str
    judge: str
    images: int
    seed: int
    diversity_threshold: float
    target_prob_threshold: float
    classes: list[ClassDiagnosis]

    @property
    def poor(self) -> list[ClassDiagnosis]:
        """The classes that need repair."""
        return [found for found in self.classes if found.lacks]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_classes_file(self) -> str:
        """The classes that need repair, for ``amfast run --classes @FILE``."""
        lines = [f"# classes of {self.generator} that need repair, the worst first"]
        lines += [f"{c.class_id}  # {c.name}: lacks {' and '.join(c.lacks)}" for c in self.poor]
        # A name with the end of a line in it would make a class of what follows.
        plain = ("".join(c if c.isprintable() else " " for c in line) for line in lines)
        return "\n".join(plain) + "\n"


def threshold(values: Sequence[float]) -> float:
    """Below which a value is poor, learned from all of them, which are at least 0; more is better.

    Where a cut in two explains four fifths of the variance and the lower group is the smaller, the
    middle between the groups; otherwise two standard deviations below the median, the deviation
    taken from the better half, which poor classes do not reach. Never more than 85 % of the median,
    so that classes that are all alike are all well.
    """
    ordered = torch.tensor(sorted(values), dtype=torch.float64)
    median = float(ordered.median())
    cut = _between_groups(ordered)
    if cut is None:
        upper = float(ordered.quantile(0.75))
        cut = median - _DEVIATIONS * (upper - median) / _NORMAL_QUARTILE
    return max(0.0, min(cut, _ENOUGH * median))


def _between_groups(ordered: Tensor) -> float | None:
    """The middle between a smaller lower and a larger upper group; None where there are no two."""
    variance = float(ordered.var(correction=0))
    best, cut = _TWO_GROUPS * variance, None
    for size in range(1, (len(ordered) + 1) // 2):
        low, high = ordered[:size], ordered[size:]
        shares = len(low) * len(high) / len(ordered) ** 2
        between = shares * float(high.mean() - low.mean()) ** 2
        if between > best:
            best, cut = between, float(low[-1] + high[0]) / 2
    return cut


@torch.no_grad()
def diagnose(
    generator: Generator,
    networks: Networks,
    *,
    images: int = 200,
    seed: int = 0,
    on_class: Callable[[str], None] = lambda name: None,
) -> Diagnosis:
    """Sample every class of a generator, and find those that lack diversity or recognisability.

    All classes are shown on the same ``images`` latents, so that they differ by their embeddings
    alone. Diversity is the mean LPIPS over all pairs of images, recognisability the judge's mean
    probability of the class; both thresholds are learned from the classes (``threshold``). Class
    ids are the judge's, by name.

    Classes that the judge does not know are passed over. Raises ``UsageError`` for fewer than 2 or
    more than 2000 images, for a seed out of bounds, and where it knows none. A class whose images
    are not finite has no diversity and no probability.
    """
    check_seed(seed)
    check_whole("images", images, 2, 2000)
    judge, lpips = networks.judge, networks.lpips
    rows = rows_by_name(generator.spec.labels, dict(enumerate(judge.spec.labels)))
    if not rows:
        raise UsageError(
            f"the judge {judge.spec.name} knows no class of {generator.spec.name}: name a "
            "classifier of its classes with --judge"
        )
    device = device_of(generator)
    latents = evaluation_latents(images, generator.spec.latent_dim, seed, device)
    objective = TargetLogProb(judge)
    diversity: dict[int, float] = {}
    probability: dict[int, float] = {}
    for class_id, row in rows.items():
        sampled = sample_bytes(generator, generator.class_embeddings[row], latents)
        if sampled is None:
            diversity[class_id] = probability[class_id] = 0.0
        else:
            pictures = to_float(sampled, judge.device)
            distances = lpips.all_pairs(lpips.features(pictures))
            diversity[class_id] = float(distances.sum()) / (images * (images - 1))
            log_probs = [
                objective(part, torch.full((len(part),), class_id, device=judge.device))
                for part in pictures.split(50)
            ]
            probability[class_id] = float(torch.cat(log_probs).exp().mean())
        on_class(judge.spec.labels[class_id])
    least = {
        "diversity": threshold(list(diversity.values())),
        "recognisability": threshold(list(probability.values())),
    }
    classes = []
    for class_id in rows:
        values = {"diversity": diversity[class_id], "recognisability": probability[class_id]}
        classes.append(
            ClassDiagnosis(
                class_id=class_id,
                name=judge.spec.labels[class_id],
                diversity=values["diversity"],
                target_prob=values["recognisability"],
                lacks=tuple(what for what, value in values.items() if value < least[what]),
                health=min(v / least[what] if least[what] else 1.0 for what, v in values.items()),
            )
        )
    return Diagnosis(
        generator=generator.spec.name,
        generator_fingerprint=generator.spec.fingerprint,
        diversity_measure=lpips.name,
        judge=judge.spec.name,
        images=images,
        seed=seed,
        diversity_threshold=least["diversity"],
        target_prob_threshold=least["recognisability"],
        classes=sorted(classes, key=lambda found: found.health),
    )
