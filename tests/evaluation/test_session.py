from __future__ import annotations

import json
import os
import shutil

import pytest

from amfast.errors import RunError, UsageError, WeightsError
from amfast.evaluation import pictures
from amfast.evaluation.compare import METRICS, PER_CLASS
from amfast.evaluation.pictures import FolderImages
from amfast.evaluation.session import Listener, evaluate_path
from amfast.runs.lock import locked
from tests.command import listing
from tests.evaluation.conftest import HOURGLASS, RING, STAR
from tests.evaluation.test_subject import embeddings_file
from tests.images.pictures import encoded, picture
from tests.runs.conftest import directory_of_mode

SMALL = {"metrics": PER_CLASS, "images_per_class": 4, "pairs": 6, "device": "cpu"}


def test_a_run_gets_its_evaluation_beside_the_renderers_pictures(make_run):
    run = make_run(failed={(STAR, 0), (RING, 0), (RING, 1)})
    heard: list[object] = []
    listener = Listener(on_start=heard.append, on_class=lambda c: heard.append(c.target.name))
    done = evaluate_path(run.path, listener=listener, **SMALL)
    assert heard == [1, "star"]
    assert done.path == run.path / "evaluation.json"
    value = json.loads(done.path.read_text())
    assert value == json.loads(json.dumps(done.evaluation.to_json()))
    assert value["against"] == "renderer"
    assert value["overall"]["sets"].keys() == {"original", "am", "mixed", "real"}
    assert [(f["name"], f["trial"], f["failed_at"]) for f in value["failed"]] == [
        ("star", 0, 1), ("ring", 0, 1), ("ring", 1, 1)
    ]  # fmt: skip
    assert (run.path / "lock").read_bytes() == b""


def test_a_second_evaluation_takes_the_place_of_the_first(make_run):
    run = make_run((STAR,))
    values = [
        json.loads(evaluate_path(run.path, seed=seed, **SMALL).path.read_text()) for seed in (0, 1)
    ]
    assert [value["seed"] for value in values] == [0, 1]
    assert not list(run.path.glob(".*"))


def test_ms_ssim_and_a_folder_need_no_weights_of_a_judge(make_run, tmp_path):
    """Of Inception-v3 there are none here, and it is asked for no more than its names."""
    run = make_run((STAR,), names={STAR: "tiger shark"})
    (tmp_path / "real" / "tiger shark").mkdir(parents=True)
    for i in range(3):
        path = tmp_path / "real" / "tiger shark" / f"{i}.png"
        path.write_bytes(encoded(picture(seed=i), "PNG"))
    options = {**SMALL, "judge": "inception_v3", "features": "published"}
    with pytest.raises(WeightsError, match="amfast weights fetch inception_v3"):
        evaluate_path(run.path, against=tmp_path / "real", **options)
    assert not (run.path / "evaluation.json").exists()
    done = evaluate_path(run.path, against=tmp_path / "real", **{**options, "metrics": ["ms_ssim"]})
    assert [m.name for m in done.evaluation.overall["real"]] == ["ms_ssim"]
    assert json.loads(done.path.read_text())["judge"] is None


def test_a_bare_file_gets_none(tmp_path, generator):
    path = tmp_path / "e.safetensors"
    embeddings_file(generator, [(STAR, 0)]).write(path)
    done = evaluate_path(path, against="original", **SMALL)
    assert done.path is None and done.evaluation.against == "original"
    assert listing(tmp_path) == ["e.safetensors"]


def test_unseen_shapes_are_compared_with_their_own_pictures(make_run):
    run = make_run((0,), classifier="embedded-unseen")
    with pytest.raises(UsageError, match="'ellipse' in these embeddings and 'disk' for the judge"):
        evaluate_path(run.path, **SMALL)
    done = evaluate_path(run.path, judge="embedded-unseen", **SMALL)
    sets = done.evaluation.classes[0].sets
    assert list(sets) == ["am", "real"]
    assert sets["real"][-1].name == "top1[embedded-unseen]"
    assert sets["real"][-1].value > 0.9  # the ellipse, not the disk whose number it has


def test_against_a_folder(make_run, tmp_path):
    run = make_run()
    for name in ("star", "ring"):
        (tmp_path / "real" / name).mkdir(parents=True)
        for i in range(3):
            file = tmp_path / "real" / name / f"{i}.png"
            file.write_bytes(encoded(picture(seed=i), "PNG"))
    done = evaluate_path(run.path, against=tmp_path / "real", **SMALL)
    assert done.evaluation.against == str(tmp_path / "real")
    assert done.evaluation.classes[0].sets["real"][-1].n == 3
    assert [n for n in done.evaluation.notes if "has 3 images of star, fewer than the 4" in n]
    shutil.rmtree(tmp_path / "real" / "ring")
    with pytest.raises(UsageError, match="has no images of 4 ring"):
        evaluate_path(run.path, against=tmp_path / "real", **SMALL)


