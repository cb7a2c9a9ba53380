"""What comes in is what the file holds, and what does not fit is refused without a trace."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import amfast
from amfast.errors import AmfastError, RunError, UsageError, WeightsError
from amfast.exchange.importing import _read_npy, _Target
from amfast.generators import load_generator
from amfast.runs import RunDirectory, read_embeddings
from amfast.runs.imported import ImportedRun, open_any_run
from amfast.runs.sampling import sample_grid
from tests.command import listing
from tests.exchange.conftest import LABELS, embedding

GENERATOR = load_generator("embedded", device="cpu")
SPEC = GENERATOR.spec
NUMBERS = np.linspace(-0.5, 0.5, 2 * 128, dtype=np.float32).reshape(2, 128)
TENSORS = torch.from_numpy(NUMBERS)


def rows_of(run: ImportedRun) -> dict[tuple[int, int], torch.Tensor]:
    file = read_embeddings(run.embeddings_path, SPEC)
    return dict(zip(file.rows(), file.embeddings, strict=True))


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_what_went_out_comes_in(make_run, tmp_path, format):
    run = make_run(None)
    out = amfast.export_run(run.path, format, trials="all", out=tmp_path / "out").path
    files = sorted(out.glob("*.npy")) if format == "npy" else [out]
    imported = amfast.import_embeddings(files, tmp_path / "imports")
    found = rows_of(imported)
    assert list(found) == [(0, 0), (0, 1), (2, 0), (2, 1)]
    for (class_id, trial), vector in found.items():
        assert torch.equal(vector, embedding(run, class_id, trial))


def test_learned_embeds_and_other_shapes(tmp_path):
    star, shark = TENSORS
    save_file({"<heart>": star, "star": shark[None]}, tmp_path / "learned_embeds.safetensors")
    torch.save({"<heart>": TENSORS}, tmp_path / "learned_embeds.bin")
    heart, at = LABELS.index("heart"), LABELS.index("star")
    np.save(tmp_path / f"{at:03d}_star.npy", NUMBERS.astype(">f8")[1])  # [E], as big-endian doubles
    files = ["learned_embeds.safetensors", "learned_embeds.bin", f"{at:03d}_star.npy"]
    run = amfast.import_embeddings([tmp_path / name for name in files], tmp_path / "runs")
    found = rows_of(run)
    expected = {
        (heart, 0): star,
        (heart, 1): star,
        (heart, 2): shark,
        (at, 0): shark,
        (at, 1): shark,
    }
    assert list(found) == sorted(expected)
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_run_json_says_what_it_is(tmp_path):
    path = tmp_path / "001_square.npy"
    np.save(path, NUMBERS)
    run = amfast.import_embeddings([path], tmp_path / "runs", classifier="embedded")
    assert run.path == tmp_path / "runs" / "0001-embedded-imported"
    assert listing(run.path) == ["embeddings.safetensors", "run.json"]
    stored = json.loads((run.path / "run.json").read_text())
    assert stored.pop("created").startswith("2")
    assert sorted(stored.pop("versions")) == ["amfast", "numpy", "python", "torch"]
    assert stored.pop("classifier")["name"] == "embedded"
    assert stored == {
        "format": "amfast-run",
        "format_version": 1,
        "config": None,
        "imported": {
            "generator": "embedded",
            "weights": None,
            "files": [
                {
                    "file": "001_square.npy",
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "embeddings": 2,
                }
            ],
        },
        "generator": {
            "name": "embedded",
            "fingerprint": SPEC.fingerprint,
            "resolution": 64,
            "embedding_dim": 128,
            "latent_dim": SPEC.latent_dim,
            "clip_range": list(SPEC.clip_range),
        },
        "class_names": {str(i): label for i, label in enumerate(LABELS)},
        "notes": [],
    }
    assert open_any_run(run.path) == run
    assert read_embeddings(run.embeddings_path, SPEC).method == "imported"


def test_it_is_sampled_and_exported_like_any_run(tmp_path):
    np.save(tmp_path / "001_square.npy", NUMBERS)
    run = amfast.import_embeddings([tmp_path / "001_square.npy"], tmp_path / "runs")
    picture = sample_grid(GENERATOR, run.path, classes="square", count=1, seed=0)
    assert picture.startswith(b"\x89PNG")
    with pytest.raises(RunError, match="several of a class, and nothing says which is the best"):
        amfast.export_run(run.path, "npy", out=tmp_path / "out")
    out = amfast.export_run(run.path, "npy", trials="all", out=tmp_path / "out").path
    assert (out / "001_square.npy").read_bytes() == (tmp_path / "001_square.npy").read_bytes()
    np.save(tmp_path / "001_square.npy", NUMBERS[0])
    single = amfast.import_embeddings([tmp_path / "001_square.npy"], tmp_path / "runs")
    exported = amfast.export_run(single.path, "biggan-pytorch", out=tmp_path / "x.pth")
    assert [trial["row"] for trial in exported.trials] == [1]
    table = torch.load(exported.path, weights_only=True)["shared.weight"]
    assert torch.equal(table[1], TENSORS[0])


def test_it_is_no_run_to_resume(tmp_path):
    np.save(tmp_path / "001_square.npy", NUMBERS)
    run = amfast.import_embeddings([tmp_path / "001_square.npy"], tmp_path / "runs")
    with pytest.raises(RunError, match="holds imported embeddings: no trial was optimised in it"):
        RunDirectory.open(run.path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "damaged or of another version"),
        ("[]", "damaged or of another version"),
        ('{"config": null}', "format|imported|config"),
        ('{"imported": {}}', "run.json is damaged: imported.generator: Field required"),
    ],
)
def test_damaged_run_json(tmp_path, text, said):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=said):
        open_any_run(tmp_path)


def test_another_generator_is_named(make_run, biggan_weights, tmp_path):
    run = make_run(biggan_weights)
    other = load_generator("embedded", weights=biggan_weights, device="cpu").spec.fingerprint
    said = (
        rf"was made with generator biggan \(fingerprint {other}\), "
        rf"and this is embedded \(fingerprint {SPEC.fingerprint}\)"
    )
    npy = amfast.export_run(run.path, "npy", out=tmp_path / "npy").path
    before = listing(tmp_path)
    for path in (run.embeddings_path, next(npy.glob("*.npy"))):
        with pytest.raises(RunError, match=said):
            amfast.import_embeddings([path], tmp_path / "new")
    stray = npy / "001_square.npy"  # which the manifest does not list
    np.save(stray, NUMBERS)
    assert len(rows_of(amfast.import_embeddings([stray], tmp_path / "new"))) == 2
    (npy / "amfast.json").write_text("[]")
    with pytest.raises(RunError, match=r"amfast.json, which goes with 001_square.npy, is damaged"):
        amfast.import_embeddings([stray], tmp_path / "other")
    assert [name for name in listing(tmp_path) if name.startswith("other")] == []
    assert set(before) <= set(listing(tmp_path))


def test_classes_of_a_classifier(make_run, tmp_path):
    run = make_run(None, classifier="embedded-unseen")
    with pytest.raises(RunError, match="name the classifier whose classes are meant"):
        amfast.import_embeddings([run.embeddings_path], tmp_path / "new")
    imported = amfast.import_embeddings(
        [run.embeddings_path], tmp_path / "new", classifier="embedded-unseen"
    )
    names = read_embeddings(imported.embeddings_path, SPEC).class_names
    assert names == read_embeddings(run.embeddings_path, SPEC).class_names


class Marker:
    """Writes a file where it is unpickled by a reader that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.write_text, (self.path, "ran")


