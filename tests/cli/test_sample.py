from __future__ import annotations

from PIL import Image
from safetensors import safe_open

from tests.command import amfast, assert_refused, listing

SIDE, GAP, LINE = 64, 12, 18  # of the pictures that amfast draws


def groups(path, count, columns):
    """The rows of a grid, each a list of its groups of ``count`` images."""
    picture = Image.open(path)
    width = count * SIDE
    assert picture.width == GAP + columns * (width + GAP)
    rows, rest = divmod(picture.height - GAP - LINE, SIDE + LINE + GAP)
    assert rest == 0
    tops = [GAP + 2 * LINE + row * (SIDE + LINE + GAP) for row in range(rows)]
    lefts = [GAP + column * (width + GAP) for column in range(columns)]
    return [[picture.crop((x, y, x + width, y + SIDE)).tobytes() for x in lefts] for y in tops]


def test_classes_as_trained(tmp_path):
    done = amfast(
        "sample", "--classes", "star,0-1", "--count", "3", "--device", "cpu", cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote sample.png\n")
    assert listing(tmp_path) == ["sample.png"]
    rows = groups(tmp_path / "sample.png", 3, 1)
    assert len(rows) == 3 and len({row[0] for row in rows}) == 3


def test_run_directory_and_its_file_on_the_same_latents(tmp_path, finished, invoke):
    for source, name in ((finished.run_dir, "run"), (finished.report["embeddings"], "file")):
        answer = invoke("sample", source, "--count", "2", "--out", f"{name}.png")
        assert (answer.returncode, answer.stdout) == (0, "")
    assert (tmp_path / "run.png").read_bytes() == (tmp_path / "file.png").read_bytes()
    rows = groups(tmp_path / "run.png", 2, 3)  # as trained, trial 0, trial 1
    assert len(rows) == 3 and len({group for row in rows for group in row}) == 9

    assert invoke("sample", "--classes", "0-2", "--count", "2").returncode == 0
    alone = groups(tmp_path / "sample.png", 2, 1)
    assert [row[0] for row in alone] == [row[0] for row in rows]

    chosen = invoke("sample", finished.run_dir, "--classes", "square", "--count", "2")
    assert chosen.returncode == 0
    assert groups(tmp_path / "sample.png", 2, 3) == [rows[1]]

    seeded = invoke("sample", "--classes", "0", "--count", "2", "--seed", "9")
    assert seeded.returncode == 0
    assert groups(tmp_path / "sample.png", 2, 1) != alone[:1]


def test_class_that_the_file_lacks(tmp_path, finished, invoke):
    assert_refused(
        invoke("sample", finished.run_dir, "--classes", "squaer"), 2, "unknown class", "square"
    )
    assert_refused(invoke("sample", finished.run_dir, "--classes", "7"), 2, "class 7 does not")
    assert listing(tmp_path) == []


def test_trial_file_is_not_an_embeddings_file(tmp_path, finished, invoke):
    trial = finished.run_dir / "trials" / "0000-00.safetensors"
    assert_refused(invoke("sample", trial), 1, "holds amfast-trial .*expected amfast-embeddings")
    assert listing(tmp_path) == []


def test_embeddings_of_another_generator(tmp_path, finished, other_weights):
    with safe_open(finished.report["embeddings"], framework="pt") as file:
        print_ = file.metadata()["generator_fingerprint"]
    done = amfast("sample", finished.run_dir, "--weights", other_weights, cwd=tmp_path)
    assert_refused(
        done,
        1,
        rf"was made with generator embedded \(fingerprint {print_}\)",
        r"this is broken \(fingerprint [0-9a-f]{16}\)",
    )
    assert listing(tmp_path) == []


def test_truncated_embeddings_file(tmp_path, finished, invoke):
    data = (finished.run_dir / "embeddings.safetensors").read_bytes()
    (tmp_path / "half").write_bytes(data[: len(data) // 2])
    assert_refused(invoke("sample", "half"), 1, "half is truncated or damaged")
    assert listing(tmp_path) == ["half"]


def test_embedding_that_overflows_is_drawn(tmp_path, other_weights, invoke):
    answer = invoke("sample", "--weights", other_weights, "--classes", "0-1", "--count", "1")
    assert answer.returncode == 0
    assert len(groups(tmp_path / "sample.png", 1, 1)) == 2
