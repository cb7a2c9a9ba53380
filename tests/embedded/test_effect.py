"""The embedded pair shows the paper's effect, measured on the weights that ship.

The trials are full ones (AM-L, 200 steps, 20 latents), so this module takes some minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import amfast
from amfast.classifiers import ModuleClassifier, to_classifier_input
from amfast.embedded.train import COLLAPSED, NAMES, ONE_COLOUR
from amfast.generators import BigGANGenerator
from amfast.metrics.diversity import feature_distance, pooled_distance, random_pairs
from amfast.metrics.embedding import sample_images

DIVERSE = "disk"
IMAGES, PAIRS = 100, 200
EMBEDDED = Path(amfast.__file__).parent / "embedded"


@dataclass(frozen=True)
class Measured:
    distance: float  # RMS of images pooled to 8x8
    perceptual: float  # over all layers of the embedded classifier
    target_prob: float


@dataclass(frozen=True)
class Pair:
    generator: BigGANGenerator
    classifier: ModuleClassifier

    @torch.no_grad()
    def measure(self, embedding: Tensor, name: str) -> Measured:
        """On latents that neither the optimisation nor its scoring has seen."""
        stream = torch.Generator().manual_seed(20201130)
        latents = torch.randn(IMAGES, self.generator.spec.latent_dim, generator=stream)
        images = sample_images(self.generator, embedding, latents)
        pairs = random_pairs(IMAGES, PAIRS, seed=1)
        inputs = to_classifier_input(images, self.classifier.spec)
        prob = self.classifier(inputs).softmax(dim=1)[:, NAMES.index(name)]
        perceptual = feature_distance(self.classifier.features(inputs), pairs)
        distance = pooled_distance(images, pairs)
        return Measured(float(distance.mean()), float(perceptual.mean()), float(prob.mean()))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(
        amfast.load_generator("embedded", device="cpu"),
        amfast.load_classifier("embedded", device="cpu"),
    )


@pytest.fixture(scope="module")
def found(pair: Pair) -> dict[str, tuple[Measured, Measured]]:
    """Class name -> its own embedding and its best of 5 AM-L trials, measured alike."""
    names = [*ONE_COLOUR, COLLAPSED, DIVERSE]
    result = amfast.optimize(pair.generator, pair.classifier, classes=names)
    assert not result.failed
    best = {NAMES[i]: trial.embedding for i, trial in result.best().items()}
    table = pair.generator.class_embeddings
    return {n: (pair.measure(table[NAMES.index(n)], n), pair.measure(best[n], n)) for n in names}


@pytest.mark.parametrize("name", list(ONE_COLOUR))
def test_a_low_diversity_class_becomes_diverse(
    found: dict[str, tuple[Measured, Measured]], name: str
) -> None:
    original, best = found[name]
    assert best.distance >= 2.0 * original.distance
    assert best.perceptual >= 1.4 * original.perceptual
    assert best.target_prob >= 0.8


def test_the_collapsed_class_is_recognised_again(
    found: dict[str, tuple[Measured, Measured]],
) -> None:
    original, best = found[COLLAPSED]
    assert original.target_prob < 0.2
    assert best.target_prob >= 0.8


def test_a_diverse_class_stays_diverse(found: dict[str, tuple[Measured, Measured]]) -> None:
    original, best = found[DIVERSE]
    assert best.distance == pytest.approx(original.distance, rel=0.15)
    assert best.target_prob >= 0.8


def test_what_ships_is_small_and_complete(pair: Pair) -> None:
    files = sorted(EMBEDDED.rglob("*.safetensors"))
    kinds = ("", "-again", "-robust", "-undisturbed", "-unseen")
    assert {f.relative_to(EMBEDDED).as_posix() for f in files} == {
        *(f"classifier{kind}.safetensors" for kind in kinds),
        *(f"snapshots/generator-{steps}.safetensors" for steps in (1000, 2000, 3000)),
        "discriminator.safetensors",
        "generator.safetensors",
    }
    assert sum(f.stat().st_size for f in files) < 12e6
    assert (EMBEDDED / "MODEL_CARD.md").exists()
    assert len(pair.generator.spec.labels) >= 12
    assert len(ONE_COLOUR) >= 3
