from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from amfast.config import make_config
from amfast.errors import RunError
from amfast.optimize.trials import plan_trials
from amfast.runs import RunDirectory, RunFacts, numbered, read_embeddings

CREATE = """
import sys
from pathlib import Path
from amfast.runs import RunDirectory

example = RunDirectory.open(Path(sys.argv[1]))
config = example.config.model_copy(update={"seed": int(sys.argv[3])})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    print(RunDirectory.create(Path(sys.argv[2]), config, example.facts).path, flush=True)
"""


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_create_and_open(run, config, facts, tmp_path):
    assert run.path == tmp_path / "runs" / "0001-embedded-am-l-s7"
    assert names(run.path) == ["run.json", "trials"]
    assert RunDirectory.open(run.path) == run
    stored = json.loads((run.path / "run.json").read_text())
    assert stored.pop("created").startswith("2")
    assert stored == {
        "format": "amfast-run",
        "format_version": 1,
        "config": config.model_dump(mode="json"),
        "generator": {
            "name": "embedded",
            "fingerprint": "00aa",
            "resolution": 64,
            "embedding_dim": 5,
            "latent_dim": 12,
            "clip_range": [-0.9, 0.8],
        },
        "classifier": {"name": "shapes", "fingerprint": "11bb"},
        "class_names": {"0": "ring", "1": "star", "2": "heart"},
        "versions": facts.versions,
        "device": facts.device,
        "notes": [],
        "drift": [],
    }
    assert sorted(facts.versions) == ["amfast", "numpy", "python", "torch"]
    assert facts.device["type"] == "cpu"
    assert facts.device["dtype"] == "fp32"


def test_notes_stay_in_order_and_change_nothing_else(run, config, facts):
    before = json.loads((run.path / "run.json").read_text())
    run.note("the first")
    run.note("the second")
    after = json.loads((run.path / "run.json").read_text())
    assert after.pop("notes") == ["the first", "the second"]
    assert after == {key: value for key, value in before.items() if key != "notes"}
    assert RunDirectory.find(run.path, config, facts) == run


def test_a_gpu_is_named(generator, facts, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"GPU {device.index}")
    classifier = type("Spec", (), {"name": "shapes", "fingerprint": "11bb", "labels": ("ring",)})
    gathered = RunFacts.gather(generator, classifier, torch.device("cuda", 1), "bf16")
    assert gathered.device == {"type": "cuda", "name": "GPU 1", "dtype": "bf16"}


def test_numbers_follow_the_highest(run, config, facts):
    outdir = run.path.parent
    (outdir / "0041-by-hand").mkdir()
    (outdir / "notes.txt").write_text("")
    (outdir / ".0042.new").mkdir()  # left by a process killed while making it
    assert RunDirectory.create(outdir, config, facts).path.name == "0043-embedded-am-l-s7"
    (outdir / "9999-by-hand").mkdir()
    assert RunDirectory.create(outdir, config, facts).path.name == "10000-embedded-am-l-s7"


def test_number_taken_between_looking_and_claiming(run, config, facts, monkeypatch):

    look, looks = numbered.numbered, []

    def look_too_early(outdir: Path) -> list[tuple[int, Path]]:
        looks.append(outdir)
        return look(outdir) if len(looks) > 1 else []

    monkeypatch.setattr(numbered, "numbered", look_too_early)
    assert RunDirectory.create(run.path.parent, config, facts).path.name == "0002-embedded-am-l-s7"
    assert len(names(run.path.parent)) == 2


def test_two_processes_never_share_a_number(run, tmp_path, start_python):
    outdir = tmp_path / "shared"
    processes = [start_python(CREATE, run.path, outdir, seed) for seed in (1, 2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        print(file=process.stdin, flush=True)
    made = [
        Path(line) for process in processes for line in process.communicate(timeout=60)[0].split()
    ]
    assert sorted(path.name[:4] for path in made) == [f"{n:04d}" for n in range(1, 41)]
    assert names(outdir) == sorted(path.name for path in made)
    assert all(RunDirectory.open(path).config.seed in (1, 2) for path in made)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("BigGAN Deep_128", "biggan-deep-128"),
        ("../../etc/passwd", "passwd"),
        ("C:\\weights\\My G.pth", "my-g.pth"),
        ("weights/", "weights"),
        ("..", "generator"),
        ("/", "generator"),
        ("", "generator"),
        ("a\n\0\u202eb", "a-b"),
        ("x" * 500, "x" * 64),
    ],
)
def test_hostile_generator_names(tmp_path, config, facts, name, slug):
    hostile = dataclasses.replace(facts, generator={**facts.generator, "name": name})
    run = RunDirectory.create(tmp_path / "runs", config, hostile)
    assert names(tmp_path) == ["runs"]
    assert names(tmp_path / "runs") == [f"0001-{slug}-am-l-s7"]
    assert RunDirectory.open(run.path) == run


