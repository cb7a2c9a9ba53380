"""The ratios that a CPU can measure in minutes: ``make bench-quick`` -> bench/results/quick.json.

Contestants are checked against each other first and then timed in turns, a round of each after the
other, so that a busy machine slows them alike. A ratio is opponent's median seconds over ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from amfast.classifiers.protocol import IMAGENET_MEAN, IMAGENET_STD
from amfast.device import keep_freed_memory
from amfast.generators.architectures import ARCHITECTURES, random_biggan
from amfast.metrics.diversity import random_pairs
from amfast.metrics.ms_ssim import pairwise_ms_ssim
from amfast.ops import (
    cond_norm_relu,
    cond_norm_relu_ref,
    lpips_distance,
    lpips_distance_ref,
    resize_to_classifier,
    resize_to_classifier_ref,
    subpixel_norm_relu,
    subpixel_norm_relu_ref,
    target_log_prob,
    target_log_prob_ref,
    upsample_add_norm_relu,
    upsample_add_norm_relu_ref,
    upsample_add_to_rgb,
    upsample_add_to_rgb_ref,
)
from bench import bench_ms_ssim
from bench.contest import Problem, contest, in_turns
from bench.contestants import agree, draw, forward_and_backward
from bench.models import embedded_biggan, random_lpips

RESULTS = Path(__file__).parent / "results"
#: Pairs that the packages are given at a time.
_TOGETHER = 20


def embedded_ratios(rounds: int = 7, trials: int = 16, steps: int = 2) -> dict[str, float]:
    problem = Problem(embedded_biggan(), "embedded", trials, latents=20, steps=steps)
    runs = contest(problem, compiled=True)
    seconds = in_turns(runs, rounds)
    ours = seconds["engine"] / (trials * steps)
    print(f"embedded: {200 * ours:.2f} s per 200-step trial; {seconds}", file=sys.stderr)
    return {
        "trial_embedded": seconds["plain"] / ours,
        "trial_embedded_vs_compiled": seconds["compiled"] / ours,
    }


def biggan_128_ratio(rounds: int = 3) -> dict[str, float]:
    model = random_biggan(ARCHITECTURES["biggan-128"])
    problem = Problem(model, "embedded", trials=2, latents=4, steps=1)
    runs = contest(problem, compiled=False)
    seconds = in_turns(runs, rounds)
    print(f"BigGAN-128, 2 embeddings x 4 latents: {seconds}", file=sys.stderr)
    return {"step_biggan_128": 2 * seconds["plain"] / seconds["engine"]}


def op_ratios(rounds: int = 31) -> dict[str, float]:
    """Each kernel against its reference, eager and compiled, at the embedded engine's largest.

    Except for lpips_distance, which is at AlexNet's second layer, and resize_to_classifier, which
    brings BigGAN-256's images to AlexNet.
    """
    n, c, size = 20, 16, 64
    d = draw()
    factors = [d.factor(n, c), d.factor(n, c)]
    h, half = d.map(n, c, size, size), d.map(n, c, size // 2, size // 2)
    phases = d.map(n, 4 * c, size // 2 + 1, size // 2 + 1)
    rgb = (d.factor(1, c)[0], d.factor(1, c)[0], d.map(3, c, 3, 3), torch.randn(3))
    image = d.map(4, 3, 256, 256)
    at_224 = {"size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "input": "pre_tanh"}
    logits, target = torch.randn(n, 1000), torch.randint(1000, (n,))
    fx, fy, w = d.map(n, 192, 27, 27).relu(), d.map(n, 192, 27, 27).relu(), torch.rand(192)
    cases: dict[str, tuple[Callable[..., object], Callable[..., object], Sequence[Tensor]]] = {
        "op_cond_norm_relu": (cond_norm_relu, cond_norm_relu_ref, [h, *factors]),
        "op_subpixel_norm_relu": (subpixel_norm_relu, subpixel_norm_relu_ref, [phases, *factors]),
        "op_upsample_add_norm_relu": (
            upsample_add_norm_relu,
            upsample_add_norm_relu_ref,
            [h, half, *factors],
        ),
        "op_upsample_add_to_rgb": (
            lambda h, half: upsample_add_to_rgb(h, half, *rgb),
            lambda h, half: upsample_add_to_rgb_ref(h, half, *rgb),
            [h, half],
        ),
        "op_resize_to_classifier": (
            partial(resize_to_classifier, **at_224),
            partial(resize_to_classifier_ref, **at_224),
            [image],
        ),
        "op_target_log_prob": (
            lambda x: target_log_prob(x, target),
            lambda x: target_log_prob_ref(x, target),
            [logits],
        ),
        "op_lpips_distance": (
            lambda fx, fy: lpips_distance(fx, fy, w),
            lambda fx, fy: lpips_distance_ref(fx, fy, w),
            [fx, fy],
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


def ms_ssim_ratios(rounds: int = 3) -> dict[str, float]:
    """Forward against pytorch-msssim; forward and backward against the reference."""
    many, few = bench_ms_ssim.draw_pairs(64, 256), bench_ms_ssim.draw_pairs(64, 64)
    kernel, reference = bench_ms_ssim.kernel, bench_ms_ssim.reference
    torch.testing.assert_close(kernel(*many), bench_ms_ssim.package(*many), rtol=0, atol=1e-5)
    agree(kernel, reference, few)
    forward = in_turns(
        {
            "kernel": lambda: kernel(*many),
            "package": lambda: bench_ms_ssim.package(*many),
        },
        rounds,
    )
    both = in_turns(
        {
            "kernel": forward_and_backward(kernel, few),
            "eager": forward_and_backward(reference, few),
            "compiled": forward_and_backward(torch.compile(reference, dynamic=False), few),
        },
        3 * rounds,
    )
    return {
        "op_ms_ssim": forward["package"] / forward["kernel"],
        "op_ms_ssim_vs_eager": both["eager"] / both["kernel"],
        "op_ms_ssim_vs_compiled": both["compiled"] / both["kernel"],
    }


def draw_images(count: int, size: int) -> Tensor:
    """Images ``[count, 3, size, size]`` in [-1, 1] that share half of what they show."""
    drawn = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return drawn + drawn[:1] - 1


def by_pairs(distance: Callable[[Tensor, Tensor], Tensor], images: Tensor, pairs: Tensor) -> Tensor:
    """A package's figure for every pair, as people get it: both images of each pair, in batches."""
    with torch.no_grad():
        parts = [
            distance(images[part[:, 0]], images[part[:, 1]]).flatten()
            for part in pairs.split(_TOGETHER)
        ]
    return torch.cat(parts)


