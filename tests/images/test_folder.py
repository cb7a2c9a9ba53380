"""Layouts of image folders, and what becomes of folders that name no class. Nothing is opened."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from amfast.errors import UsageError
from amfast.imagenet import imagenet_labels, imagenet_wnids
from amfast.images.folder import ImageFolder
from tests.runs.conftest import directory_of_mode

SHAPES = ("ring", "star", "half moon")


def lay(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(folder: ImageFolder) -> dict[str, int | None]:
    return {f.path.relative_to(folder.root).as_posix(): f.class_id for f in folder.files}


def test_a_flat_folder_has_no_classes(tmp_path):
    lay(tmp_path, "b.JPEG", "a.png", "notes.txt", ".hidden.png", "._a.png", "c.webp.part")
    for labels in (None, SHAPES):
        folder = ImageFolder.open(tmp_path, labels)
        assert found(folder) == {"a.png": None, "b.JPEG": None}
        assert folder.class_ids == () and len(folder) == 2
    assert [f.path.name for f in folder.files] == ["a.png", "b.JPEG"]


def test_class_names_in_any_spelling(tmp_path):
    names = ("ring/1.png", "STAR/1.png", "half_moon/2.jpg", "half-moon/1.jpg")
    folder = ImageFolder.open(lay(tmp_path, *names, "empty/readme.txt"), SHAPES)
    assert found(folder) == dict(zip(names, (0, 1, 2, 2), strict=True))
    assert folder.class_ids == (0, 1, 2)
    assert found(folder.of_classes([1])) == {"STAR/1.png": 1}
    assert set(found(ImageFolder.open(tmp_path)).values()) == {None}


def test_a_label_that_is_a_folders_exact_name_comes_first(tmp_path):
    folder = ImageFolder.open(
        lay(tmp_path, "Ring/1.png", "ring/1.png", "RING/1.png"), ("ring", "Ring")
    )
    assert found(folder) == {"RING/1.png": 0, "Ring/1.png": 1, "ring/1.png": 0}


def test_wnids_are_imagenets(tmp_path):
    names = ("n01440764/a.JPEG", "n01491361/a.JPEG", "tiger_shark/b.JPEG", "n15075141/a.JPEG")
    folder = ImageFolder.open(lay(tmp_path, *names), imagenet_labels())
    assert [found(folder)[name] for name in names] == [0, 3, 3, 999]
    assert len(set(imagenet_wnids())) == 1000
    with pytest.raises(UsageError, match="named by ImageNet's wnids, and the classifier has 3"):
        ImageFolder.open(tmp_path, SHAPES)
    lay(tmp_path, "n99999999/a.JPEG")
    with pytest.raises(UsageError, match="name no class: 'n99999999'"):
        ImageFolder.open(tmp_path, imagenet_labels())


def test_wnids_without_timm(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.data", None)
    lay(tmp_path, "n01440764/a.JPEG")
    with pytest.raises(UsageError, match=r"timm.*is needed.*pip install 'amfast\[classifiers\]'"):
        ImageFolder.open(tmp_path, imagenet_labels())


PLACES = ("/a/airfield", "/a/apartment_building/outdoor", "/b/bar")


@pytest.mark.parametrize("labels", [PLACES, ("0", "1", "2")])
@pytest.mark.parametrize(
    "folders",
    [
        ("a/airfield", "a/apartment_building/outdoor", "b/bar"),
        ("airfield", "apartment_building-outdoor", "bar"),
    ],
)
def test_places_with_and_without_letters(tmp_path, folders, labels):
    """By name; and by the order of their paths where a classifier has but numbers for names."""
    lay(tmp_path, *(f"{folder}/1.jpg" for folder in folders))
    folder = ImageFolder.open(tmp_path, labels)
    assert [found(folder)[f"{name}/1.jpg"] for name in folders] == [0, 1, 2]


def test_numbered_folders_and_too_few_for_an_order(tmp_path):
    lay(tmp_path, "2/a.png", "0/a.png")
    assert set(found(ImageFolder.open(tmp_path, ("0", "1", "2"))).values()) == {0, 2}
    lay(tmp_path, "bar/a.png")
    with pytest.raises(UsageError, match="name no class: 'bar'; the classes are '0', '1', '2'"):
        ImageFolder.open(tmp_path, ("0", "1", "2"))


def test_folders_that_name_no_class(tmp_path):
    lay(tmp_path, "rings/1.png", "star/1.png")
    with pytest.raises(UsageError, match="name no class: 'rings'; did you mean 'ring'"):
        ImageFolder.open(tmp_path, SHAPES)
    lay(tmp_path, *(f"x{i}/1.png" for i in range(7)))
    with pytest.raises(UsageError, match="'x0', 'x1', 'x2', 'x3' and 3 more; did you mean 'ring'"):
        ImageFolder.open(tmp_path, SHAPES)


def test_a_set_in_parts_and_images_beside_folders(tmp_path):
    lay(tmp_path, "train/ring/1.png", "val/ring/1.png")
    with pytest.raises(UsageError, match=r"give one part of the set, such as .*train"):
        ImageFolder.open(tmp_path, SHAPES)
    beside = lay(tmp_path / "val", "1.png")
    with pytest.raises(UsageError, match="move the images that lie in .*val itself into folders"):
        ImageFolder.open(beside, SHAPES)


def test_paths_that_hold_nothing(tmp_path):
    with pytest.raises(UsageError, match="away is not there: give a folder of images"):
        ImageFolder.open(tmp_path / "away")
    lay(tmp_path, "a.txt", "b/c.txt")
    with pytest.raises(UsageError, match=r"holds no images: looked for .bmp, .*\.webp"):
        ImageFolder.open(tmp_path, SHAPES)
    with pytest.raises(UsageError, match=r"a\.txt is no folder"):
        ImageFolder.open(tmp_path / "a.txt")


def test_links(tmp_path):
    """A ring of them ends, one that leads nowhere is an image that cannot be read."""
    lay(tmp_path, "set/ring/1.png")
    (tmp_path / "set/ring/again").symlink_to(tmp_path / "set")
    (tmp_path / "set/ring/2.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "set/star").symlink_to(lay(tmp_path / "elsewhere", "3.png"))
    (tmp_path / "set/ring/folder.png").mkdir()
    assert found(ImageFolder.open(tmp_path / "set", SHAPES)) == {
        "ring/1.png": 0,
        "ring/2.png": 0,
        "star/3.png": 1,
    }


def test_samples_are_seeded_and_classes_apart(tmp_path):
    names = [f"{folder}/{i:02}.png" for folder in ("ring", "star") for i in range(20)]
    whole = ImageFolder.open(lay(tmp_path, *names, "half_moon/1.png"), SHAPES)
    drawn = whole.sample(5, seed=1)
    assert [list(found(drawn).values()).count(c) for c in (0, 1, 2)] == [5, 5, 1]
    assert found(drawn) == found(whole.sample(5, seed=1)) != found(whole.sample(5, seed=2))
    assert list(found(drawn)) == sorted(found(drawn))
    assert found(whole.of_classes([1]).sample(5, seed=1)) == found(drawn.of_classes([1]))
    assert found(drawn).items() <= found(whole.sample(6, seed=1)).items()
    moved = ImageFolder.open(lay(tmp_path / "moved", *names), SHAPES)
    assert found(moved.sample(5, seed=1)) == found(drawn.of_classes([0, 1]))
    assert whole.sample(99, seed=1) == whole
    assert len(ImageFolder.open(tmp_path / "ring").sample(3, seed=0)) == 3
    with pytest.raises(UsageError, match="0 images of each class were asked for"):
        whole.sample(0, seed=1)


def test_parts_of_a_sample_have_no_image_in_common(tmp_path):
    for name, count in (("star", 7), ("disk", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f"{i}.png").touch()
    folder = ImageFolder.open(tmp_path, ["star", "disk"])
    parts = [folder.sample(3, 5, part=part) for part in range(4)]
    assert [len(part) for part in parts] == [6, 3, 1, 0]
    assert parts[0] == folder.sample(3, 5)
    for per_class in (1, 5, 9):
        assert folder.sample_size(per_class) == len(folder.sample(per_class, 5))
    drawn = [file for part in parts for file in part.files]
    assert sorted(drawn, key=lambda file: file.path) == list(folder.files)


def test_some_classes_keep_the_order_of_paths(tmp_path):
    for name in ("a", "b", "c"):
        for i in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{i}.png").touch()
    folder = ImageFolder.open(tmp_path, ["c", "b", "a"])
    assert folder.class_ids == (0, 1, 2)
    for class_ids in ([0], [0, 2], {1, 2, 0}, [2, 2], [7], []):
        found = folder.of_classes(class_ids)
        assert found.files == tuple(f for f in folder.files if f.class_id in class_ids)
        assert found.class_ids == tuple(sorted({0, 1, 2} & set(class_ids)))


def test_a_folder_that_cannot_be_looked_into():
    with directory_of_mode(0) as path, pytest.raises(UsageError, match="into .*permission denied"):
        ImageFolder.open(path)