def test_outdir_is_a_file_or_below_one(tmp_path, config, facts):
    file = tmp_path / "file"
    file.write_text("kept")
    for outdir in (file, file / "deeper"):
        with pytest.raises(RunError, match="a file is in the way; choose another"):
            RunDirectory.create(outdir, config, facts)
        assert RunDirectory.find(outdir, config, facts) is None
    assert file.read_text() == "kept"


def test_outdir_is_read_only(read_only, config, facts):
    for outdir in (read_only, read_only / "deeper"):
        with pytest.raises(RunError, match="permission denied; choose another"):
            RunDirectory.create(outdir, config, facts)
    assert names(read_only) == []


def test_outdir_that_cannot_be_looked_into(unreadable, config, facts):
    with pytest.raises(RunError, match=f"cannot read {unreadable}: permission denied"):
        RunDirectory.find(unreadable, config, facts)
    with pytest.raises(RunError, match=f"cannot read {unreadable}: permission denied"):
        RunDirectory.is_run(unreadable)


def test_outdir_is_full(tmp_path, config, facts, disk_full):
    with disk_full(), pytest.raises(RunError, match=r"cannot write .*run\.json: file too large"):
        RunDirectory.create(tmp_path, config, facts)
    assert names(tmp_path) == []


def test_find_takes_the_newest_of_the_same_configuration(run, config, facts):
    outdir = run.path.parent
    same = RunDirectory.create(outdir, config, facts)
    other = make_config(**{**config.model_dump(), "seed": 8})
    RunDirectory.create(outdir, other, facts)
    damaged = RunDirectory.create(outdir, config, facts)
    (damaged.path / "run.json").write_text("{")
    (outdir / "0009-empty").mkdir()
    (outdir / "0010-file").write_text("")
    assert RunDirectory.find(outdir, config, facts) == same
    shutil.rmtree(same.path)
    assert RunDirectory.find(outdir, config, facts) == run
    assert RunDirectory.find(run.path, config, facts) == run


def test_find_nothing(tmp_path, run, config, facts):
    assert RunDirectory.find(tmp_path / "missing", config, facts) is None
    other = make_config(**{**config.model_dump(), "lr": 0.2})
    assert RunDirectory.find(run.path.parent, other, facts) is None


def test_find_names_each_difference(run, config, facts):
    other_config = make_config(**{**config.model_dump(), "lr": 0.2, "classes": (0, 1)})
    other_facts = dataclasses.replace(
        facts,
        generator={**facts.generator, "fingerprint": "ffff"},
        versions={**facts.versions, "torch": "1.0"},
        device={**facts.device, "type": "cuda"},
    )
    with pytest.raises(RunError) as caught:
        RunDirectory.find(run.path, other_config, other_facts)
    assert str(caught.value).split("; ") == [
        f"{run.path} is another run: classes: (0, 2) in the run, (0, 1) asked for",
        "lr: 0.1 in the run, 0.2 asked for",
        "generator.fingerprint: 00aa in the run, ffff asked for",
        f"versions.torch: {facts.versions['torch']} in the run, 1.0 asked for",
        "device.type: cpu in the run, cuda asked for",
    ]


