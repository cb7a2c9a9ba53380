"""The commands that let embeddings out and in, on a run that the command itself has made."""

from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.command import SMALL, amfast, assert_refused, listing


def test_out_in_sample_and_no_resume(tmp_path, finished, invoke):
    done = amfast("export", finished.run_dir, "--format", "npy", "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "wrote out: 3 embeddings of generator embedded (fingerprint " in done.stderr
    files = sorted((tmp_path / "out").glob("*.npy"))
    assert [path.name[:4] for path in files] == ["000_", "001_", "002_"]
    best = {c["class_id"]: c["best"] for c in finished.report["classes"]}

    brought = invoke("import", *files, "--json")
    assert brought.returncode == 0
    report = json.loads(brought.stdout)
    assert report["run_dir"] == "runs/0001-embedded-imported"
    assert invoke("sample", report["run_dir"], "--count", "1").returncode == 0
    assert Image.open("sample.png").height > 3 * 64

    again = invoke("export", finished.run_dir, "--format", "safetensors", "--json")
    trials = json.loads(again.stdout)["trials"]
    assert {trial["class_id"]: trial["trial"] for trial in trials} == best

    resumed = invoke(*SMALL, "--resume", "--outdir", report["run_dir"])
    assert_refused(resumed, 1, "imported embeddings: no trial was optimised in it")
    before = listing(tmp_path)
    plain = invoke(*SMALL, "--outdir", report["run_dir"])
    assert_refused(plain, 1, "is a run directory")
    assert listing(tmp_path) == before


def test_a_folder_with_imports_in_it_takes_runs(tmp_path, finished, invoke):
    np.save(tmp_path / "001_square.npy", np.zeros(128, np.float32))
    said = invoke("import", "001_square.npy", "--outdir", "mixed")
    assert said.stderr == "wrote mixed/0001-embedded-imported: 1 embeddings of 1 files\n"
    run = invoke("run", "--classes", "0", "--trials", "1", "--steps", "1", "--latents", "2",
                 "--resume", "--outdir", "mixed", "--json", "--device", "cpu")  # fmt: skip
    assert run.returncode == 0
    assert json.loads(run.stdout)["run_dir"] == "mixed/0002-embedded-am-l-s0"


def test_refusals(tmp_path, finished, invoke):
    np.save(tmp_path / "001_square.npy", np.zeros(64, np.float32))
    save_file({"<qqqq>": torch.zeros(128)}, tmp_path / "learned_embeds.safetensors")
    before = listing(tmp_path)
    run = finished.run_dir
    for arguments, code, said in (
        (("import", "001_square.npy"), 1, r"001_square.npy is \[64\]; embeddings of"),
        (("import", "learned_embeds.safetensors"), 1, "unknown class, 'qqqq': 'amfast classes'"),
        (("import", "none.npy"), 1, "cannot read none.npy: no such file"),
        (("import", "001_square.npy", "--generator", "vqgan"), 2, "unknown generator 'vqgan'"),
        (("import", "001_square.npy", "--classifier", "vgg"), 2, "unknown classifier 'vgg'"),
        (("export", run, "--format", "onnx"), 2, "format is 'onnx': it may be safetensors, npy"),
        (("export", run, "--format", "npy", "--trials", "some"), 2, "it may be best, all"),
        (("export", "none", "--format", "npy"), 1, "cannot read none/run.json"),
        (("export", run, "--format", "pytorch-pretrained-biggan"), 1, "biggan-pytorch"),
    ):
        assert_refused(invoke(*arguments), code, said)
    assert listing(tmp_path) == before