def test_the_marker_would_show(tmp_path):
    pickle.loads(pickle.dumps(Marker(tmp_path / "ran")))
    assert listing(tmp_path) == ["ran"]


def broken(folder: Path) -> dict[str, Path]:
    """Files that must not come in."""
    paths = {}

    def npy(key: str, array: np.ndarray, name: str = "001_square.npy") -> Path:
        paths[key] = folder / key / name
        paths[key].parent.mkdir()
        np.save(paths[key], array)
        return paths[key]

    npy("wide", np.zeros((2, 64), np.float32))
    npy("scalar", np.zeros((), np.float32))
    npy("cube", np.zeros((1, 1, 128), np.float32))
    npy("empty", np.zeros((0, 128), np.float32))
    npy("integers", np.zeros(128, np.int64))
    npy("complex", np.zeros(128, np.complex64))
    npy("nan", np.full(128, np.nan, np.float32))
    npy("beyond fp32", np.full(128, 1e300))
    npy("unknown", NUMBERS, "hexagram.npy")
    npy("other class", NUMBERS, "000_square.npy")
    npy("beyond", NUMBERS, "999_square.npy")
    npy("number", NUMBERS, "00.npy")
    npy("objects", np.array([Marker(folder / "ran")] * 128, dtype=object))
    cut = npy("cut", NUMBERS)
    cut.write_bytes(cut.read_bytes()[:-1])
    head = npy("head", NUMBERS)
    head.write_bytes(head.read_bytes()[:60])
    npy("nothing", NUMBERS).write_bytes(b"")
    huge = npy("huge", NUMBERS)
    huge.write_bytes(huge.read_bytes().replace(b"(2, 128), }       ", b"(99999999999, 128)"))
    npy("pickle", NUMBERS).write_bytes(pickle.dumps(Marker(folder / "ran")))
    paths["missing npy"] = folder / "001_square.npy"
    paths["missing"] = folder / "none.safetensors"
    paths["junk"] = folder / "junk.bin"
    paths["junk"].write_bytes(b"junk" * 100)
    paths["code"] = folder / "code.bin"
    torch.save({"<star>": Marker(folder / "ran")}, paths["code"])
    for key, state in {
        "token": {"<hexagram>": torch.zeros(128)},
        "token width": {"<star>": torch.zeros(768)},
        "token nan": {"<star>": torch.full((128,), torch.nan)},
        "token integers": {"<star>": torch.zeros(128, dtype=torch.int64)},
        "no token": {},
    }.items():
        paths[key] = folder / f"{key}.safetensors"
        save_file(state, paths[key])
    return paths


