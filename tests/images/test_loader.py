"""Both backends on the same files, good and bad: same numbers, same files skipped, same errors."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from amfast.errors import RunError, UsageError
from amfast.imagenet import imagenet_labels
from amfast.images import dali_loader, vetting
from amfast.images.folder import ImageFolder
from amfast.images.loader import ImageLoader, _dali_is_installed
from tests.images.pictures import bad_files, encoded, good_files, picture

BACKENDS = ("pillow", "dali")


def lay(root: Path, files: dict[str, bytes]) -> ImageFolder:
    for name, data in files.items():
        (root / name).write_bytes(data)
    return ImageFolder.open(root)


def load(folder: ImageFolder, backend: str, size: int = 32, **options: object) -> dict[str, Tensor]:
    loader = ImageLoader(folder, size, backend=backend, device="cpu", **options)  # type: ignore[arg-type]
    return {
        file.path.name: image
        for batch in loader
        for file, image in zip(batch.files, batch.images, strict=True)
    }


def skipped(folder: ImageFolder, backend: str, **options: object) -> dict[str, str]:
    loader = ImageLoader(folder, 8, backend=backend, device="cpu", **options)  # type: ignore[arg-type]
    assert sum(len(batch.files) for batch in loader) + len(loader.skipped) == len(folder)
    return {found.path.name: found.reason for found in loader.skipped}


@pytest.fixture
def any_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file may be bad."""
    monkeypatch.setattr("amfast.images.loader.MOST_SKIPPED", 1.0)


