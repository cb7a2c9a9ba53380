"""What goes out is what the run found, and the programs it is for make the same images of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_pretrained_biggan import BigGAN

import amfast
from amfast.errors import RunError, UsageError, WeightsError
from amfast.exchange.models import deep_config
from amfast.generators import load_generator
from amfast.generators.architectures import random_deep
from amfast.generators.biggan import infer_config, load_reference
from amfast.generators.sources import read_generator
from amfast.runs import read_embeddings
from tests.command import listing
from tests.exchange.conftest import BEST, DEEP, LABELS, WIDTH, embedding, show, write
from tests.generators.conftest import DEEP_CONFIGS

CLASSES = sorted(BEST)


def test_safetensors_best_and_all(make_run, biggan_weights, tmp_path):
    run = make_run(biggan_weights)
    spec = load_generator("embedded", weights=biggan_weights, device="cpu").spec
    best = amfast.export_run(run.path, "safetensors", out=tmp_path / "best.safetensors")
    file = read_embeddings(best.path, spec)
    assert file.rows() == [(i, BEST[i]) for i in CLASSES]
    for row, class_id in enumerate(CLASSES):
        assert torch.equal(file.embeddings[row], embedding(run, class_id, BEST[class_id]))
    assert file.class_names == {i: LABELS[i] for i in CLASSES}
    assert file.method == "am-l"
    everything = amfast.export_run(run.path, "safetensors", trials="all", out=tmp_path / "all.st")
    assert everything.path.read_bytes() == run.embeddings_path.read_bytes()
    assert [t["trial"] for t in everything.trials] == [0, 1, 0, 1]
    assert everything.generator_fingerprint == spec.fingerprint


@pytest.mark.parametrize("trials", ["best", "all"])
def test_npy(make_run, biggan_weights, tmp_path, trials):
    run = make_run(biggan_weights)
    exported = amfast.export_run(run.path, "npy", trials=trials, out=tmp_path / "out")
    names = [f"{i:03d}_{LABELS[i]}.npy" for i in CLASSES]
    assert listing(tmp_path / "out") == [*names, "amfast.json"]
    assert json.loads((tmp_path / "out" / "amfast.json").read_text()) == exported.manifest()
    for trial in exported.trials:
        array = np.load(tmp_path / "out" / trial["file"])
        assert array.dtype == np.float32 and array.shape[1] == 128
        assert len(array) == (1 if trials == "best" else 2)
        expected = embedding(run, trial["class_id"], trial["trial"])
        assert torch.equal(torch.from_numpy(array[trial["index"]]), expected)
    if trials == "best":  # what biggan-am's own script makes of a file: one row for each of 16 z
        assert torch.tensor(array).repeat(16, 1).shape == (16, 128)


@pytest.mark.parametrize("truncation", [0.4, 1.0])
@pytest.mark.parametrize("trials", ["best", "all"])
def test_pytorch_pretrained_biggan_makes_the_same_images(
    make_run, deep_weights, tmp_path, trials, truncation
):
    run = make_run(deep_weights)
    exported = amfast.export_run(
        run.path, "pytorch-pretrained-biggan", trials=trials, out=tmp_path / "model"
    )
    assert listing(exported.path) == ["amfast.json", "config.json", "pytorch_model.bin"]
    theirs = BigGAN.from_pretrained(str(exported.path)).eval()
    ours = load_generator("embedded", weights=deep_weights, device="cpu", truncation=truncation)
    z = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    classes = theirs.config.num_classes
    assert classes == (len(LABELS) if trials == "best" else len(LABELS) + 4)
    assert len({t["row"] for t in exported.trials}) == len(exported.trials)

    def images(row):
        label = torch.nn.functional.one_hot(torch.tensor([row] * 3), classes).float()
        with torch.no_grad():
            return theirs(truncation * z, label, truncation)

    for trial in exported.trials:
        expected = show(ours, embedding(run, trial["class_id"], trial["trial"]), z)
        torch.testing.assert_close(images(trial["row"]), expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.01
        if trials == "best":
            assert trial["row"] == trial["class_id"]
    kept = 1  # a class that the run left alone
    torch.testing.assert_close(
        images(kept), show(ours, ours.class_embeddings[kept], z), rtol=0, atol=1e-5
    )


def test_the_config_is_of_the_weights(make_run, tmp_path):
    model = random_deep(DEEP)
    config = deep_config(model.state_dict(), 1e-4)
    assert config["layers"][:3] == [[False, 16, 16], [True, 16, 8], [False, 8, 8]]
    assert config["attention_layer_position"] == 6
    run = make_run(write(tmp_path / "eps.safetensors", model, norm_eps="0.01"))
    first = amfast.export_run(run.path, "pytorch-pretrained-biggan", out=tmp_path / "model")
    stored = json.loads((first.path / "config.json").read_text())
    assert stored == {**config, "eps": 0.01}

    assert read_generator(first.path)[1]["norm_eps"] == "0.01"
    assert "norm_eps" not in read_generator(first.path / "pytorch_model.bin")[1]
    theirs = BigGAN.from_pretrained(str(first.path)).eval()
    z = torch.ones(1, WIDTH)
    with torch.no_grad():
        images = theirs(z, torch.eye(len(LABELS))[:1], 1.0)
    for eps, same in (("0.01", True), ("0.0001", False)):
        path = write(tmp_path / f"{eps}.safetensors", model, norm_eps=eps)
        ours = load_generator("embedded", weights=path, device="cpu")
        expected = show(ours, embedding(run, 0, BEST[0]), z)
        assert torch.allclose(images, expected, rtol=0, atol=1e-5) == same

    for text in ("{", "[]", '{"eps": null}'):
        (first.path / "config.json").write_text(text)
        with pytest.raises(WeightsError, match=r"config.json cannot be read"):
            read_generator(first.path)


@pytest.mark.parametrize("trials", ["best", "all"])
def test_biggan_pytorch_loads_again(make_run, biggan_weights, tmp_path, trials):
    run = make_run(biggan_weights)
    exported = amfast.export_run(
        run.path, "biggan-pytorch", trials=trials, out=tmp_path / "G_ema.pth"
    )
    manifest = json.loads((tmp_path / "G_ema.pth.json").read_text())
    assert manifest == exported.manifest()
    state = torch.load(exported.path, weights_only=True)
    model = load_reference(state, infer_config(state))
    ours = load_generator("embedded", weights=biggan_weights, device="cpu")
    z = torch.randn(2, model.config.latent_dim, generator=torch.Generator().manual_seed(0))
    for trial in exported.trials:
        row = model.shared.weight[trial["row"]].expand(2, -1)
        found = embedding(run, trial["class_id"], trial["trial"])
        assert torch.equal(row[0], found)
        torch.testing.assert_close(model(row, z), show(ours, found, z), rtol=0, atol=1e-5)
    rows = [trial["row"] for trial in exported.trials]
    count = len(LABELS)
    assert rows == ([0, 2] if trials == "best" else [count, count + 1, count + 2, count + 3])
    untouched = [i for i in range(count) if i not in rows]
    assert torch.equal(model.shared.weight[untouched], ours.class_embeddings[untouched])


def test_default_names(make_run, biggan_weights, tmp_path, monkeypatch):
    run = make_run(biggan_weights)
    monkeypatch.chdir(tmp_path)
    for format in ("safetensors", "npy", "biggan-pytorch"):
        amfast.export_run(run.path, format)
    stem = run.path.name
    assert [name for name in listing(tmp_path) if name.startswith(stem) and "/" not in name] == [
        f"{stem}-npy",
        f"{stem}.pth",
        f"{stem}.pth.json",
        f"{stem}.safetensors",
    ]


def test_weights_of_another_generator_are_named(make_run, biggan_weights, tmp_path):
    run = make_run(biggan_weights)
    before = listing(tmp_path)
    with pytest.raises(RunError) as caught:
        amfast.export_run(
            run.path,
            "biggan-pytorch",
            weights=Path(amfast.__file__).parent / "embedded" / "generator.safetensors",
            out=tmp_path / "out.pth",
        )
    prints = [
        load_generator("embedded", weights=path, device="cpu").spec.fingerprint
        for path in (biggan_weights, None)
    ]
    assert f"generator biggan (fingerprint {prints[0]})" in str(caught.value)
    assert f"is generator (fingerprint {prints[1]})" in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"format": "onnx"}, UsageError, "format is 'onnx': it may be safetensors, npy, py"),
        ({"trials": "worst"}, UsageError, "trials is 'worst': it may be best, all"),
        ({"format": "npy", "weights": "x"}, UsageError, "npy takes no weights"),
        ({"weights": "none.pth"}, WeightsError, "cannot read weights from none.pth"),
        ({"format": "pytorch-pretrained-biggan"}, RunError, "goes out with --format biggan-py"),
        ({"run": "none"}, RunError, "cannot read none/run.json: no such file"),
        ({"out": "there"}, RunError, "there exists already: choose another name"),
        ({"out": "."}, RunError, "cannot write '.': give it a name"),
        ({"out": "no/where.pth"}, RunError, "cannot write no/where.pth.json: no such file"),
        ({"format": "npy", "out": "no/where"}, RunError, "cannot write no/where: no such file"),
    ],
)
def test_refused_without_a_trace(
    make_run, biggan_weights, tmp_path, monkeypatch, options, error, said
):
    run = make_run(biggan_weights)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("kept")
    before = listing(tmp_path)
    arguments = {"run": run.path, "format": "biggan-pytorch", "out": "out.pth", **options}
    with pytest.raises(error, match=said):
        amfast.export_run(**arguments)
    assert listing(tmp_path) == before
    assert (tmp_path / "there").read_text() == "kept"


def test_a_full_disk_leaves_nothing(make_run, biggan_weights, tmp_path, monkeypatch):
    run = make_run(biggan_weights)
    before = listing(tmp_path)
    from amfast.exchange import export

    write_bytes, written = export.write_bytes, []

    def fill_up(path: Path, data: bytes) -> None:
        if written:
            raise RunError(f"cannot write {path}: no space left on device")
        written.append(path)
        write_bytes(path, data)

    monkeypatch.setattr(export, "write_bytes", fill_up)
    with pytest.raises(RunError, match="no space left"):
        amfast.export_run(run.path, "biggan-pytorch", out=tmp_path / "x.pth")
    assert written and listing(tmp_path) == before


def test_a_run_that_is_not_finished(make_run, biggan_weights, tmp_path):
    run = make_run(biggan_weights)
    run.summary_path.unlink()
    with pytest.raises(RunError, match=r"summary.json is missing: the run has not come to its end"):
        amfast.export_run(run.path, "npy", out=tmp_path / "out")
    assert len(amfast.export_run(run.path, "npy", trials="all", out=tmp_path / "o").trials) == 4
    run.summary_path.write_text('{"classes": [{"class_id": 0}]}')
    with pytest.raises(RunError, match="summary.json is damaged: KeyError"):
        amfast.export_run(run.path, "npy", out=tmp_path / "out")
    run.write_summary({"classes": [{"class_id": 0, "best": 7}]})
    with pytest.raises(RunError, match=r"lacks the best trials \[\(0, 7\)\]"):
        amfast.export_run(run.path, "npy", out=tmp_path / "out")
    run.embeddings_path.unlink()
    with pytest.raises(RunError, match="embeddings.safetensors is missing: the run has not come"):
        amfast.export_run(run.path, "npy", out=tmp_path / "out")


def test_every_trial_failed(make_run, biggan_weights, tmp_path):
    run = make_run(biggan_weights, best={})
    with pytest.raises(RunError, match="no embedding to export: all of its trials failed"):
        amfast.export_run(run.path, "npy", trials="all", out=tmp_path / "out")


def test_classes_that_the_generator_lacks_become_further_ones(make_run, biggan_weights, tmp_path):
    run = make_run(biggan_weights, classifier="embedded-unseen")
    with pytest.raises(RunError, match="has no class .* whose row could be replaced: export all"):
        amfast.export_run(run.path, "biggan-pytorch", out=tmp_path / "out.pth")
    exported = amfast.export_run(run.path, "biggan-pytorch", trials="all", out=tmp_path / "out.pth")
    assert [t["row"] for t in exported.trials] == [12, 13, 14, 15]


def test_a_shape_that_the_package_cannot_build():
    state = random_deep(DEEP_CONFIGS["one-stage"]).state_dict()
    with pytest.raises(RunError, match=r"cannot build this BigGAN-deep: .*\[16, 8\] channels"):
        deep_config(state, 1e-4)


def test_weights_must_be_named_where_the_generator_ships_none(make_run, tmp_path, monkeypatch):
    run = make_run(None)
    stored = json.loads((run.path / "run.json").read_text())
    stored["config"]["generator"] = "biggan-128"
    (run.path / "run.json").write_text(json.dumps(stored))
    monkeypatch.setenv("AMFAST_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="weights of biggan-128 are not here.* --weights"):
        amfast.export_run(run.path, "biggan-pytorch", out=tmp_path / "out.pth")


def test_a_biggan_deep_has_a_format_of_its_own(make_run, deep_weights, tmp_path):
    run = make_run(deep_weights)
    before = listing(tmp_path)
    with pytest.raises(RunError, match="not a BigGAN's, .* --format pytorch-pretrained-biggan"):
        amfast.export_run(run.path, "biggan-pytorch", out=tmp_path / "out.pth")
    assert listing(tmp_path) == before
