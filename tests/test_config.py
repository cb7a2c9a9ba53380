from __future__ import annotations

import pytest

from amfast.config import RunConfig, make_config
from amfast.errors import AmfastError, UsageError


def test_the_papers_numbers_are_the_defaults() -> None:
    config = make_config(classes=(0,))
    assert (config.method, config.lr, config.steps, config.latents) == ("am-l", 0.1, 200, 20)
    assert (config.trials, config.steps_per_latents) == (5, 20)
    assert make_config(classes=(0,), method="am-s").lr == 0.01
    assert make_config(classes=(0,), method="am-s", lr=0.5).lr == 0.5


def test_a_profile_has_its_own_defaults() -> None:
    config = make_config(classes=(0,), profile="biggan-am", method="am-s", trials=None)
    assert (config.lr, config.trials, config.latents, config.steps) == (0.1, 3, 10, 200)
    config = make_config(classes=(0,), profile="biggan-am", lr=0.02, trials=2, latents=7)
    assert (config.lr, config.trials, config.latents) == (0.02, 2, 7)


def test_what_is_deterministic_is_not_compiled() -> None:
    for mode in ("auto", "off"):
        assert make_config(classes=(0,), deterministic=True, compile=mode).compile == "off"
        assert make_config(classes=(0,), compile=mode).compile == mode
    assert make_config(classes=(0,), deterministic=True).compile == "off"


def test_json_round_trip() -> None:
    config = make_config(classes=(3, 1), microbatch=7, weights="x.safetensors", deterministic=True)
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"classes": ()}, "classes: .*at least 1"),
        ({"trials": 0}, "trials: .*greater than or equal to 1"),
        ({"steps": -3}, r"steps: .*given: -3"),
        ({"latents": 1.5}, "latents: "),
        ({"steps_per_latents": 0}, "steps-per-latents: "),
        ({"batch_embeddings": 0}, "batch-embeddings: "),
        ({"microbatch": 0}, "microbatch: "),
        ({"lr": 0.0}, "lr: .*greater than 0"),
        ({"lr": float("nan")}, "lr: "),
        ({"lr": float("inf")}, "lr: "),
        ({"seed": -1}, "seed: "),
        ({"seed": 2**63}, "seed: "),
        ({"method": "am-x"}, "method: .*am-s.*am-l"),
        ({"profile": "released"}, "profile: .*paper.*biggan-am"),
        ({"profile": ["paper"]}, "profile: "),
        ({"dtype": "fp8"}, "dtype: .*fp32"),
        ({"deterministic": True, "compile": "on"}, "compile: on, and compilers .* takes off"),
        ({"nonsense": 1}, "nonsense: "),
        ({"trials": 0, "steps": 0}, "trials: .*; steps: "),
    ],
)
def test_what_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        make_config(**{"classes": (0,), **values})
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, AmfastError | ValueError)
