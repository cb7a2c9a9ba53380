"""A trial's bytes depend on its class, its index and the seed: on no kill and on no batch-mates."""

from __future__ import annotations

import random
import signal
import time

import pytest
import torch

from amfast.api import run_trials
from amfast.classifiers import load_classifier
from amfast.config import make_config
from amfast.generators import load_generator
from amfast.optimize.trials import plan_trials
from tests.command import SMALL, amfast, contents, listing, start_amfast

KILLS = 5


@pytest.mark.parametrize("batch", [1, 2])
def test_killed_and_resumed_equals_uninterrupted(batch, tmp_path):
    options = (*SMALL, "--steps", "16", "--batch-embeddings", batch, "--resume", "--outdir")
    with start_amfast(*options, "whole", cwd=tmp_path) as process:
        assert process.stderr.readline().startswith("run directory: ")
        began = time.monotonic()
        process.communicate()
        length = time.monotonic() - began
    assert process.returncode == 0

    moments, finished = random.Random(batch), []
    for _ in range(KILLS):
        with start_amfast(*options, "killed", cwd=tmp_path) as process:
            assert process.stderr.readline().startswith("run directory: ")
            time.sleep(moments.uniform(0, length / 4))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        finished.append(len(list(tmp_path.glob("killed/*/trials/*.safetensors"))))
    assert finished == sorted(finished)  # nothing is ever lost
    assert amfast(*options, "killed", "--quiet", cwd=tmp_path).returncode == 0

    (whole,), (killed,) = (list((tmp_path / name).iterdir()) for name in ("whole", "killed"))
    assert contents(killed) == contents(whole)
    assert listing(killed) == listing(whole)


@pytest.fixture(scope="module")
def networks():
    return (
        load_generator("embedded", device="cpu", dtype="fp32"),
        load_classifier("embedded", device="cpu", dtype="fp32"),
    )


def optimised(networks, **batching):
    config = make_config(
        classes=(1, 3), trials=4, steps=40, latents=3, steps_per_latents=20, **batching
    )
    results = run_trials(*networks, config, plan_trials(config.classes, 4, config.seed))
    return torch.stack([result.embedding for result in results])


@pytest.fixture(scope="module")
def together(networks):
    return optimised(networks, batch_embeddings=64)


@pytest.mark.parametrize(
    ("batch", "microbatch"),
    # With 3 latents, a pass holds: one trial; one; two trials; all of them; two thirds of a trial.
    [(7, None), (1, None), (64, 7), (7, 3), (64, 64), (64, 2)],
)
def test_embeddings_do_not_depend_on_the_batch(batch, microbatch, networks, together):
    embeddings = optimised(networks, batch_embeddings=batch, microbatch=microbatch)
    print((embeddings - together).abs().max())
    torch.testing.assert_close(embeddings, together, rtol=0, atol=1e-5)
    assert not embeddings.equal(embeddings[:1].expand_as(embeddings))