def test_a_folder_is_looked_at_once(make_run, tmp_path, home, monkeypatch):
    """Until one of its files, or what is asked of them, changes."""
    run = make_run((STAR,))
    (tmp_path / "real" / "star").mkdir(parents=True)
    files = [tmp_path / "real" / "star" / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        file.write_bytes(encoded(picture(seed=i), "PNG"))
    first = evaluate_path(run.path, against=tmp_path / "real", **SMALL).evaluation.to_json()
    assert len(list((home / "statistics").glob("*.safetensors"))) == 1
    (tmp_path / "real").rename(tmp_path / "moved")
    loaded: list[str] = []
    load = FolderImages._load
    monkeypatch.setattr(
        FolderImages, "_load", lambda self, *what: loaded.append(self.name) or load(self, *what)
    )
    moved = str(tmp_path / "moved")
    again = evaluate_path(run.path, against=moved, **SMALL).evaluation.to_json()
    assert again == {**first, "against": moved} and not loaded
    evaluate_path(run.path, against=moved, **{**SMALL, "pairs": 5})
    assert loaded == [moved]
    (tmp_path / "moved" / "star" / "0.png").write_bytes(encoded(picture(seed=9), "PNG"))
    other = evaluate_path(run.path, against=moved, **SMALL).evaluation.to_json()
    assert loaded == [moved, moved]
    assert other["classes"] != again["classes"]


def test_one_bad_file_of_many_is_no_matter_whose_class_it_is(make_run, tmp_path):
    run = make_run((STAR, RING))
    for name, count in (("star", 99), ("ring", 1)):
        (tmp_path / "real" / name).mkdir(parents=True)
        for i in range(count):
            file = tmp_path / "real" / name / f"{i}.png"
            file.write_bytes(encoded(picture(9, 9, seed=i), "PNG"))
    (tmp_path / "real" / "ring" / "bad.png").write_bytes(b"no image")
    options = {**SMALL, "images_per_class": 99, "metrics": ["accuracy"]}
    done = evaluate_path(run.path, against=tmp_path / "real", **options)
    assert [n for n in done.evaluation.notes if n.startswith("skipped ")]
    (tmp_path / "real" / "ring" / "worse.png").write_bytes(b"")
    with pytest.raises(RunError, match="At most 1 may be skipped, 1% of the whole set"):
        evaluate_path(run.path, against=tmp_path / "real", **options)


def test_a_flat_folder_is_looked_at_once_for_all_classes(make_run, tmp_path, home, monkeypatch):
    run = make_run()
    (tmp_path / "real").mkdir()
    for i in range(4):
        (tmp_path / "real" / f"{i}.png").write_bytes(encoded(picture(9, 9, seed=i), "PNG"))
    loaded: list[str] = []
    load = FolderImages._load
    monkeypatch.setattr(
        FolderImages, "_load", lambda self, *what: loaded.append(self.name) or load(self, *what)
    )
    found = evaluate_path(run.path, against=tmp_path / "real", **SMALL).evaluation
    assert len(loaded) == len(list((home / "statistics").glob("*.safetensors"))) == 1
    shares = [{m.name: m.value for m in c.sets["real"]}["top1[embedded]"] for c in found.classes]
    alone = {}
    for class_id, name in ((STAR, "star"), (RING, "ring")):
        (tmp_path / "sorted").mkdir()
        shutil.copytree(tmp_path / "real", tmp_path / "sorted" / name)
        target = make_run((class_id,))
        of_class = evaluate_path(target.path, against=tmp_path / "sorted", **SMALL).evaluation
        alone[name] = {m.name: m.value for m in of_class.classes[0].sets["real"]}
        shutil.rmtree(tmp_path / "sorted")
    assert shares == [alone["star"]["top1[embedded]"], alone["ring"]["top1[embedded]"]]


def test_a_flat_folder_counts_once_among_all_classes(make_run, tmp_path):
    """As many copies of each image as classes would leave no neighbour within its sphere."""
    run = make_run(tuple(range(7)))
    (tmp_path / "real").mkdir()
    for i in range(12):
        (tmp_path / "real" / f"{i}.png").write_bytes(encoded(picture(9, 9, seed=i), "PNG"))
    options = {**SMALL, "images_per_class": 20, "metrics": METRICS}
    found = evaluate_path(run.path, against=tmp_path / "real", **options).evaluation
    of_real = {measure.name: measure.n for measure in found.overall["real"]}
    assert of_real["inception_score[embedded]"] == 12
    assert of_real["ms_ssim"] == of_real["lpips[embedded]"] == SMALL["pairs"]
    assert {m.name: m.n for m in found.overall["am"]}["ms_ssim"] == 7 * SMALL["pairs"]
    (same,) = {c.sets["real"][1].value for c in found.classes}
    (once,) = [m for m in found.overall["real"] if m.name == "ms_ssim"]
    assert once == found.classes[0].sets["real"][1] and once.value == same
    beside = {measure.name: measure for measure in found.overall["am"]}
    assert beside["recall[embedded]"].n == beside["coverage[embedded]"].n == 12
    assert "12 images are too few" in beside["fid[embedded]"].note
    assert not [note for note in found.notes if "within their spheres" in note]
    assert [n for n in found.notes if "has 12" in n] == [
        f"{tmp_path}/real has 12 images, fewer than the 20 of the other sets"
    ]


def test_all_classes_together_meet_as_many_images_of_a_flat_folder(make_run, tmp_path, monkeypatch):
    run = make_run((STAR, RING, HOURGLASS))
    (tmp_path / "real").mkdir()
    for i in range(100):
        (tmp_path / "real" / f"{i}.png").write_bytes(encoded(picture(9, 9, seed=i), "PNG"))

    def evaluated(images_per_class):
        options = {**SMALL, "images_per_class": images_per_class, "metrics": METRICS}
        found = evaluate_path(run.path, against=tmp_path / "real", **options).evaluation
        overall = {name: {m.name: m for m in of_set} for name, of_set in found.overall.items()}
        return found, overall["real"]["inception_score[embedded]"], overall["am"]["fid[embedded]"]

    found, score, fid = evaluated(20)  # parts of 20, 20 and 20
    assert {c.sets["real"][-1].n for c in found.classes} == {20}
    assert score.n == 60
    assert found.overall["am"][0].n == 3 * SMALL["pairs"] and fid.n == 60
    (tmp_path / "real" / "bad.png").write_bytes(b"no image")
    monkeypatch.setattr(pictures, "MOST_SKIPPED", 0.05)
    found, score, fid = evaluated(50)  # 50, 50 and 1
    assert score.n == 100
    assert [n for n in found.notes if n.startswith("skipped ")]
    again, kept, same = evaluated(50)
    assert (again.to_json(), kept, same) == (found.to_json(), score, fid)


def test_a_file_of_a_flat_folder_that_was_skipped_is_listed(make_run, tmp_path):
    run = make_run()
    (tmp_path / "real").mkdir()
    for i in range(100):
        (tmp_path / "real" / f"{i}.png").write_bytes(encoded(picture(9, 9, seed=i), "PNG"))
    (tmp_path / "real" / "bad.png").write_bytes(b"no image")
    options = {**SMALL, "images_per_class": 101}
    done = evaluate_path(run.path, against=tmp_path / "real", **{**options, "metrics": ["ms_ssim"]})
    again = evaluate_path(
        run.path, against=tmp_path / "real", **{**options, "metrics": ["ms_ssim"]}
    )
    for found in (done, again):  # the second from what the first kept
        (skipped,) = [n for n in found.evaluation.notes if n.startswith("skipped ")]
        assert skipped.startswith(f"skipped {tmp_path}/real/bad.png: ")


def test_what_cannot_be_compared_with_is_refused(make_run, tmp_path):
    run = make_run(names={STAR: "kite"})
    with pytest.raises(UsageError, match="class 3 is 'kite' in these embeddings and 'star'"):
        evaluate_path(run.path, **SMALL)
    sound = make_run()
    with pytest.raises(UsageError, match="none is not there: give a folder of images"):
        evaluate_path(sound.path, against=tmp_path / "none", **SMALL)
    with pytest.raises(UsageError, match="against is empty; give a folder of images, original"):
        evaluate_path(sound.path, against="", **SMALL)
    with pytest.raises(UsageError, match="no metric is called 'beauty'"):
        evaluate_path(sound.path, **{**SMALL, "metrics": ["beauty"]})
    assert not (sound.path / "evaluation.json").exists()


def test_a_directory_that_takes_no_file_is_known_before_the_work(make_run):
    run = make_run((STAR,))
    started: list[int] = []
    listener = Listener(on_start=started.append)
    with directory_of_mode(0o755) as folder:
        somebody = os.geteuid()
        os.seteuid(os.getuid())
        shutil.copytree(run.path, folder / "run")
        (folder / "run").chmod(0o555)
        os.seteuid(somebody)
        with pytest.raises(RunError, match="cannot lock .*permission denied"):
            evaluate_path(folder / "run", listener=listener, **SMALL)
    assert started == []


def test_a_run_that_is_in_use_is_left_alone(make_run):
    run = make_run((STAR,))
    with locked(run.path / "lock"), pytest.raises(RunError, match="is in use by process"):
        evaluate_path(run.path, **SMALL)


def test_an_interruption_leaves_nothing_behind(make_run):
    run = make_run((STAR, HOURGLASS))
    before = listing(run.path)

    def interrupt(found):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_path(run.path, listener=Listener(on_class=interrupt), **SMALL)
    assert listing(run.path) == sorted([*before, "lock"])
    assert evaluate_path(run.path, **SMALL).path.exists()
