from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from amfast.errors import RunError, UsageError, WeightsError
from amfast.evaluation.subject import open_subject
from amfast.exchange import import_embeddings
from amfast.runs.embeddings_file import EmbeddingsFile
from tests.evaluation.conftest import RING, STAR, entry, score


def embeddings_file(generator, rows):
    """Embeddings of these (class id, trial)."""
    ids, trials = zip(*rows, strict=True) if rows else ((), ())
    labels = generator.spec.labels
    return EmbeddingsFile(
        embeddings=generator.class_embeddings[list(ids)].clone(),
        class_ids=torch.tensor(ids, dtype=torch.int64),
        trial_ids=torch.tensor(trials, dtype=torch.int64),
        class_names={i: labels[i] for i in ids},
        generator=generator.spec.name,
        generator_fingerprint=generator.spec.fingerprint,
        method="am-l",
    )


def test_of_a_run_the_best_trial_of_each_class(make_run, generator):
    run = make_run()
    found = open_subject(run.path, device="cpu")
    assert found.directory == run.path and found.generator_name == "embedded"
    assert [(t.class_id, t.name, t.trial) for t in found.targets] == [
        (3, "star", 1), (4, "ring", 1)
    ]  # fmt: skip
    assert torch.equal(found.targets[0].embedding, generator.class_embeddings[RING])
    assert found.targets[0].why.startswith("trial 1: distance 0.300 (as trained 0.100)")
    assert found.failed == []


def test_the_floor_picks_another_trial(make_run, generator):
    run = make_run()
    scores = {0: score(0.95, 0.1), 1: score(0.85, 0.2)}
    run.write_summary({"classes": [entry(STAR, "star", scores)]})
    assert open_subject(run.path, device="cpu").targets[0].trial == 1
    found = open_subject(run.path, device="cpu", min_target_prob=0.9).targets[0]
    assert found.trial == 0
    assert torch.equal(found.embedding, generator.class_embeddings[STAR])


def test_failed_trials_are_listed_and_a_class_without_any_other_is_left_out(make_run):
    run = make_run(failed={(STAR, 0), (STAR, 1), (RING, 1)})
    found = open_subject(run.path, device="cpu")
    assert [(t.class_id, t.trial) for t in found.targets] == [(RING, 0)]
    assert found.failed == [(STAR, "star", 0, 1), (STAR, "star", 1, 1), (RING, "ring", 1, 1)]


def test_a_run_of_failed_trials_alone_is_refused(make_run):
    run = make_run((STAR,), failed={(STAR, 0), (STAR, 1)})
    with pytest.raises(RunError, match="holds no embedding to evaluate: all of its trials failed"):
        open_subject(run.path, device="cpu")


def test_an_unfinished_and_a_damaged_run_are_refused(make_run):
    run = make_run()
    run.summary_path.write_text("[]")
    with pytest.raises(RunError, match="summary.json is damaged"):
        open_subject(run.path, device="cpu")
    run.summary_path.unlink()
    with pytest.raises(RunError, match="has not come to its end; resume it"):
        open_subject(run.path, device="cpu")


def test_a_summary_and_embeddings_of_two_runs_are_refused(make_run):
    run = make_run()
    run.write_summary({"classes": [entry(STAR, "star", {7: score(0.9, 0.2)})]})
    with pytest.raises(RunError, match="embeddings.safetensors lacks trial 7 of star"):
        open_subject(run.path, device="cpu")


def test_imported_embeddings(tmp_path, generator):
    np.save(tmp_path / "003_star.npy", generator.class_embeddings[RING].numpy())
    imported = import_embeddings([tmp_path / "003_star.npy"], outdir=tmp_path / "runs")
    found = open_subject(imported.path, device="cpu")
    assert found.directory == imported.path and found.failed == []
    assert [(t.class_id, t.name, t.why) for t in found.targets] == [(3, "star", "the only one")]


def test_a_file_of_one_embedding_for_each_class(tmp_path, generator):
    path = tmp_path / "e.safetensors"
    embeddings_file(generator, [(STAR, 2), (RING, 0)]).write(path)
    found = open_subject(path, generator="embedded", device="cpu")
    assert found.directory is None
    assert [(t.class_id, t.trial) for t in found.targets] == [(STAR, 2), (RING, 0)]
    with pytest.raises(WeightsError):
        open_subject(path, weights=tmp_path / "none.safetensors", device="cpu")


def test_files_that_cannot_be_evaluated(tmp_path, generator):
    path = tmp_path / "e.safetensors"

    def refused(said):
        with pytest.raises(RunError, match=said):
            open_subject(path, device="cpu")

    refused("is not there: give a run directory or an embeddings file")
    path.write_bytes(b"no tensors")
    refused("e.safetensors")
    embeddings_file(generator, []).write(path)
    refused("holds no embedding to evaluate")
    embeddings_file(generator, [(STAR, 0), (STAR, 1)]).write(path)
    refused("several embeddings of a class.*amfast export --trials best")
    broken = embeddings_file(generator, [(STAR, 0)])
    broken.embeddings[0, 5] = torch.nan
    broken.write(path)
    refused("is damaged: trial 0 of class 3 star holds NaN or infinity")
    nameless = embeddings_file(generator, [(STAR, 0)])
    nameless.class_names.clear()
    nameless.write(path)
    refused("is damaged: it has a class 3, which has no name in it")


def test_a_run_names_its_generator_itself(make_run):
    with pytest.raises(UsageError, match="names its generator itself: leave --generator out"):
        open_subject(make_run().path, generator="embedded", device="cpu")


def test_embeddings_of_another_generator_are_refused(make_run, generator):
    run = make_run()
    other = replace(embeddings_file(generator, [(STAR, 0)]), generator_fingerprint="00")
    other.write(run.embeddings_path)
    with pytest.raises(RunError, match="fingerprint 00"):
        open_subject(run.path, device="cpu")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(RunError, match="cannot read"):
        open_subject(tmp_path, device="cpu")