def lpips_ratios(rounds: int = 3, size: int = 128, images: int = 200) -> dict[str, float]:
    """LPIPS with AlexNet against the lpips package on the same weights.

    As many pairs as images drawn at random from them; then all pairs of a quarter of the images, of
    half the size.
    """
    ours, theirs = random_lpips()
    many, few = draw_images(images, size), draw_images(images // 4, size // 2)
    drawn = random_pairs(images, images, seed=0)
    every = torch.triu_indices(len(few), len(few), offset=1).T.contiguous()

    def all_pairs() -> Tensor:
        return ours.all_pairs(ours.features(few))

    some = drawn[:_TOGETHER]
    mine = ours.distances(ours.features(many), some)
    torch.testing.assert_close(mine, by_pairs(theirs, many, some), rtol=0, atol=1e-5)
    some = every[:: len(every) // _TOGETHER]
    mine = all_pairs()[some[:, 0], some[:, 1]]
    torch.testing.assert_close(mine, by_pairs(theirs, few, some), rtol=0, atol=1e-5)
    pairs = in_turns(
        {
            "ours": lambda: ours.distances(ours.features(many), drawn),
            "package": lambda: by_pairs(theirs, many, drawn),
        },
        rounds,
    )
    table = in_turns(
        {"ours": all_pairs, "package": lambda: by_pairs(theirs, few, every)},
        rounds,
    )
    print(f"LPIPS: pairs {pairs}; all pairs {table}", file=sys.stderr)
    return {
        f"metric_lpips_{images}pairs": pairs["package"] / pairs["ours"],
        "metric_lpips_allpairs": table["package"] / table["ours"],
    }


def metric_ms_ssim_ratio(rounds: int = 3, size: int = 256, images: int = 200) -> dict[str, float]:
    """MS-SSIM of as many random pairs as images, against pytorch-msssim."""
    drawn, pairs = draw_images(images, size), random_pairs(images, images, seed=0)
    unit, some = (drawn + 1) / 2, pairs[:_TOGETHER]
    wanted = by_pairs(bench_ms_ssim.package, unit, some)
    torch.testing.assert_close(pairwise_ms_ssim(drawn, some), wanted, rtol=0, atol=1e-5)
    seconds = in_turns(
        {
            "ours": lambda: pairwise_ms_ssim(drawn, pairs),
            "package": lambda: by_pairs(bench_ms_ssim.package, unit, pairs),
        },
        rounds,
    )
    print(f"MS-SSIM of pairs: {seconds}", file=sys.stderr)
    return {"metric_ms_ssim": seconds["package"] / seconds["ours"]}


def main() -> None:
    keep_freed_memory()
    ratios = {
        **op_ratios(),
        **ms_ssim_ratios(),
        **lpips_ratios(),
        **metric_ms_ssim_ratio(),
        **embedded_ratios(),
        **biggan_128_ratio(),
    }
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
