"""Which trial of a class is the best: the paper's authors chose by eye, this by two numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from amfast.metrics.embedding import EmbeddingScore

Diversity = Literal["distance", "ms_ssim"]
#: The target probability from which a trial counts as recognised.
FLOOR = 0.8
_Key = TypeVar("_Key")


def rank(
    scores: Mapping[_Key, EmbeddingScore], floor: float = FLOOR, by: Diversity = "distance"
) -> list[_Key]:
    """The best first: those recognised with at least ``floor``, the most diverse of them in front.

    Then the rest, the most probable of them in front. ``by`` is the measure of diversity: the
    pairwise distance, or MS-SSIM, of which less is more. Equal ones keep their order.
    """

    def merit(key: _Key) -> tuple[bool, float]:
        score = scores[key]
        if score.target_prob < floor:
            return False, score.target_prob
        return True, score.distance if by == "distance" else -score.ms_ssim

    return sorted(scores, key=merit, reverse=True)
