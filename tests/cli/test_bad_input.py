"""What bad input gets: a sentence, the right exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amfast.embedded import EMBEDDED
from tests.command import (
    SMALL,
    amfast,
    assert_refused,
    contents,
    listing,
    start_amfast,
    wait_for,
)


class Case(NamedTuple):
    arguments: str
    code: int
    said: tuple[str, ...]


def run(options: str, *said: str, code: int = 2) -> Case:
    return Case(f"run --trials 1 --steps 2 --latents 2 {options}", code, said)


#: Each run as a process of its own.
CASES = {
    "unknown class": run("--classes traingle", "unknown class 'traingle'", "mean triangle"),
    "empty selection": run("--classes ,", "no class was selected", "such as 0-3"),
    "reversed range": run("--classes 7-3", "class range '7-3' is reversed: write 3-7"),
    "class file missing": run("--classes @none.txt", "cannot read the class file none.txt", "No "),
    "class file junk": run("--classes @junk.txt", "unknown class", "junk.txt, line 2", r"\\x1b"),
    "class file path": run("--classes @path.txt", r"class '\.\./\.\./x' \(path.txt, line 3\)"),
    "class file binary": run("--classes @binary", "class file binary is not text in UTF-8"),
    "class file large": run("--classes @large", "class file large is larger than 1 MiB"),
    "trials 0": run("--trials 0", "trials: .*greater than or equal to 1", "given: 0"),
    "steps 0": run("--steps 0", "steps: ", "given: 0"),
    "steps -5": run("--steps -5", "steps: ", "given: -5"),
    "stop": run("--stop plato", "stop: 'plato' is no stopping rule: use none, plateau, or prob=P"),
    "stop beyond one": run("--stop prob=95", "prob=95.*P in .0, 1., such as prob=0.95"),
    "compile": run("--compile maybe", "compile: .*'auto', 'on' or 'off'", "given: 'maybe'"),
    "latents 0": run("--latents 0", "latents: ", "given: 0"),
    "steps per latents 0": run("--steps-per-latents 0", "steps-per-latents: ", "given: 0"),
    "batch 0": run("--batch-embeddings 0", "batch-embeddings: ", "given: 0"),
    "microbatch 0": run("--microbatch 0", "microbatch: ", "given: 0"),
    "cuda": run("--device cuda", "device 'cuda' does not exist", "no CUDA device", "--device auto"),
    "cuda:7": run("--device cuda:7", "device 'cuda:7' does not exist", "--device auto or cpu"),
    "device junk": run("--device toaster", "unknown device 'toaster': use auto, cpu, cuda"),
    "weights missing": run("--weights none.st", "cannot read weights from none.st", code=1),
    "weights junk": run("--weights junk.txt", "cannot read weights from junk.txt", code=1),
    "weights lack keys": run(
        "--weights lacking.st", "missing: linear.bias, output_layer.2.weight", code=1
    ),
    "weights of another kind": run("--weights other.st", "not a BigGAN", "missing", code=1),
    "output is a file": run("--outdir taken", "run directory in taken: a file is in", code=1),
    "sample count 0": Case("sample --count 0", 2, ("count: ", "given: 0")),
    "sample wrong file": Case("sample other.st", 1, ("other.st holds", "amfast-embeddings")),
}

#: More of the same kinds, run within this process, where there is no torch to load.
VARIANTS = {
    "nothing near": run("--classes 0,qqqq", "unknown class 'qqqq'", "'amfast classes' lists"),
    "id too large": run("--classes 12", "class 12 does not exist: ids run from 0 to 11"),
    "range too large": run("--classes 3-99", "class 99 does not exist: ids run from 0 to 11"),
    "preset": run("--classes imagenet-50", "class 24 does not exist", "preset imagenet-50"),
    "empty range": run("--classes 3-", "unknown class '3-'"),
    "class file a folder": run("--classes @folder", "cannot read the class file folder", "direct"),
    "class file empty": run("--classes @comment.txt", "no class was selected"),
    "trials -1": run("--trials -1", "trials: ", "given: -1"),
    "several counts": run("--latents -2 --microbatch -1", "latents: .*-2.*; microbatch: .*-1"),
    "steps beyond counting": run("--steps 9223372036854775808", "steps: .*1000000"),
    "latents beyond counting": run("--latents 4611686018427387904", "latents: .*1000000"),
    "trials without end": run("--trials 1000000000000", "trials: .*10000"),
    "lr 0": run("--lr 0", "lr: .*greater than 0"),
    "lr nan": run("--lr nan", "lr: "),
    "seed -1": run("--seed -1", "seed: ", "given: -1"),
    "method": run("--method am-x", r"method: .*'am-d-s' or 'am-d-l' \(given: 'am-x'\)$"),
    "class file with a null": run("--classes @a\0b", "cannot read the class file"),
    "am-s for a new class": run(
        "--method am-s --classifier embedded-unseen --classes 1", "has no class dome", "use am-l"
    ),
    "device meta": run("--device meta", "unknown device 'meta'"),
    "dtype": run("--dtype fp8", "dtype: ", "'fp32'", "given: 'fp8'"),
    "generator": run("--generator stylegan", "unknown generator 'stylegan'", "embedded"),
    "classifier": run("--classifier vgg", "unknown classifier 'vgg'", "embedded-unseen"),
    "weights a folder": run("--weights folder", "folder holds no model.safetensors", code=1),
    "output below a file": run("--outdir taken/a/b", "a file is in the way", code=1),
    "resume a file": run("--resume --outdir taken", "a file is in the way", code=1),
    "sample class": Case("sample --classes strar", 2, ("unknown class 'strar'", "star")),
    "sample no such file": Case("sample none.st", 1, ("cannot read none.st",)),
    "sample junk": Case("sample junk.txt", 1, ("junk.txt is truncated or damaged",)),
    "sample empty folder": Case("sample folder", 1, ("cannot read folder/embeddings",)),
    "sample out is a folder": Case(
        "sample --classes 0 --count 1 --out folder", 1, ("cannot write folder",)
    ),
    "sample out is no name": Case(
        "sample --classes 0 --count 1 --out .", 1, ("cannot write '.': it names a directory",)
    ),
    "sample out in nowhere": Case(
        "sample --classes 0 --count 1 --out no/where.png", 1, ("cannot write no/where.png",)
    ),
}


def furnish(folder: Path) -> None:
    """The files that the cases name."""
    (folder / "folder").mkdir()
    (folder / "taken").write_text("a file")
    (folder / "junk.txt").write_text("star\n\x1b[31mred\n")
    (folder / "path.txt").write_text("# classes\nring\n../../x\n")
    (folder / "comment.txt").write_text("# nothing\n\n , \n")
    (folder / "binary").write_bytes(b"\xff\xfe\x00star")
    (folder / "large").write_bytes(b"star\n" * 210_000)
    state = load_file(EMBEDDED / "generator.safetensors")
    save_file({"weight": state["linear.bias"]}, folder / "other.st")
    del state["linear.bias"], state["output_layer.2.weight"]
    save_file(state, folder / "lacking.st")


class Tried(NamedTuple):
    done: subprocess.CompletedProcess[str]
    before: list[str]
    after: list[str]


@pytest.fixture(scope="module", autouse=True)
def tried(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Tried]]]:
    """The selected cases, two at a time, while the tests before ``test_refused`` run.

    Loading torch is most of a command's time.
    """

    def attempt(case: Case, folder: Path) -> Tried:
        before = listing(folder)
        done = amfast(*case.arguments.split(), cwd=folder)
        return Tried(done, before, listing(folder))

    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = [call.params["case"] for call in calls if call and "case" in call.params]
    template = tmp_path_factory.mktemp("template")
    furnish(template)
    with ThreadPoolExecutor(2) as pool:
        futures = {}
        for name in names:
            folder = tmp_path_factory.mktemp("case") / "here"
            shutil.copytree(template, folder, copy_function=os.link)
            futures[name] = pool.submit(attempt, CASES[name], folder)
        yield futures
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_refused(variant, tmp_path, invoke):
    furnish(tmp_path)
    before = listing(tmp_path)
    arguments, code, said = VARIANTS[variant]
    assert_refused(invoke(*arguments.split()), code, *said)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [("run --steps many", "'--steps'"), ("run --stepz 3", "--stepz"), ("sing", "'sing'")],
)
def test_what_cannot_be_parsed(arguments, named, invoke):
    answer = invoke(*arguments.split())
    assert answer.returncode == 2
    assert named in answer.stderr
    assert answer.stdout == "" and "Traceback" not in answer.stderr


def test_batch_larger_than_the_trials(tmp_path):
    done = amfast(*SMALL, "--classes", "star", "--batch-embeddings", "64", cwd=tmp_path)
    assert done.returncode == 0
    assert "a batch holds 64 embeddings and there are 2 trials: one batch" in done.stderr
    (run_dir,) = (tmp_path / "runs").iterdir()
    assert len(list(run_dir.glob("trials/*.safetensors"))) == 2
    assert str(run_dir.relative_to(tmp_path) / "embeddings.safetensors") in done.stdout


def test_resuming_another_configuration(tmp_path, finished, other_weights):
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    before = listing(tmp_path)
    options = ("--resume", "--outdir", run_dir, "--steps", "7", "--seed", "3")
    done = amfast(*SMALL, *options, "--weights", other_weights, cwd=tmp_path)
    assert_refused(
        done,
        1,
        "run is another run: ",
        "steps: 6 in the run, 7 asked for",
        "seed: 0 in the run, 3 asked for",
        "generator.fingerprint: [0-9a-f]{16} in the run, [0-9a-f]{16} asked for",
    )
    assert "latents: " not in done.stderr  # only what differs
    assert listing(tmp_path) == before
    assert contents(run_dir) == contents(finished.run_dir)


def test_damaged_run_file(tmp_path, finished, invoke):
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    (run_dir / "run.json").write_text('{"format": "amfast-run", ')
    before = listing(tmp_path)
    assert_refused(invoke(*SMALL, "--resume", "--outdir", run_dir), 1, "run.json is damaged")
    assert listing(tmp_path) == before


def test_truncated_trial_file(tmp_path, finished):
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    half, empty, flipped, sound = sorted((run_dir / "trials").iterdir())[:4]
    whole = half.read_bytes()
    half.write_bytes(whole[: len(whole) // 2])
    empty.write_bytes(b"")
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"\x7f")
    age = sound.stat().st_mtime_ns
    done = amfast(*SMALL, "--resume", "--outdir", run_dir, cwd=tmp_path)
    assert done.returncode == 0
    for path in (half, empty, flipped):
        assert f"amfast: {path} is damaged and will be done again\n" in done.stderr
    assert done.stderr.count("is damaged") == 3
    assert "3 of 6 trials are finished already" in done.stderr
    assert contents(run_dir) == contents(finished.run_dir)
    assert listing(run_dir) == listing(finished.run_dir)
    assert sound.stat().st_mtime_ns == age


def test_second_process_on_a_run_directory(tmp_path, finished):
    with start_amfast(*SMALL, "--quiet", cwd=tmp_path) as first:
        wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob("runs/0*/lock")))
        first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second asks
        try:
            (run_dir,) = (tmp_path / "runs").iterdir()
            before = listing(tmp_path)
            second = amfast(*SMALL, "--resume", "--outdir", run_dir, cwd=tmp_path)
            assert listing(tmp_path) == before
        finally:
            first.send_signal(signal.SIGCONT)
        assert first.communicate(timeout=300) == ("", "")
    assert first.returncode == 0
    assert_refused(second, 1, f"in use by process {first.pid} on {socket.gethostname()} since ")
    assert contents(run_dir) == contents(finished.run_dir)
    assert listing(run_dir) == listing(finished.run_dir)


def strict_json(text: str) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_trial_that_is_not_finite(tmp_path, other_weights, invoke):
    options = ("--weights", other_weights, "--method", "am-s", "--trials", "1")
    together = ("--batch-embeddings", "3", *options)
    done = amfast(*SMALL, *together, "--json", "--outdir", "all", cwd=tmp_path)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last == "amfast: 1 of 3 trials failed (not finite): square 0 at step 0"
    assert "Traceback" not in done.stderr

    report = strict_json(done.stdout)
    assert (report["trials"], report["failed"]) == (3, 1)
    run_dir = tmp_path / report["run_dir"]
    summary = strict_json((run_dir / "summary.json").read_text())
    disk, square, triangle = summary["classes"]
    assert square["trials"] == [{"trial": 0, "failed_at": 0, "stopped_at": None, "score": None}]
    assert square["best"] is None and square["original"] is None
    for sound in (disk, triangle):
        assert sound["best"] == 0 and sound["trials"][0]["score"]["images"] > 0

    with safe_open(run_dir / "trials/0001-00.safetensors", framework="pt") as file:
        assert file.metadata()["failed_at"] == "0"
        embedding = file.get_tensor("embedding")
        assert embedding.isfinite().all() and embedding.equal(file.get_tensor("start"))
        assert file.get_tensor("history").isnan().all()
    gathered = load_file(run_dir / "embeddings.safetensors")
    assert gathered["class_ids"].tolist() == [0, 2]

    without = amfast(
        *SMALL, *together, "--classes", "0,2", "--quiet", "--outdir", "two", cwd=tmp_path
    )
    assert (without.returncode, without.stdout, without.stderr) == (0, "", "")
    (other,) = (tmp_path / "two").iterdir()
    for name in ("trials/0000-00.safetensors", "trials/0002-00.safetensors"):
        assert (run_dir / name).read_bytes() == (other / name).read_bytes()

    # Nothing is left to do, and the failure is still said.
    again = invoke(*SMALL, *together, "--resume", "--quiet", "--outdir", run_dir)
    assert_refused(again, 3, "1 of 3 trials failed")


def test_every_trial_not_finite(tmp_path, other_weights, invoke):
    options = ("--weights", other_weights, "--method", "am-s", "--classes", "square")
    done = invoke(*SMALL, *options, "--json")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr and "2 of 2 trials failed" in done.stderr
    report = strict_json(done.stdout)
    assert report["classes"][0]["best"] is None
    assert len(load_file(tmp_path / report["embeddings"])["class_ids"]) == 0


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, tried: dict[str, Future[Tried]]) -> None:
    result = tried[case].result()
    assert_refused(result.done, CASES[case].code, *CASES[case].said)
    assert result.after == result.before
