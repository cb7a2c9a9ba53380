"""Where the paper's text and its authors' released code part ways: a run follows one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from amfast.classifiers.protocol import ClassifierSpec

ProfileName = Literal["paper", "biggan-am"]


@dataclass(frozen=True)
class Profile:
    """One reading of the method.

    ``trials``, ``latents`` and ``learning_rate`` are defaults that a run may change; a rate of None
    is the method's own. ``weight_decay`` is coupled: added to the gradient that Adam sees. With
    ``clamp_in_graph`` the generator gets the embedding clamped to its range and the embedding
    itself is not projected, so that a saturated number feels only the decay. With
    ``shared_latents`` every trial sees the same latents. With ``raw_images`` the classifier gets
    the images as they are, in [-1, 1], by nearest neighbour at 224 pixels, whatever its own input.
    """

    trials: int = 5
    latents: int = 20
    learning_rate: float | None = None
    weight_decay: float = 0.0
    clamp_in_graph: bool = False
    shared_latents: bool = False
    raw_images: bool = False
    #: Of the embeddings that a ``top-K`` start picks, the best comes last.
    top_ascending: bool = False

    def classifier_input(self, spec: ClassifierSpec) -> ClassifierSpec:
        """How images are brought to the classifier of ``spec`` during the optimisation."""
        if not self.raw_images:
            return spec
        half = (0.5, 0.5, 0.5)  # undoes the step from [-1, 1] to [0, 1], exactly
        return replace(spec, size=224, mean=half, std=half, resize="nearest")


PROFILES: dict[ProfileName, Profile] = {
    "paper": Profile(),  # section 2
    "biggan-am": Profile(
        trials=3,
        latents=10,
        learning_rate=0.1,
        weight_decay=0.9,
        clamp_in_graph=True,
        shared_latents=True,
        raw_images=True,
        top_ascending=True,
    ),
}
