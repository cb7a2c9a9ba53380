"""The ratios that a CPU can measure in minutes: ``make bench-quick`` -> bench/results/quick.json.

Contestants are checked against each other first and then timed in turns, a round of each after the
other, so that a busy machine slows them alike. A ratio is opponent's median seconds over ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from amfast.classifiers import load_classifier
from amfast.device import keep_freed_memory
from amfast.embedded.shapenet import ShapeNet
from amfast.generators import EMBEDDED, BigGANGenerator, read_safetensors
from amfast.generators.biggan import infer_config, load_reference
from amfast.generators.reference import BigGAN, BigGANConfig, SpectralNorm
from amfast.ops import (
    cond_norm_relu,
    cond_norm_relu_ref,
    subpixel_norm_relu,
    subpixel_norm_relu_ref,
    target_log_prob,
    target_log_prob_ref,
    upsample_add_norm_relu,
    upsample_add_norm_relu_ref,
)
from amfast.optimize.engine import Settings, optimize_trials
from amfast.optimize.memory import images_per_pass
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.trials import Trial, draw_latents
from bench.baseline import Step, frozen_compiled_loop, plain_loop
from bench.contestants import agree, draw, forward_and_backward

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
BIGGAN_128 = BigGANConfig((1536, 1536, 768, 384, 192, 96), attention_block=3, num_classes=1000)


def in_turns(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each after one call to warm up, rounds interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for name, run in contestants.items():
        run()
        print(f"  warm: {name}", file=sys.stderr)
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def random_biggan(config: BigGANConfig) -> BigGAN:
    """Full-size random weights with statistics and a gate that do something."""
    with torch.device("meta"):
        model = BigGAN(config)
    model.to_empty(device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("stored_var"):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(0, 0.5)
        for module in model.modules():
            if isinstance(module, SpectralNorm):
                module.weight.normal_()
    return model.eval()


def contest(
    model: BigGAN, *, embeddings: int, latents: int, steps: int, compiled: bool
) -> dict[str, Callable[[], object]]:
    """Engine, plain loop and, if asked for, frozen compiled loop on one problem, once compared.

    Every contestant does the same work per call but for its number of trials; divide by it.
    """
    generator = BigGANGenerator(
        model,
        name="bench",
        labels=[str(i) for i in range(model.config.num_classes)],
        device=CPU,
        dtype=torch.float32,
    )
    judge = load_classifier("embedded", device="cpu")
    network = ShapeNet(len(judge.spec.labels))
    state, _ = read_safetensors(EMBEDDED / "classifier.safetensors")
    network.load_state_dict(state)
    trials = [Trial(i % len(judge.spec.labels), i, 0) for i in range(embeddings)]
    start = generator.class_embeddings.mean(0) + torch.stack(
        [
            0.1 * torch.randn(generator.spec.embedding_dim, generator=t.random("start"))
            for t in trials
        ]
    )
    objective = TargetLogProb(judge)
    settings = Settings(
        learning_rate=0.1,
        latents=latents,
        steps_per_latents=steps,
        images_per_pass=images_per_pass(generator, objective, latents),
        steps=steps,
    )

    def engine() -> list[Tensor]:
        done = optimize_trials(generator, objective, trials, lambda _: start, settings)
        return [result.embedding for result in done]

    def loop(make: Callable[..., Step]) -> Step:
        z = draw_latents(trials[:1], [0], latents, generator.spec.latent_dim, CPU)[0]
        target = trials[0].class_id
        return make(model, network, judge.spec, start=start[0], latents=z, target=target)

    check(engine()[0] - start[0], loop(plain_loop), start[0], steps)
    plain = loop(plain_loop)
    contestants: dict[str, Callable[[], object]] = {"engine": engine, "plain": plain}
    if compiled:
        contestants["compiled"] = loop(frozen_compiled_loop)
    return contestants


def check(moved: Tensor, step: Step, start: Tensor, steps: int) -> None:
    """Raise unless the plain loop moves an embedding as the engine does.

    As a whole: Adam's first step takes the sign of every coordinate's gradient, and where that is
    next to nothing rounding decides it.
    """
    for _ in range(steps):
        theirs = step().clone()
    error = float((moved - (theirs - start)).norm() / moved.norm())
    if not error < 0.02:
        raise AssertionError(f"the engine and the plain loop part ways: {error:.3f} of the step")


def embedded_ratios(rounds: int = 7, trials: int = 16, steps: int = 2) -> dict[str, float]:
    state, _ = read_safetensors(EMBEDDED / "generator.safetensors")
    model = load_reference(state, infer_config(state))
    runs = contest(model, embeddings=trials, latents=20, steps=steps, compiled=True)
    seconds = in_turns(runs, rounds)
    ours = seconds["engine"] / (trials * steps)
    print(f"embedded: {200 * ours:.2f} s per 200-step trial; {seconds}", file=sys.stderr)
    return {
        "trial_embedded": seconds["plain"] / ours,
        "trial_embedded_vs_compiled": seconds["compiled"] / ours,
    }


def biggan_128_ratio(rounds: int = 3) -> dict[str, float]:
    runs = contest(random_biggan(BIGGAN_128), embeddings=2, latents=4, steps=1, compiled=False)
    seconds = in_turns(runs, rounds)
    print(f"BigGAN-128, 2 embeddings x 4 latents: {seconds}", file=sys.stderr)
    return {"step_biggan_128": 2 * seconds["plain"] / seconds["engine"]}


def op_ratios(rounds: int = 31) -> dict[str, float]:
    """Each kernel against its reference, eager and compiled, at the embedded engine's largest."""
    n, c, size = 20, 16, 64
    d = draw()
    factors = [d.factor(n, c), d.factor(n, c)]
    h, half = d.map(n, c, size, size), d.map(n, c, size // 2, size // 2)
    phases = d.map(n, 4 * c, size // 2 + 1, size // 2 + 1)
    logits, target = torch.randn(n, 1000), torch.randint(1000, (n,))
    cases: dict[str, tuple[Callable[..., object], Callable[..., object], Sequence[Tensor]]] = {
        "op_cond_norm_relu": (cond_norm_relu, cond_norm_relu_ref, [h, *factors]),
        "op_subpixel_norm_relu": (subpixel_norm_relu, subpixel_norm_relu_ref, [phases, *factors]),
        "op_upsample_add_norm_relu": (
            upsample_add_norm_relu,
            upsample_add_norm_relu_ref,
            [h, half, *factors],
        ),
        "op_target_log_prob": (
            lambda x: target_log_prob(x, target),
            lambda x: target_log_prob_ref(x, target),
            [logits],
        ),
    }
    ratios = {}
    for name, (kernel, ref, inputs) in cases.items():
        agree(kernel, ref, inputs)  # type: ignore[arg-type]
        seconds = in_turns(
            {
                "kernel": forward_and_backward(kernel, inputs),  # type: ignore[arg-type]
                "eager": forward_and_backward(ref, inputs),  # type: ignore[arg-type]
                "compiled": forward_and_backward(torch.compile(ref, dynamic=False), inputs),
            },
            rounds,
        )
        ratios[name] = seconds["eager"] / seconds["kernel"]
        ratios[f"{name}_vs_compiled"] = seconds["compiled"] / seconds["kernel"]
    return ratios


def main() -> None:
    keep_freed_memory()
    ratios = {**op_ratios(), **embedded_ratios(), **biggan_128_ratio()}
    rounded = {name: round(ratio, 2) for name, ratio in ratios.items()}
    RESULTS.mkdir(exist_ok=True)
    found = {
        "ratios": rounded,
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    (RESULTS / "quick.json").write_text(json.dumps(found, indent=2) + "\n")
    width = max(map(len, rounded))
    for name, ratio in rounded.items():
        print(f"{name:{width}}  {ratio:6.2f}")


if __name__ == "__main__":
    main()
