"""--deterministic: the same bytes for every batch, thread count and interruption."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import amfast
from amfast.api import run_trials
from amfast.classifiers import ModuleClassifier, load_classifier
from amfast.config import make_config
from amfast.errors import AmfastError, UsageError
from amfast.generators import BigGANGenerator, load_generator
from amfast.optimize.determinism import deterministic_torch, fix_cublas
from amfast.optimize.engine import Settings, TrialResult
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.slots import Slots
from amfast.optimize.step import Step
from amfast.optimize.trials import plan_trials
from amfast.runs.session import Listener, execute, prepare
from tests.command import command_line, contents, environment
from tests.optimize.conftest import LinearClassifier, LinearGenerator
from tests.optimize.test_engine import Hungry, same

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
FEW: dict[str, Any] = {"classes": "a,c", "trials": 2, "steps": 4, "latents": 4}

Networks = tuple[BigGANGenerator, ModuleClassifier]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def networks() -> Networks:
    options = {"device": "cpu", "dtype": "fp32"}
    return load_generator("embedded", **options), load_classifier("embedded", **options)  # type: ignore[arg-type, return-value]


def optimised(networks: Networks, threads: int, batch: int, **values: Any) -> list[TrialResult]:
    torch.set_num_threads(threads)
    config = make_config(
        classes=(1, 3),
        trials=4,
        steps_per_latents=2,
        batch_embeddings=batch,
        deterministic=True,
        **values,
    )
    trials = plan_trials(config.classes, config.trials, config.seed)
    found = sorted(run_trials(*networks, config, trials), key=lambda result: result.trial)
    assert torch.get_num_threads() == threads
    return found


@pytest.mark.parametrize(
    "values",
    [
        {"steps": 4, "latents": 1},  # on 3 threads the usual way rounds otherwise, here at least
        {"steps": 3, "latents": 2, "noise_layer": True},
        {"steps": 3, "latents": 4, "method": "am-d-l"},
        {"steps": 3, "latents": 4, "method": "am-d-s", "diversity": "pixel", "microbatch": 3},
        {"steps": 3, "latents": 3, "microbatch": 2, "init": "top-2"},
        {"steps": 3, "latents": 2, "microbatch": 64, "profile": "biggan-am"},
        {"steps": 8, "latents": 2, "stop": "prob=0.5"},
    ],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_neither_batch_nor_threads_change_a_bit(networks: Networks, values: dict[str, Any]) -> None:
    alone = optimised(networks, 1, 1, **values)
    for threads, batch in ((1, 64), (2, 3), (3, 7), (3, 1)):
        assert all(map(same, optimised(networks, threads, batch, **values), alone))
    if "stop" in values:
        assert len({result.stopped_at for result in alone}) > 1


class Watched(TorchDispatchMode):
    """Notes the operators that see a tensor of so many rows, but for those that only move it."""

    MOVES = (
        *("alias", "clone", "copy_", "detach", "empty", "empty_like", "expand", "new_empty"),
        *("select", "slice", "split", "unsqueeze", "view", "zeros_like", "_local_scalar_dense"),
        "_to_copy",
    )

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.seen = rows, set[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = [x for x in (*args, *(kwargs or {}).values()) if isinstance(x, Tensor)]
        name = func.__name__.partition(".")[0]
        if name not in self.MOVES and any(self.rows in x.shape for x in given):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("noise_layer", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_no_operator_of_a_step_sees_two_trials(noise_layer: bool, deterministic: bool) -> None:
    """Seven of them, a number that nothing else has."""
    settings = Settings(
        learning_rate=0.1,
        latents=4,
        images_per_pass=3,
        steps=2,
        noise_layer=noise_layer,
        deterministic=deterministic,
    )
    generator = LinearGenerator()
    trials = plan_trials([0], 7, seed=0)
    layers = torch.randn(7, 12) if noise_layer else None
    slots = Slots.begin(trials, torch.randn(7, 5), 2, noise_layers=layers)
    objective = TargetLogProb(LinearClassifier())
    with Step(generator, objective, settings, lambda note: None, cores=1) as step:
        step.place(slots)
        with Watched(7) as watched:
            step.prepare()
            step()
    assert ("lerp" in watched.seen) == (not deterministic)
    assert bool(watched.seen) == (not deterministic), watched.seen


def test_interrupted_and_resumed_in_batches_of_another_size(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop_at(steps: int) -> Listener:
        seen: list[object] = []

        def count(progress: object) -> None:
            seen.append(progress)
            if len(seen) == steps:
                raise Enough

        return Listener(on_progress=count)

    def run(outdir: str, batch: int, **options: Any) -> Path:
        job = prepare(
            classes="0-2", trials=2, steps=8, steps_per_latents=2, latents=1, device="cpu",
            stop="prob=0.5", batch_embeddings=batch, deterministic=True,
        )  # fmt: skip
        return execute(job, tmp_path / outdir, **options).directory.path

    whole = run("whole", 64)
    for batch, steps in ((3, 4), (1, 3), (64, 3)):
        with pytest.raises(Enough):
            run("parts", batch, resume=True, listener=stop_at(steps))
    parts = run("parts", 2, resume=True)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [whole.name]
    assert contents(parts) == contents(whole)


def torch_settings() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )


def test_torch_is_left_as_it_was() -> None:
    torch.set_num_threads(2)
    usual, seen = torch_settings(), list[tuple[object, ...]]()
    networks: Any = LinearGenerator(), LinearClassifier()
    amfast.optimize(
        *networks, **FEW, deterministic=True, on_progress=lambda _: seen.append(torch_settings())
    )
    assert set(seen) == {(1, 2, False, False)}
    assert torch_settings() == usual

    def fail(progress: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        amfast.optimize(*networks, **FEW, deterministic=True, on_progress=fail)
    assert torch_settings() == usual
    config = make_config(classes=(0, 2), steps=1, latents=2, batch_embeddings=1, deterministic=True)
    left = run_trials(*networks, config, plan_trials([0, 2], 5, 0))
    next(left)
    del left
    assert torch_settings() == usual


class Unordered(LinearClassifier):
    """Writes to places that might be the same."""

    def __call__(self, inputs: Tensor) -> Tensor:
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
        return super().__call__(inputs)


def test_an_operator_without_an_order_is_named() -> None:
    networks: Any = LinearGenerator(), Unordered()
    with pytest.raises(UsageError, match="^torch has no deterministic put_, .* on cpu: leave"):
        amfast.optimize(*networks, **FEW, deterministic=True)
    amfast.optimize(*networks, **FEW)


def test_passes_keep_their_size_when_memory_runs_out() -> None:
    networks: Any = Hungry(3), LinearClassifier()
    notes: list[str] = []
    with pytest.raises(AmfastError, match="^out of memory with 4 images in .* --microbatch 2$"):
        amfast.optimize(*networks, **FEW, deterministic=True, on_note=notes.append)
    assert notes == []
    config = make_config(classes=(0,), steps=1, latents=4, microbatch=2, deterministic=True)
    assert len(list(run_trials(*networks, config, plan_trials([0], 5, 0)))) == 5


def test_cublas_is_fixed_before_it_starts_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for value, said in ((None, "it is not set"), (":0:0", "it is :0:0")):
        monkeypatch.delenv(CUBLAS, raising=False)
        if value:
            monkeypatch.setenv(CUBLAS, value)
        with (
            pytest.raises(UsageError, match=f"{CUBLAS} to be :4096:8 or :16:8, and {said}"),
            deterministic_torch(cuda),
        ):
            pass
    fix_cublas()
    assert os.environ[CUBLAS] == ":0:0"  # the user's own
    monkeypatch.delenv(CUBLAS)
    fix_cublas()
    assert os.environ[CUBLAS] == ":4096:8"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_batch_changes_no_bit_on_a_gpu(tmp_path: Path, dtype: str) -> None:
    """In processes of their own: cuBLAS has to start with its workspace fixed."""
    visible = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    options = (
        *("run", "--generator", "biggan-128", "--weights", "random", "--classifier", "alexnet"),
        *("--classifier-weights", "random", "--classes", "0-2", "--trials", "3", "--steps", "8"),
        *("--steps-per-latents", "4", "--latents", "6", "--dtype", dtype, "--device", "cuda"),
        *("--deterministic", "--no-report", "--quiet"),
    )
    found = []
    for batch in (64, 1, 4):
        place = ("--batch-embeddings", batch, "--outdir", tmp_path / str(batch))
        subprocess.run(
            command_line(*options, *place),
            env={**environment(), **visible},
            check=True,
            timeout=600,
        )
        (run,) = (tmp_path / str(batch)).iterdir()
        found.append({name: data for name, data in contents(run).items() if "trials" in name})
    assert found[0] == found[1] == found[2] and len(found[0]) == 9
