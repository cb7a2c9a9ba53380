"""What bad input by the thousand has found, each by itself."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
import torch
from safetensors.torch import load, save_file

from amfast.discriminator import load_discriminator
from amfast.errors import RunError, WeightsError
from amfast.experiments.laboratory import _kept
from amfast.generators import load_generator
from amfast.optimize.trials import plan_trials
from amfast.report.data import read_run
from amfast.runs import RunDirectory
from amfast.runs.embeddings_file import KIND, read_embeddings
from amfast.runs.lock import _holder
from amfast.runs.tensor_file import read_tensors, write_tensors
from amfast.runs.trial_file import read_trial, trial_path
from amfast.text import parse_json
from amfast.weights.download import _note, _unfinished
from amfast.weights.files import read_weights
from tests.fuzz.mutations import pickled
from tests.fuzz.runs import finished_run
from tests.fuzz.target import SPEC

DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def run(tmp_path):
    return finished_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NaN", "NaN is no number"),
        ('{"a": -Infinity}', "-Infinity is no number"),
        ("1e400", "1e400 is no number"),
        ('["\\ud800"]', "surrogates not allowed"),
        (DEEP, "nested too deeply"),
        ("9" * 5000, "4300 digits"),
        ("{", "Expecting property name"),
    ],
    ids=["NaN", "infinity", "large", "half", "deep", "long", "cut"],
)
def test_what_is_no_json(text, said):
    with pytest.raises(ValueError, match=said):
        parse_json(text)


def test_what_is_json():
    value = {"a": [1, 0.5, "é", None, True, {}], "b": 1e300}
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", [DEEP, "1.0", '{"notes": 1, "a": 2}', "{", '{"a": NaN}'])
def test_a_note_in_a_damaged_run_file(run, text):
    (run.path / "run.json").write_text(text)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        run.note("a note")


@pytest.mark.parametrize("best", ["1e400", '"x"', "[]"])
def test_a_best_trial_that_is_no_number(run, best):
    text = run.summary_path.read_text().replace('"best": 1', f'"best": {best}')
    run.summary_path.write_text(text)
    with pytest.raises(RunError, match=r"summary\.json is damaged"):
        run.best()


@pytest.mark.parametrize("file", ["run.json", "summary.json", "evaluation.json"])
def test_json_nested_without_end(run, file):
    (run.path / file).write_text('{"a": ' * 20_000 + "1" + "}" * 20_000)
    with pytest.raises(RunError, match=f"{file} is damaged"):
        read_run(run.path)


def test_a_lock_nested_without_end(tmp_path):
    (tmp_path / "lock").write_text(DEEP)
    assert _holder(tmp_path / "lock") == "another process"


def test_an_end_with_thousands_of_digits(run):
    trial = plan_trials((0,), 1, 7)[0]
    path = trial_path(run.path, trial.class_id, trial.index)
    tensors, metadata = read_tensors(path, "amfast-trial")
    write_tensors(path, "amfast-trial", tensors, {**metadata, "stopped_at": "1" * 5000})
    with pytest.raises(RunError, match="stopped_at is 111"):
        read_trial(path, trial, run.facts, run.config.method, run.config.steps)


@pytest.mark.parametrize("class_id", [-1, 7, 2**62])
def test_a_class_that_cannot_be(run, class_id):
    """One that has no name, or whose number would fill the memory with those before it."""
    tensors, metadata = read_tensors(run.embeddings_path, KIND)
    tensors["class_ids"][-1] = class_id
    names = json.dumps({0: "ring", 2: "heart"} | ({} if class_id == 7 else {class_id: "x"}))
    write_tensors(run.embeddings_path, KIND, tensors, {**metadata, "class_names": names})
    with pytest.raises(RunError, match=f"has a class {class_id}"):
        read_embeddings(run.embeddings_path, SPEC)


def test_class_ids_that_are_one_number(run):
    tensors, metadata = read_tensors(run.embeddings_path, KIND)
    tensors["class_ids"] = torch.tensor(0)
    write_tensors(run.embeddings_path, KIND, tensors, metadata)
    with pytest.raises(RunError, match="holds class_embeddings"):
        read_embeddings(run.embeddings_path, SPEC)


def test_a_measurement_without_its_evaluation(tmp_path):
    (tmp_path / "m.json").write_text('{"key": {"seed": 0}}')
    assert _kept(tmp_path / "m.json", {"seed": 0}) is None


@pytest.mark.parametrize("note", [{"version": 1, "total": 9}, {"version": "a", "total": "9"}])
def test_a_note_of_a_download_of_other_types(tmp_path, note):
    part = tmp_path / ".toy.pth.part"
    part.write_bytes(b"half")
    _note(part).write_text(json.dumps({"source": "http://here/toy", **note}))
    assert _unfinished(part, "http://here/toy") == (0, "", None)


def test_a_configuration_nested_without_end(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(WeightsError, match="nested too deeply"):
        load_generator("embedded", weights=tmp_path, device="cpu")


@pytest.mark.parametrize("embed", [False, True])
def test_a_discriminator_of_single_numbers(tmp_path, embed):
    path = tmp_path / "d.safetensors"
    one = torch.ones(())
    tensors = {"blocks.0.0.conv1.weight": torch.ones([1] if embed else []), "blocks.0.1.gamma": one}
    save_file({**tensors, "embed.weight": one.clone()}, path)
    with pytest.raises(WeightsError, match="not a BigGAN discriminator's"):
        load_discriminator("embedded", weights=path, device="cpu")


@pytest.mark.parametrize("tensors_alone", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_would_fill_the_memory(tmp_path, legacy, tensors_alone):
    """Of 2 ** 40 numbers that are all the same one: a file of a kilobyte, four terabytes."""
    path = tmp_path / "w.pth"
    path.write_bytes(pickled({"a": torch.ones(()).expand(2**40)}, legacy))
    assert path.stat().st_size < 5000
    with pytest.raises(WeightsError, match="holds no state_dict"):
        read_weights(path, tensors_alone=tensors_alone)


@pytest.mark.parametrize("tensors_alone", [False, True])
def test_an_archive_whose_directory_is_damaged(tmp_path, tensors_alone):
    """Its end is sound, so it counts as an archive, and what lists its files fails."""
    data = bytearray(pickled({"a": torch.ones(3)}, False))
    at = data.rindex(b"PK\x01\x02")
    for damage in (b"PK\x01\x03", None):
        bad = bytearray(data)
        if damage:
            bad[at : at + 4] = damage
        else:
            bad[at + 46] = 0xCF  # the first letter of a name that is said to be UTF-8
            bad[at + 9] |= 0x08
        path = tmp_path / "w.pth"
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match=r"w\.pth"):
            read_weights(path, tensors_alone=tensors_alone)


def test_a_zip_that_is_encrypted_or_misnamed(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("G.pth", pickled({"a": torch.ones(3)}, False))
    sound = buffer.getvalue()
    at = sound.rindex(b"PK\x01\x02")
    path = tmp_path / "w.zip"
    for flags, letter in ((0x01, b"G"), (0x0800, b"\xce")):
        bad = bytearray(sound)
        bad[at + 8 : at + 10] = flags.to_bytes(2, "little")
        bad[6:8] = flags.to_bytes(2, "little")
        bad[at + 46 : at + 47] = letter
        path.write_bytes(bad)
        with pytest.raises(WeightsError, match="truncated or damaged"):
            read_weights(path, member="G.pth")


def test_what_is_refused_is_what_is_wrong(run):
    """The files that these tests damage are read as they are."""
    assert read_run(run.path).evaluation is not None
    assert RunDirectory.open(run.path).best() == {0: 1, 2: 1}
    assert load(run.embeddings_path.read_bytes())["class_ids"].tolist() == [0, 0, 2, 2]
