"""Inception Score: how sure a network is of each image, and how many classes it sees in all."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics.features import FeatureNetwork, check_features, measure_name
from amfast.metrics.measure import RESAMPLES, Measure, bootstrap_means, percentile_interval

SPLITS = 10

#: torch-fidelity's own, so that its numbers and ours are the same.
SHUFFLE_SEED = 2020


class InceptionScore(NamedTuple):
    """Over splits; the deviation's divisor is the number of splits."""

    mean: float
    std: float


def inception_score(
    logits: Tensor, *, splits: int = SPLITS, shuffle_seed: int | None = SHUFFLE_SEED
) -> InceptionScore:
    """``exp(mean KL(p(y|x) || p(y)))`` in each split: from 1 to the number of classes.

    Higher is better (Salimans et al., "Improved techniques for training GANs", NeurIPS 2016,
    section 4). As torch-fidelity has it: in float64, splits of images that follow each other after
    a shuffle, which matters where images come class by class. The shuffle is numpy's
    ``RandomState(shuffle_seed).permutation``, its seed torch-fidelity's; None keeps the order.

    Args:
        logits: ``[N, C]``, floating and finite; of the Inception without its bias.
        splits: how many, from 1 to N.
        shuffle_seed: from 0 to 2**32 - 1.

    Raises:
        UsageError: another shape or dtype, NaN or infinity, more splits than images, or a seed
            that numpy's generator does not take.
    """
    scores = torch.stack([_score(part) for part in _splits(logits, splits, shuffle_seed)])
    return InceptionScore(float(scores.mean()), float(scores.std(correction=0)))


def measure_inception_score(
    logits: Tensor,
    network: FeatureNetwork,
    *,
    seed: int = 0,
    splits: int = SPLITS,
    shuffle_seed: int | None = SHUFFLE_SEED,
    resamples: int = RESAMPLES,
) -> Measure:
    """The same with its interval: images are drawn anew within their splits.

    Drawing anew leaves out some images, and with fewer the score is less, so the replicates are
    shifted to the value. Arguments and errors are those of ``inception_score``. Fewer images in a
    split than classes get a note.
    """
    score = inception_score(logits, splits=splits, shuffle_seed=shuffle_seed)
    replicates = torch.zeros(resamples, dtype=torch.float64)
    for number, part in enumerate(_splits(logits, splits, shuffle_seed)):
        log_p = part.log_softmax(dim=1)
        p = log_p.exp()
        certainty = (p * log_p).sum(dim=1, keepdim=True)
        means = bootstrap_means(
            torch.cat([certainty, p], dim=1), seed=seed + (number << 32), resamples=resamples
        )
        replicates += (means[:, 0] + torch.special.entr(means[:, 1:]).sum(dim=1)).exp() / splits
    low, high = percentile_interval(replicates - replicates.mean() + score.mean)
    images, classes = logits.shape
    return Measure(
        measure_name("inception_score", network.name),
        score.mean,
        images,
        "images",
        seed,
        network.fingerprint,
        max(1.0, low),
        high,
        std=score.std,
        note=_note(images // splits, classes),
    )


def _note(images: int, classes: int) -> str:
    """A sentence where a split has fewer images than there are classes; empty otherwise."""
    if images >= classes:
        return ""
    return (
        f"a split of {images} images cannot show {classes} classes: no score above {images} is "
        "possible, and scores grow with the number of images. Compare them over equally many only."
    )


def _splits(logits: Tensor, splits: int, shuffle_seed: int | None) -> list[Tensor]:
    """The parts of a set, shuffled, in float64."""
    check_features("logits", logits)
    images = len(logits)
    if not 1 <= splits <= images:
        raise UsageError(
            f"{images} images cannot be cut into {splits} splits; each takes one image at least, "
            "and hundreds for a score that means something."
        )
    if shuffle_seed is not None:
        if not 0 <= shuffle_seed < 2**32:
            raise UsageError(f"shuffle_seed is {shuffle_seed}; it must be from 0 to 2**32 - 1.")
        # torch-fidelity's rule is what makes the numbers comparable, legacy generator or not.
        order = np.random.RandomState(shuffle_seed).permutation(images)
        logits = logits[torch.from_numpy(order).to(logits.device)]
    edges = [number * images // splits for number in range(splits + 1)]
    return [logits[low:high].double() for low, high in pairwise(edges)]


def _score(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(dim=1)
    # In logarithms, so that a class that nobody sees is no 0 * infinity.
    log_mean = log_p.logsumexp(dim=0) - math.log(len(logits))
    divergence = (log_p.exp() * (log_p - log_mean)).sum(dim=1)
    return divergence.mean().exp()
