from __future__ import annotations

import json

import pytest
import torch

from amfast.config import make_config
from amfast.errors import RunError
from amfast.optimize.noise_layer import initial_noise_layers
from amfast.optimize.slots import Slots
from amfast.optimize.trials import plan_trials
from amfast.runs.state_file import KIND, read_state, write_state
from amfast.runs.tensor_file import read_tensors, write_tensors


@pytest.fixture
def config():
    return make_config(classes=(0, 2), trials=2, steps=6, steps_per_latents=2, seed=7)


@pytest.fixture
def state(config):
    torch.manual_seed(0)
    trials = plan_trials(config.classes, 2, config.seed)
    fresh = Slots.begin(trials, torch.randn(4, 5), config.steps)
    drawn = {name: torch.rand_like(t.float()).to(t.dtype) for name, t in fresh.tensors().items()}
    steps = torch.tensor([4, 2, 0, 5])
    history = drawn["history"].where(
        torch.arange(6)[None, :, None] < steps[:, None, None], torch.nan
    )
    sound = {
        "adam_steps": torch.tensor([4, 2, 0, 3]),
        "loss_scale": torch.tensor([1024.0, 1.0, 2.0, 1.0]),
        "active": torch.ones(4, dtype=torch.bool),
        "step": steps,
        "history": history,
    }
    return Slots(fresh.trials, **{**drawn, **sound})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "under-way.safetensors"


def test_round_trip(path, state, facts, config):
    write_state(path, state, facts, config)
    found = read_state(path, facts, config)
    assert found.trials == state.trials
    for name, tensor in state.tensors().items():
        torch.testing.assert_close(found.tensors()[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_round_trip_with_a_noise_layer(path, facts, config):
    learned = config.model_copy(update={"noise_layer": True})
    trials = plan_trials(config.classes, 2, config.seed)
    layers = initial_noise_layers(trials, facts.generator["latent_dim"])
    state = Slots.begin(trials, torch.randn(4, 5), config.steps, noise_layers=layers)
    write_state(path, state, facts, learned)
    found = read_state(path, facts, learned)
    assert torch.equal(found.variables, state.variables)
    assert torch.equal(found.embeddings, state.start)
    with pytest.raises(RunError, match="variables"):
        read_state(path, facts, config)


def test_the_wanted_rows_alone(state):
    some = state.only([state.trials[3], state.trials[1]])
    assert some.trials == (state.trials[1], state.trials[3])
    for name, tensor in state.tensors().items():
        torch.testing.assert_close(
            some.tensors()[name], tensor[[1, 3]], rtol=0, atol=0, equal_nan=True
        )
    assert state.only([]).trials == ()


def test_truncated_anywhere(path, state, facts, config):
    write_state(path, state, facts, config)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            read_state(path, facts, config)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"seed": "8"}, "seed 8, expected 7"),
        ({"method": "am-s"}, "method am-s, expected am-l"),
        ({"classifier_fingerprint": "x"}, "classifier_fingerprint x"),
        ({"generator_fingerprint": "x"}, "fit only the generator"),
        ({"trials": "[1]"}, "damaged"),
        ({"trials": "{"}, "damaged"),
        ({"trials": json.dumps([[0, 0]])}, "holds active"),
    ],
)
def test_another_run_or_a_damaged_file(path, state, facts, config, changed, problem):
    write_state(path, state, facts, config)
    tensors, metadata = read_tensors(path, KIND)
    write_tensors(path, KIND, tensors, {**metadata, **changed})
    with pytest.raises(RunError, match=problem):
        read_state(path, facts, config)


@pytest.mark.parametrize("step", [-1, 6, 2**40])
def test_a_step_that_no_trial_can_be_at(path, state, facts, config, step):
    state.step[1] = step
    write_state(path, state, facts, config)
    with pytest.raises(RunError, match=f"a trial of 6 steps is at step {step}"):
        read_state(path, facts, config)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("variables", torch.nan, "a variable is not finite"),
        ("adam_square", torch.inf, "Adam's moments are not finite"),
        ("loss_scale", 0.0, "a loss scale is below one"),
        ("active", False, "a trial failed and is under way"),
        ("history", torch.nan, "a history ends elsewhere"),
    ],
)
def test_values_that_no_run_leaves(path, state, facts, config, name, value, problem):
    state.tensors()[name][0] = value
    write_state(path, state, facts, config)
    with pytest.raises(RunError, match=f"damaged: {problem}"):
        read_state(path, facts, config)


def test_a_trial_twice(path, state, facts, config):
    twice = Slots((*state.trials[:3], state.trials[0]), **state.tensors())
    write_state(path, twice, facts, config)
    with pytest.raises(RunError, match="a trial is there twice"):
        read_state(path, facts, config)