def test_drift_is_recorded_and_the_run_is_then_the_new_one(run, config, facts, make_result):
    run.write(make_result(0, 0))
    run.note("before")
    before = json.loads((run.path / "run.json").read_text())
    more = make_config(
        **{**config.model_dump(), "trials": 3, "classes": (0, 1, 2), "dtype": "fp16"}
    )
    moved = dataclasses.replace(
        facts,
        versions={**facts.versions, "torch": "3.0"},
        device={"type": "cuda", "name": "GPU", "dtype": "fp16"},
    )
    with pytest.raises(RunError, match="is another run: .*; --allow-drift goes on with it all the"):
        RunDirectory.find(run.path, more, moved)
    (run.path / "under-way.safetensors").write_bytes(b"of another precision")
    assert RunDirectory.find(run.path, more, moved, allow_drift=True) == run
    drifted, changed = run.drifted(more, moved)
    assert drifted == RunDirectory.open(run.path) == RunDirectory.find(run.path, more, moved)
    assert not drifted.state_path().exists()
    assert len(drifted.finished(plan_trials(more.classes, more.trials, more.seed))[0]) == 1
    stored = json.loads((run.path / "run.json").read_text())
    (entry,) = stored["drift"]
    assert entry["at"].startswith("2")
    assert {change["field"]: (change["was"], change["now"]) for change in entry["changes"]} == {
        "classes": ([0, 2], [0, 1, 2]),
        "trials": (2, 3),
        "dtype": ("auto", "fp16"),
        "versions.torch": (facts.versions["torch"], "3.0"),
        "device.type": ("cpu", "cuda"),
        "device.name": (facts.device["name"], "GPU"),
        "device.dtype": ("fp32", "fp16"),
    }
    assert len(changed) == len(entry["changes"])
    same = ("created", "notes", "generator", "classifier", "class_names", "format")
    assert {key: stored[key] for key in same} == {key: before[key] for key in same}
    assert drifted.drifted(more, moved) == (drifted, [])  # nothing new to record
    back, _ = drifted.drifted(more, facts)
    assert len(json.loads((back.path / "run.json").read_text())["drift"]) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("method", "am-s"), ("init", "own"), ("steps", 4), ("latents", 4), ("lr", 0.2)),
        *(("seed", 8), ("steps_per_latents", 2), ("stop", "plateau"), ("truncation", 0.5)),
        *(("noise_layer", True), ("trials", 1), ("classes", (0,)), ("classes", (0, 1))),
        *(("generator", "biggan-256"), ("classifier", "alexnet"), ("profile", "biggan-am")),
        *(("generator.fingerprint", "ffff"), ("generator.embedding_dim", 6)),
        ("classifier.fingerprint", "ffff"),
    ],
)
def test_what_never_drifts(run, config, facts, field, value):
    part, _, key = field.partition(".")
    if key:
        facts = dataclasses.replace(facts, **{part: {**getattr(facts, part), key: value}})
    else:
        config = make_config(**{**config.model_dump(), field: value})
    before = (run.path / "run.json").read_bytes()
    for refused in (
        lambda: RunDirectory.find(run.path, config, facts, allow_drift=True),
        lambda: run.drifted(config, facts),
    ):
        with pytest.raises(RunError, match=f"--allow-drift cannot help with .*{field}"):
            refused()
    assert (run.path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"), [("class_names", {}), ("embedding_dim", 6), ("clip_range", [-1, 1])]
)
def test_find_sees_edited_facts(run, config, facts, key, value):
    assert RunDirectory.find(run.path, config, facts) == run
    stored = json.loads((run.path / "run.json").read_text())
    (stored if key in stored else stored["generator"])[key] = value
    (run.path / "run.json").write_text(json.dumps(stored))
    with pytest.raises(RunError, match=f"is another run: (generator.)?{key.replace('_', '.')}: "):
        RunDirectory.find(run.path, config, facts)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file: Invalid JSON"),
        ("\xff", "the file: Invalid JSON"),
        ("[]", "the file: Input should be an object"),
        ('{"format": "amfast-run"}', "config: Field required"),
        ('{"format": "amfast-run", "format_version": 2}', "format_version: Input should be 1"),
    ],
)
def test_damaged_run_json(run, config, facts, text, problem):
    (run.path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=rf"run\.json is damaged or of another version.* {problem}"):
        RunDirectory.find(run.path, config, facts)


def test_open_what_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"cannot read .*run\.json: no such file"):
        RunDirectory.open(tmp_path)


def test_finished_counts_what_is_whole(run, config, make_result):
    trials = plan_trials(config.classes, config.trials, config.seed)
    assert run.finished(trials) == ({}, [])
    for result in (make_result(0, 0), make_result(0, 1, 2), make_result(2, 0)):
        run.write(result)
    damaged = run.path / "trials" / "0002-00.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    results, unusable = run.finished(trials)
    assert [trial.index for trial in results] == [0, 1]
    assert [result.failed for result in results.values()] == [False, True]
    assert unusable == [damaged]
    assert len(run.finished(trials[:1])[0]) == 1


def test_collect(run, config, generator, make_result):
    trials = plan_trials(config.classes, config.trials, config.seed)
    for trial in reversed(trials):
        run.write(make_result(trial.class_id, trial.index, 0 if trial == trials[1] else None))
    path = run.collect(reversed(trials))
    assert path == run.embeddings_path
    read = read_embeddings(path, generator)
    assert read.class_ids.tolist() == [0, 2, 2]
    assert read.trial_ids.tolist() == [0, 0, 1]
    first = path.read_bytes()
    run.collect(trials)
    assert path.read_bytes() == first


def test_collect_needs_every_trial(run, config, make_result):
    trials = plan_trials(config.classes, config.trials, config.seed)
    run.write(make_result(0, 0))
    with pytest.raises(RunError, match=r"cannot read .*0000-01\.safetensors"):
        run.collect(trials)
    assert not run.embeddings_path.exists()


def test_full_disk_under_a_trial(run, config, make_result, disk_full):
    with disk_full(), pytest.raises(RunError, match="cannot write"):
        run.write(make_result())
    assert names(run.path / "trials") == []


def test_lock_summary_and_paths(run):
    with run.lock(), pytest.raises(RunError, match="in use by process"), run.lock():
        pass
    assert run.write_summary({"trials": 4}) == run.summary_path
    assert json.loads(run.summary_path.read_text()) == {"trials": 4}
    assert run.summary_path == run.path / "summary.json"
    assert run.picture_path == run.path / "comparison.png"
