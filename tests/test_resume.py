"""A trial's bytes depend on its class, its index and the seed: on no kill and on no batch-mates."""

from __future__ import annotations

import random
import signal
import time

import pytest
import torch

from amfast.api import run_trials
from amfast.classifiers import ModuleClassifier, load_classifier
from amfast.config import make_config
from amfast.embedded import EMBEDDED
from amfast.generators import BigGANGenerator, load_generator
from amfast.generators.biggan import infer_config, load_reference
from amfast.optimize.trials import plan_trials
from amfast.weights.files import read_safetensors
from tests.command import SMALL, amfast, contents, listing, start_amfast

KILLS = 5
STEPS = ("--steps", "16", "--steps-per-latents", "4")


def wait_until_it_runs(process):
    assert any(line.startswith("run directory: ") for line in process.stderr)


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    options = (*SMALL, *STEPS, "--batch-embeddings", "2", "--resume", "--outdir")
    with start_amfast(*options, "whole", cwd=tmp_path) as process:
        wait_until_it_runs(process)
        began = time.monotonic()
        process.communicate()
        length = time.monotonic() - began
    assert process.returncode == 0

    moments, finished = random.Random(0), []
    for _ in range(KILLS):
        with start_amfast(*options, "killed", cwd=tmp_path) as process:
            wait_until_it_runs(process)
            time.sleep(moments.uniform(0, length / 4))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        finished.append(len(list(tmp_path.glob("killed/*/trials/*.safetensors"))))
    assert finished == sorted(finished)  # nothing is ever lost
    assert amfast(*options, "killed", "--quiet", cwd=tmp_path).returncode == 0

    (whole,), (killed,) = (list((tmp_path / name).iterdir()) for name in ("whole", "killed"))
    assert contents(killed) == contents(whole)
    assert listing(killed) == listing(whole)


@pytest.mark.parametrize("damage", [False, True])
def test_a_batch_under_way_goes_on_from_its_last_resample(tmp_path, damage):
    options = (*SMALL, *STEPS, "--batch-embeddings", "64", "--resume", "--outdir")
    assert amfast(*options, "whole", "--quiet", cwd=tmp_path).returncode == 0
    with start_amfast(*options, "killed", cwd=tmp_path) as process:
        while not (under_way := list(tmp_path.glob("killed/*/under-way.safetensors"))):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    assert not list(tmp_path.glob("killed/*/trials/*.safetensors"))
    if damage:
        under_way[0].write_bytes(under_way[0].read_bytes()[:-9])
    done = amfast(*options, "killed", cwd=tmp_path)
    assert done.returncode == 0
    said = "under-way.safetensors is damaged and will be done again"
    assert ("6 trials go on from step" in done.stderr, said in done.stderr) == (not damage, damage)
    (whole,), (killed,) = (list((tmp_path / name).iterdir()) for name in ("whole", "killed"))
    assert contents(killed) == contents(whole)
    assert listing(killed) == listing(whole)


def optimised(generator, classifier, *, steps, **batching):
    config = make_config(
        classes=(1, 3), trials=4, steps=steps, latents=2, steps_per_latents=20, **batching
    )
    results = run_trials(generator, classifier, config, plan_trials(config.classes, 4, config.seed))
    return torch.stack([result.embedding for result in results])


@pytest.fixture(scope="module")
def networks():
    return (
        load_generator("embedded", device="cpu", dtype="fp32"),
        load_classifier("embedded", device="cpu", dtype="fp32"),
    )


@pytest.fixture(scope="module")
def together(networks):
    return optimised(*networks, steps=40, batch_embeddings=64)


@pytest.mark.parametrize("batch", [7, 1])
def test_embeddings_do_not_depend_on_the_batch(batch, networks, together):
    embeddings = optimised(*networks, steps=40, batch_embeddings=batch)
    torch.testing.assert_close(embeddings, together, rtol=0, atol=1e-5)
    assert len(embeddings.unique(dim=0)) == 8


def test_embeddings_do_not_depend_on_the_threads(networks):
    """A trial alone has all of torch's threads, and its share of them among others."""
    threads = torch.get_num_threads()
    found = []
    try:
        for count, batch in ((1, 64), (2, 64), (2, 1), (3, 3)):
            torch.set_num_threads(count)
            found.append(optimised(*networks, steps=4, batch_embeddings=batch))
    finally:
        torch.set_num_threads(threads)
    for embeddings in found[1:]:
        torch.testing.assert_close(embeddings, found[0], rtol=0, atol=1e-5)


# Passes of other shapes round otherwise, and the optimisation magnifies that: am-l has made 1e-3 of
# it after 20 steps in fp32. A few steps of am-s in fp32 and more of am-l in fp64 show what it is.
MICROBATCHES = [7, 3, 1]  # three trials in a pass; one; half of one


@pytest.mark.parametrize("microbatch", MICROBATCHES)
def test_microbatch_changes_rounding_alone(microbatch, networks):
    options = {"steps": 4, "method": "am-s", "batch_embeddings": 64}
    usual = optimised(*networks, **options)
    embeddings = optimised(*networks, **options, microbatch=microbatch)
    torch.testing.assert_close(embeddings, usual, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def double_networks(networks):
    state, metadata = read_safetensors(EMBEDDED / "generator.safetensors")
    eps = {name: float(metadata[name]) for name in ("norm_eps", "spectral_eps")}
    cpu, fp64 = torch.device("cpu"), torch.float64
    model = load_reference(state, infer_config(state, **eps)).double()
    labels = networks[0].spec.labels
    judge = networks[1]
    return (
        BigGANGenerator(model, name="double", labels=labels, device=cpu, dtype=fp64),
        ModuleClassifier(judge.module, judge.spec, cpu, fp64),
    )


@pytest.fixture(scope="module")
def usual_in_double(double_networks):
    return optimised(*double_networks, steps=10, batch_embeddings=64)


@pytest.mark.parametrize("microbatch", [7, 1])
def test_microbatch_in_double(microbatch, double_networks, usual_in_double):
    embeddings = optimised(*double_networks, steps=10, batch_embeddings=5, microbatch=microbatch)
    assert embeddings.dtype == torch.float64
    torch.testing.assert_close(embeddings, usual_in_double, rtol=0, atol=1e-5)