@pytest.mark.parametrize("size", [32, 75])
def test_same_numbers(tmp_path, size):
    files = good_files()
    folder = lay(tmp_path, files)
    pillow, dali = (load(folder, backend, size) for backend in BACKENDS)
    assert pillow.keys() == dali.keys() == files.keys()
    for name, image in pillow.items():
        assert image.shape == (3, size, size) and image.dtype == torch.float32
        assert (image - dali[name]).abs().max() <= 2 / 127.5 + 1e-6, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_square_in_the_middle_between_minus_one_and_one(tmp_path, backend):
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = (255, 128, 0)
    folder = lay(tmp_path, {"a.png": encoded(Image.fromarray(pixels), "PNG")})
    image = load(folder, backend)["a.png"]
    assert image[:, 0, 0].tolist() == pytest.approx([1, 128 / 127.5 - 1, -1], abs=1e-6)
    assert (image == image[:, :1, :1]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_resized_as_pillow_does(tmp_path, backend):
    one = picture(300, 200, seed=3)
    image = load(lay(tmp_path, {"a.png": encoded(one, "PNG")}), backend, 24)["a.png"]
    wanted = one.crop((50, 0, 250, 200)).resize((24, 24), Image.Resampling.BILINEAR)
    found = ((image + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(found - np.asarray(wanted)).max() <= (0 if backend == "pillow" else 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_how_modes_are_brought_to_rgb(tmp_path, backend):
    """What is transparent lies on white, also in a palette; orientation tags are passed over."""
    red = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 51))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 0, 0, 255])
    exif = Image.Exif()
    exif[0x0112] = 3
    halves = Image.fromarray(
        np.repeat([[[0] * 3], [[255] * 3]], 8, axis=0).repeat(16, axis=1).astype(np.uint8)
    )
    files = {
        "gone.png": encoded(red, "PNG"),
        "half.webp": encoded(half, "WEBP", lossless=True),
        "palette.png": encoded(palette, "PNG"),
        "palette-gone.png": encoded(palette, "PNG", transparency=1),
        "grey.jpg": encoded(Image.new("L", (8, 8), 77), "JPEG"),
        "turned.jpg": encoded(halves, "JPEG", exif=exif, quality=100),
    }
    images = load(lay(tmp_path, files), backend, 8)
    found = {n: ((i[:, 1, 4] + 1) * 127.5).round().int().tolist() for n, i in images.items()}
    assert found == {
        "gone.png": [255, 255, 255],
        "half.webp": [255, 204, 204],
        "palette.png": [0, 0, 255],
        "palette-gone.png": [255, 255, 255],
        "grey.jpg": [77, 77, 77],
        "turned.jpg": [0, 0, 0],
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_files_are_skipped_with_a_reason(tmp_path, any_share, backend):
    bad = bad_files()
    good = {"a.jpg": encoded(picture(), "JPEG"), "z.png": encoded(picture(), "PNG")}
    folder = lay(tmp_path, {name: data for name, (data, _) in bad.items()} | good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert skipped(folder, backend) == {name: reason for name, (_, reason) in bad.items()}
    assert load(folder, backend).keys() == good.keys()


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_that_cannot_be_read(tmp_path, any_share, backend, monkeypatch):
    good = encoded(picture(), "JPEG")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    folder = lay(tmp_path, {"a.jpg": good, "long.jpg": good + bytes(500), "later.jpg": good})
    monkeypatch.setattr(vetting, "MOST_BYTES", len(good) + 400)
    (tmp_path / "later.jpg").unlink()
    assert skipped(folder, backend) == {
        "gone.jpg": "cannot be read",
        "later.jpg": "cannot be read",
        "long.jpg": "too large",
    }


def test_damage_of_any_kind_is_judged_alike(tmp_path, any_share):
    """Random bytes overwritten anywhere in 400 JPEGs; where both go on, they see the same."""
    wholes = [encoded(picture(seed=s), "JPEG", progressive=s == 1) for s in range(2)]
    files = {}
    for trial in range(400):
        random = np.random.default_rng(trial)
        data = bytearray(wholes[trial % 2])
        for place in random.integers(0, len(data), random.integers(1, 12)):
            data[place] = random.integers(256)
        files[f"{trial:03}.jpg"] = bytes(data)
    folder = lay(tmp_path, files)
    judged = {backend: skipped(folder, backend).keys() for backend in BACKENDS}
    assert judged["pillow"] == judged["dali"]
    assert 50 < len(judged["dali"]) < 350
    pillow, dali = (load(folder, backend) for backend in BACKENDS)
    far = [n for n in pillow if (pillow[n] - dali[n]).abs().max() > 2 / 127.5 + 1e-6]
    assert far == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_than_one_percent_fails_and_says_why(tmp_path, backend):
    good, whole = encoded(picture(20, 20), "PNG"), encoded(picture(20, 20), "JPEG")
    folder = lay(
        tmp_path, {f"{i:03}.png": good for i in range(198)} | {"005.jpg": b"", "1.jpg": b""}
    )
    assert len(folder) == 200
    assert skipped(folder, backend) == {"005.jpg": "empty", "1.jpg": "empty"}
    folder = lay(tmp_path, {"150.jpg": whole[:-9]})
    loader = ImageLoader(folder, 8, backend=backend, device="cpu")
    passed = []
    with pytest.raises(RunError) as caught:
        passed.extend(len(batch.files) for batch in loader)
    assert passed == [63, 63]
    assert str(caught.value) == (
        f"3 of the first 192 images of {tmp_path} cannot be used: 2 empty, 1 truncated; the first "
        f"is {tmp_path / '005.jpg'}. At most 2 may be skipped, 1% of the whole set: repair, "
        "convert or remove them"
    )
    assert len(loader.skipped) == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_image_depends_on_its_batch(tmp_path, any_share, backend):
    files = {name: data for name, (data, _) in bad_files().items()} | good_files()
    folder = lay(tmp_path, files)
    one, many = (load(folder, backend, batch_size=size) for size in (1, 17))
    assert list(one) == list(many)
    assert all(torch.equal(one[name], many[name]) for name in one)


def test_classes_go_with_the_images_and_a_second_pass_starts_anew(tmp_path, any_share):
    for name in ("ring", "star"):
        (tmp_path / name).mkdir()
    good = encoded(picture(), "JPEG")
    lay(tmp_path, {"ring/1.jpg": good, "ring/2.jpg": b"", "star/3.jpg": good})
    loader = ImageLoader(
        ImageFolder.open(tmp_path, ("star", "ring")), 8, device="cpu", batch_size=2
    )
    for _ in range(2):
        assert [[f.class_id for f in batch.files] for batch in loader] == [[1], [0]]
        assert [s.path.name for s in loader.skipped] == ["2.jpg"]


def test_which_backend_serves(tmp_path, monkeypatch):
    folder = lay(tmp_path, {"a.jpg": encoded(picture(), "JPEG")})
    notes: list[str] = []

    def served(backend: str = "auto") -> str:
        return ImageLoader(folder, 8, backend=backend, device="cpu", on_note=notes.append).backend  # type: ignore[arg-type]

    assert (served(), served("dali"), served("pillow")) == ("dali", "dali", "pillow")

    def broken(self: object, jpegs: object) -> None:
        raise RuntimeError("CUDA driver version is insufficient")

    with monkeypatch.context() as patch:
        patch.setattr(dali_loader.DaliLoader, "_decode", broken)
        assert served() == "pillow"
        assert notes == [
            "images are loaded with Pillow: DALI cannot decode on cpu (CUDA driver version is "
            "insufficient): use the backend pillow"
        ]
        with pytest.raises(UsageError, match="DALI cannot decode on cpu .CUDA driver"):
            served("dali")
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(UsageError, match=r"DALI is not here.*pip install 'amfast\[dali\]'"):
        served("dali")
    monkeypatch.setattr("amfast.images.loader.find_spec", lambda name: None)
    assert served() == "pillow" and len(notes) == 1


def test_a_driver_that_is_too_old_is_told_what_serves(monkeypatch):
    def broken(self: object, jpeg: object) -> None:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(dali_loader.DaliLoader, "_decode", broken)
    said = r"on cuda:0 .CUDA driver.*use the backend pillow, or, .* CUDA 12, .*nvidia-dali-cuda120"
    with pytest.raises(UsageError, match=said):
        dali_loader.DaliLoader(8, torch.device("cuda", 0))


@pytest.mark.gpu
def test_a_gpu_decodes_the_same(tmp_path):
    """With nvJPEG, which the CPU's test cannot show; where DALI cannot, Pillow serves and why."""
    folder = lay(tmp_path, good_files())
    wanted = load(folder, "pillow")
    notes: list[str] = []
    loader = ImageLoader(folder, 32, device="cuda", on_note=notes.append)
    assert loader.backend == "dali" or "cuda" in " ".join(notes) or not _dali_is_installed()
    for batch in loader:
        assert batch.images.device.type == "cuda"
        for file, image in zip(batch.files, batch.images.cpu(), strict=True):
            assert (image - wanted[file.path.name]).abs().max() <= 2 / 127.5 + 1e-6, file.path
    assert loader.skipped == []


def test_arguments(tmp_path):
    folder = lay(tmp_path, {"a.jpg": b""})
    for options, sentence in (
        ({"size": 0}, "size 0 and batch_size 64 must be at least 1"),
        ({"size": 8, "batch_size": 0}, "must be at least 1"),
        ({"size": 8, "backend": "opencv"}, "unknown backend 'opencv': use auto, dali or pillow"),
        ({"size": 8, "device": "tpu"}, "unknown device 'tpu'"),
    ):
        with pytest.raises(UsageError, match=sentence):
            ImageLoader(folder, **options)


def test_the_example_of_the_docs(tmp_path, monkeypatch):
    for wnid in ("n01491361", "n01514668"):  # tiger shark, cock
        (tmp_path / "imagenet/train" / wnid).mkdir(parents=True)
        lay(tmp_path / "imagenet/train" / wnid, {"a.JPEG": encoded(picture(), "JPEG")})
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "images.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    classifier = SimpleNamespace(spec=SimpleNamespace(labels=imagenet_labels()))
    found = {"classifier": classifier}
    exec(compile(example, str(page), "exec"), found)
    assert found["batch"].images.shape == (2, 3, 256, 256)  # type: ignore[attr-defined]
    assert [file.class_id for file in found["batch"].files] == [3, 7]  # type: ignore[attr-defined]
