"""How many pictures a report can hold, and how large: a page stays under ten megabytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Bytes of all pictures together; base64 makes a third more of it.
BUDGET = 6_000_000
#: Beyond so many images each gets too few bytes to show anything, and sampling takes minutes.
MOST_IMAGES = 10_000

#: Images of an embedding that are shown side by side.
THUMBNAILS, FEW_THUMBNAILS = 8, 4
#: Between latents: so many of those thumbnails' latents in turn, with so many steps to the next.
KEYS, STEPS = 4, 4
LATENT_FRAMES = (KEYS - 1) * STEPS + 1
#: Between embeddings: frames, each of several images.
EMBEDDING_FRAMES, EMBEDDING_IMAGES = 7, 3

_SIDES = (256, 192, 128, 96, 64, 48, 32)
#: What WebP takes of a picture that is pleasant to look at.
_BYTES_PER_PIXEL = 0.12

Which = Literal["all", "best", "none"]


@dataclass(frozen=True)
class PicturePlan:
    """Which trials have thumbnails and which strips, the best of each class or all.

    Originals have thumbnails where any trial has, and a strip where any trial has one. An image is
    ``side`` pixels wide and, within its strip, takes ``bytes_per_image`` at most.
    """

    thumbnails: Which
    strips: Which
    count: int
    side: int
    bytes_per_image: int

    @property
    def left_out(self) -> str:
        """A sentence for the page; empty where nothing is."""
        if self.thumbnails == "none":
            return (
                "With this many classes the page has no pictures; amfast sample draws them for the "
                "classes that you name."
            )
        if self.thumbnails == "best":
            return (
                "To keep the page small, only the best trial of each class has pictures, and none "
                "has sliders; amfast sample draws the others."
            )
        if self.strips == "none":
            return (
                "To keep the page small, trials have pictures and no sliders; reports of fewer "
                "trials have both."
            )
        if self.strips == "best":
            return "To keep the page small, only the best trial of each class has sliders."
        return ""


def plan_pictures(trials: int, classes: int, resolution: int) -> PicturePlan:
    """As many pictures of a run's ``trials`` and ``classes`` as fit, as large as they fit.

    The more of them there are the fewer each trial gets: everything, sliders for the best trial of
    each class, none, pictures of the best trials alone, none at all.
    """
    strip = LATENT_FRAMES + EMBEDDING_FRAMES * EMBEDDING_IMAGES
    of_originals = classes * (THUMBNAILS + LATENT_FRAMES)
    levels: tuple[tuple[Which, Which, int, int], ...] = (
        ("all", "all", THUMBNAILS, trials * (THUMBNAILS + strip) + of_originals),
        ("all", "best", THUMBNAILS, trials * THUMBNAILS + classes * strip + of_originals),
        ("all", "none", THUMBNAILS, (trials + classes) * THUMBNAILS),
        ("best", "none", FEW_THUMBNAILS, 2 * classes * FEW_THUMBNAILS),
        ("none", "none", 0, 0),
    )
    thumbnails, strips, count, images = next(level for level in levels if level[-1] <= MOST_IMAGES)
    each = BUDGET // max(1, images)
    side = next((s for s in _SIDES if s * s * _BYTES_PER_PIXEL <= each), _SIDES[-1])
    return PicturePlan(thumbnails, strips, count, min(side, resolution), each)