SAID = {
    "wide": r"is \[2, 64\]; embeddings of generator embedded are \[128\] or \[trials, 128\]",
    "scalar": r"is \[\]; embeddings",
    "cube": r"\[1, 1, 128\]",
    "empty": "no embedding in there",
    "integers": "holds numbers of type int64, expected floating-point ones",
    "complex": "holds numbers of type complex64",
    "nan": "is not finite in fp32",
    "beyond fp32": "is not finite in fp32",
    "unknown": "of an unknown class, 'hexagram'",
    "other class": "is of class 0, 'square', and class 0 is",
    "beyond": "ids run from 0 to 11",
    "number": "called by a number alone",
    "objects": "truncated, no .npy file, or holds Python objects",
    "cut": "truncated, no .npy file",
    "head": "truncated, no .npy file",
    "nothing": "truncated, no .npy file",
    "huge": "truncated, no .npy file",
    "pickle": "truncated, no .npy file",
    "missing npy": r"cannot read .*001_square.npy: no such file",
    "missing": "cannot read .*none.safetensors: no such file",
    "junk": "cannot read weights from .*junk.bin",
    "code": r"holds more than tensors \(it asks for getattr\), which amfast does not unpickle",
    "token": "'<hexagram>' is of an unknown class",
    "token width": r"'<star>' is \[768\]",
    "token nan": "'<star>' is not finite",
    "token integers": r"'<star>' holds numbers of type torch.int64",
    "no token": "no embedding in there",
}


@pytest.mark.parametrize("kind", SAID)
def test_refused_without_a_trace(tmp_path, kind):
    path = broken(tmp_path)[kind]
    good = tmp_path / "002_triangle.npy"
    np.save(good, NUMBERS)
    before = listing(tmp_path)
    files = [path] if "no embedding" in SAID[kind] else [good, path]
    with pytest.raises((RunError, WeightsError), match=SAID[kind]) as caught:
        amfast.import_embeddings(files, tmp_path / "runs")
    assert caught.value.exit_code == 1
    assert listing(tmp_path) == before  # and no code of a file has run, which would leave "ran"


def test_what_is_no_set_of_embeddings(make_run, tmp_path):
    run = make_run(None)
    trial = next((run.path / "trials").iterdir())
    with pytest.raises(RunError, match="holds amfast-trial, expected amfast-embeddings"):
        amfast.import_embeddings([trial], tmp_path / "new")
    np.save(tmp_path / "001_square.npy", np.zeros((10_001, 128), np.float16))
    with pytest.raises(RunError, match="more than 10000 embeddings of one class"):
        amfast.import_embeddings([tmp_path / "001_square.npy"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="no file to import"):
        amfast.import_embeddings([], tmp_path / "new")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 127), byte=st.integers(0, 255), length=st.integers(0, 128 + 1024))
@example(at=10, byte=0, length=1152)
def test_damaged_headers_are_read_or_refused(tmp_path_factory, at, byte, length):
    path = tmp_path_factory.getbasetemp() / "001_square.npy"
    np.save(path, NUMBERS)
    data = bytearray(path.read_bytes())
    data[at] = byte
    path.write_bytes(bytes(data[:length]))
    said = ""
    try:
        found = _read_npy(path, _Target(SPEC, LABELS))
    except AmfastError as error:
        found, said = [], str(error)
    assert "001_square.npy" in said or all(vector.shape == (128,) for _, vector in found)
    assert bool(said) != bool(found)
