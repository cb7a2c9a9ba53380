"""The pictures of a report, and what they may weigh."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

import pytest
import torch
from PIL import Image, features

from amfast.generators import Generator
from amfast.images.picture import to_bytes
from amfast.metrics.embedding import evaluation_latents, sample_images
from amfast.report.data import read_run
from amfast.report.pictures import draw_pictures, encode, latent_path
from amfast.report.plan import BUDGET, EMBEDDING_FRAMES, LATENT_FRAMES, MOST_IMAGES, plan_pictures
from amfast.report.write import render_report
from tests.report.conftest import Noise, imagined


def picture(address: str | None) -> torch.Tensor:
    """``[H, W, 3]``."""
    assert address is not None
    data = base64.b64decode(address.partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        raw = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        return raw.view(image.height, image.width, 3).float()


def like(one: torch.Tensor, other: torch.Tensor) -> bool:
    """As alike as a lossy file of it."""
    return one.shape == other.shape and float((one - other).abs().mean()) < 6


def test_strips_show_the_embeddings_that_they_say(finished: Path, generator: Generator) -> None:
    run = read_run(finished)
    plan = plan_pictures(4, 2, 64)
    assert (plan.thumbnails, plan.strips, plan.side, plan.count) == ("all", "all", 64, 8)
    found = draw_pictures(generator, run, plan)
    assert found.not_finite == [] and set(found.trials) == {0, 1, 2, 3}
    trial, own = run.trials[2], generator.class_embeddings[11]
    assert trial.embedding is not None
    latents = evaluation_latents(8, 20, 0, torch.device("cpu"))

    def shown(embedding: torch.Tensor, at: torch.Tensor) -> list[torch.Tensor]:
        images = to_bytes(sample_images(generator, embedding, at))
        return [image.permute(1, 2, 0).float() for image in images]

    strips, original = found.trials[2], found.originals[1]
    images, before = shown(trial.embedding, latents), shown(own, latents)
    for address, expected in ((strips.thumbnails, images), (original.thumbnails, before)):
        rows = [torch.cat(expected[:4], dim=1), torch.cat(expected[4:], dim=1)]
        assert like(picture(address), torch.cat(rows))
    path = latent_path(latents[:4])
    for address, embedding in ((strips.latents, trial.embedding), (original.latents, own)):
        assert like(picture(address), torch.cat(shown(embedding, path), dim=1))
    frames = picture(strips.embeddings).split(3 * 64, dim=1)
    assert len(frames) == EMBEDDING_FRAMES
    assert like(frames[0], torch.cat(before[:3], dim=1))
    assert like(frames[-1], torch.cat(images[:3], dim=1))
    middle = shown((own + trial.embedding) / 2, latents[:3])
    assert like(frames[EMBEDDING_FRAMES // 2], torch.cat(middle, dim=1))
    assert not like(frames[0], frames[-1])


def test_a_path_between_latents_keeps_their_length() -> None:
    keys = torch.randn(4, 4096, generator=torch.Generator().manual_seed(0))
    path = latent_path(keys)
    assert len(path) == LATENT_FRAMES
    assert torch.equal(path[::4], keys)
    torch.testing.assert_close(path.norm(dim=1), torch.full((13,), 64.0), atol=2.0, rtol=0)


@pytest.mark.parametrize("most_bytes", [600, 5000, 100_000])
@pytest.mark.parametrize("width", [32, 5376])
def test_a_file_is_never_larger_than_it_may_be(width: int, most_bytes: int) -> None:
    """Whatever it shows: noise is the worst that there is."""
    noise = torch.randint(0, 256, (3, 256, width), dtype=torch.uint8)
    found = encode(noise, most_bytes)
    assert len(base64.b64decode(found.partition(",")[2])) <= most_bytes
    shown = picture(found)
    assert shown.shape[0] * width == pytest.approx(shown.shape[1] * 256, rel=0.2)


def test_sixty_trials_stay_under_ten_megabytes(finished: Path) -> None:
    """At any resolution and whatever they show: each image has its share of the budget."""
    for resolution in (32, 64, 128, 256, 512):
        plan = plan_pictures(60, 12, resolution)
        assert plan.thumbnails == plan.strips == "all" and plan.side == min(resolution, 128)
        images = 60 * (8 + LATENT_FRAMES + EMBEDDING_FRAMES * 3) + 12 * (8 + LATENT_FRAMES)
        assert images * plan.bytes_per_image <= BUDGET
    plan = plan_pictures(60, 12, 64)
    page = render_report(imagined(finished, 12, 5), Noise(64), plan)
    assert len(page.encode()) < 10_000_000
    assert page.count("<img") == 72 and page.count("data:image/") == 12 * 2 + 60 * 3


def test_the_more_trials_the_fewer_pictures() -> None:
    sizes = [(60, 12), (200, 40), (500, 100), (1000, 200), (5000, 1000), (9000, 9000)]
    plans = [plan_pictures(trials, classes, 256) for trials, classes in sizes]
    assert [(p.thumbnails, p.strips) for p in plans] == [
        ("all", "all"), ("all", "all"), ("all", "best"), ("all", "none"), ("best", "none"),
        ("none", "none"),
    ]  # fmt: skip
    assert [bool(p.left_out) for p in plans] == [False, False, True, True, True, True]
    assert plan_pictures(1, 1, 512).side == 256
    sides = [p.side for p in plans[:-1]]
    assert sides == sorted(sides, reverse=True) and sides[-1] >= 48
    for plan in plans[:-1]:
        assert plan.bytes_per_image * MOST_IMAGES >= BUDGET


def test_images_that_are_not_finite_are_left_out_and_said(finished: Path) -> None:
    class Broken(Noise):
        def __call__(self, embeddings: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            images = super().__call__(embeddings, latents)
            return images * math.nan if (embeddings == 0.0).all() else images

    run, noise = imagined(finished, 2, 2), Broken(32)
    plan = plan_pictures(4, 2, 32)
    assert draw_pictures(noise, run, plan).not_finite == [0, 2]  # their embeddings are zero
    assert "2 trials give images that are not finite" in render_report(run, noise, plan)


def test_without_webp_pictures_are_jpeg(
    finished: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "check", lambda name: False)
    found = draw_pictures(generator, read_run(finished), plan_pictures(4, 2, 64))
    address = found.trials[0].thumbnails
    assert address is not None and address.startswith("data:image/jpeg;base64,")
    assert picture(address).shape == (128, 256, 3)
