from __future__ import annotations

import pytest
import torch

from amfast.embedded import render
from amfast.embedded.shapes import UNSEEN_SHAPES
from amfast.errors import RunError, UsageError
from amfast.evaluation import pictures
from amfast.evaluation.pictures import (
    FolderImages,
    Renderer,
    class_latents,
    class_stream,
    sample_bytes,
    to_float,
)
from amfast.images.picture import to_bytes
from tests.evaluation.conftest import CPU, RING, STAR
from tests.images.pictures import encoded, picture


def folder(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            path = root / name / f"{i}.png"
            path.write_bytes(encoded(picture(seed=i + len(name)), "PNG"))
    return root


def opened(path, classes, **options):
    labels = ["disk", "square", "star"]
    return FolderImages(path, labels, classes, size=16, seed=0, device=CPU, **options)


def test_bytes_are_the_rounded_images(generator):
    latents = class_latents(generator, STAR, 3, 0)
    found = sample_bytes(generator, generator.class_embeddings[STAR], latents)
    with torch.no_grad():
        images = generator(generator.class_embeddings[STAR][None], latents[None])
    assert found.dtype == torch.uint8 and found.shape == (3, 3, 64, 64)
    assert (to_float(found, CPU) - images).abs().max() <= 0.5001 / 127.5


def test_the_size_of_a_pass_decides_nothing_but_rounding(generator, monkeypatch):
    latents = class_latents(generator, RING, 9, 0)
    found = []
    for together in (1, 4, 20):
        monkeypatch.setattr(pictures, "_PER_CPU_PASS", together)
        found.append(sample_bytes(generator, generator.class_embeddings[RING], latents).int())
    for other in found[1:]:
        apart = (other - found[0]).abs()
        assert apart.max() <= 1  # a value between two bytes may fall on either side
        assert (apart > 0).double().mean() < 1e-3


def test_images_that_are_not_finite_have_no_bytes(generator):
    latents = class_latents(generator, RING, 3, 0)
    latents[2] = torch.nan
    assert sample_bytes(generator, generator.class_embeddings[RING], latents) is None
    assert sample_bytes(generator, generator.class_embeddings[RING], latents[:2]) is not None


def test_bytes_become_floats_and_come_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_float(every, CPU)), every)


def test_streams_differ_by_seed_class_and_purpose_alone(generator):
    def draw(*key):
        return tuple(torch.randn(4, generator=class_stream(*key)).tolist())

    keys = [(0, 0, "latents"), (1, 0, "latents"), (0, 1, "latents"), (0, 0, "real")]
    assert len({draw(*key) for key in keys}) == 4
    assert draw(*keys[0]) == draw(*keys[0])
    a, b = (class_latents(generator, 2, 5, 7) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (5, 20)


def test_the_renderer_draws_by_name():
    real = Renderer({0: "house", 5: "disk"}, size=64, seed=3)
    latents = torch.randn(2, render.LATENT_DIM, generator=class_stream(3, 0, "real"))
    wanted = render.render([UNSEEN_SHAPES["house"]], torch.zeros(2, dtype=torch.int64), latents)
    assert torch.equal(real.of_class(0, 2), to_bytes(wanted))
    assert real.of_class(5, 130).shape == (130, 3, 64, 64)


def test_the_renderer_refuses_what_it_cannot_draw():
    with pytest.raises(UsageError, match="the renderer draws no 'tench'"):
        Renderer({0: "disk", 1: "tench"}, size=64, seed=0)
    with pytest.raises(UsageError, match="draws pictures of 64 pixels, and the generator's have 9"):
        Renderer({0: "disk"}, size=9, seed=0)


def test_a_folder_gives_a_class_its_own_images(tmp_path):
    root = folder(tmp_path / "real", star=3, square=2)
    both, alone = opened(root, {1: "square", 2: "star"}), opened(root, {2: "star"})
    assert both.name == str(root)
    assert both.of_class(1, 9).shape == (2, 3, 16, 16)
    star = both.of_class(2, 2)
    assert star.dtype == torch.uint8 and len(star) == 2
    assert torch.equal(star, alone.of_class(2, 2))


def test_a_flat_folder_is_the_same_for_every_class(tmp_path):
    root = folder(tmp_path, real=3) / "real"
    real = opened(root, {0: "disk", 2: "star"})
    assert torch.equal(real.of_class(0, 3), real.of_class(2, 3))


def test_a_class_without_images_is_found_before_the_work(tmp_path):
    root = folder(tmp_path / "real", star=1)
    with pytest.raises(UsageError, match="has no images of 0 disk, 1 square: add folders"):
        opened(root, {0: "disk", 1: "square", 2: "star"})
    with pytest.raises(UsageError, match="name no class: 'star'"):
        FolderImages(root, ["kite"], {0: "kite"}, size=8, seed=0, device=CPU)


def test_a_bad_file_among_many_is_skipped_and_listed_once(tmp_path):
    root = folder(tmp_path, real=100) / "real"
    (root / "bad.png").write_bytes(b"")
    real = opened(root, {0: "disk", 1: "square"})
    assert [len(real.of_class(class_id, 200)) for class_id in (0, 1)] == [100, 100]
    assert [skipped.path.name for skipped in real.skipped] == ["bad.png"]


def test_too_many_bad_files_end_it(tmp_path):
    root = folder(tmp_path, real=3) / "real"
    (root / "bad.png").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be used"):
        opened(root, {0: "disk"}).of_class(0, 10)


def test_a_class_without_a_sound_image_ends_it_with_a_sentence(tmp_path):
    root = folder(tmp_path / "real", star=200)
    (root / "disk").mkdir()
    (root / "disk" / "bad.png").write_bytes(b"")
    real = opened(root, {0: "disk", 2: "star"})
    with pytest.raises(RunError, match="none of the 1 images of a class .*bad.png: empty"):
        real.of_class(0, 200)


def test_what_is_kept_excuses_no_bad_file(tmp_path):
    """One of 199 files of two classes may be bad, and none of the 99 of one of them alone."""
    root = folder(tmp_path / "real", star=100, disk=98)
    (root / "disk" / "bad.png").write_bytes(b"")

    def look(images):
        return {"count": torch.tensor(len(images))}

    both = opened(root, {0: "disk", 2: "star"})
    assert int(both.remembered(0, 100, "k", look)["count"]) == 98
    with pytest.raises(RunError, match="At most 0 may be skipped"):
        opened(root, {0: "disk"}).remembered(0, 100, "k", look)


def test_files_that_were_skipped_are_listed_where_they_lie_now(tmp_path):
    root = folder(tmp_path / "real", star=100)
    (root / "star" / "bad.png").write_bytes(b"")
    for place in (root, tmp_path / "moved"):
        if place != root:
            root.rename(place)
        real = opened(place, {2: "star"})
        real.remembered(2, 101, "k", lambda images: {"count": torch.tensor(len(images))})
        assert [skipped.path for skipped in real.skipped] == [place / "star" / "bad.png"]


def test_a_note_is_passed_on_once(tmp_path, monkeypatch):
    class NotedLoader(pictures.ImageLoader):
        def __init__(self, *arguments, on_note, **options):
            super().__init__(*arguments, backend="pillow", **options)
            on_note("Pillow serves")

    monkeypatch.setattr(pictures, "ImageLoader", NotedLoader)
    notes: list[str] = []
    real = opened(folder(tmp_path, real=1) / "real", {0: "disk"}, on_note=notes.append)
    for class_id in (0, 1):
        real.of_class(class_id, 1)
    assert notes == ["Pillow serves"]
    monkeypatch.setenv("AMFAST_HOME", "/dev/null")  # where no folder can be
    for class_id in (0, 1):
        real.remembered(class_id, 1, "k", lambda images: {"images": images})
    assert len(notes) == 2
    assert notes[1].startswith("the statistics of a real set are not kept in /dev/null/statistics:")


def test_a_part_of_a_flat_folder_may_hold_no_sound_image(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_SKIPPED", 1.0)
    root = folder(tmp_path, real=2) / "real"
    (root / "bad.png").write_bytes(b"")
    real = opened(root, {0: "disk", 2: "star"})
    look = [real.further(part, 1, "k", lambda images: {"images": images}) for part in range(4)]
    assert sorted(len(found) for found in look) == [0, 0, 1, 1] and look[3] == {}
    assert [skipped.path.name for skipped in real.skipped] == ["bad.png"]


def test_a_set_that_knows_no_more_has_none():
    assert Renderer({0: "disk"}, size=64, seed=0).further(1, 5, "k", lambda images: {}) == {}
