"""GFLOP and kept bytes per image of every generator, and the seconds that a trial cannot go below.

``python -m bench.flops`` prints the tables of docs/performance.md. The GFLOP come from the
architectures (``bench.products``); tests hold them against torch's ``FlopCounterMode``, which
counts what a pass on meta tensors runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from amfast.generators.architectures import ARCHITECTURES
from amfast.generators.frozen import FrozenBigGAN
from amfast.generators.frozen_deep import FrozenBigGANDeep
from amfast.generators.reference import BigGAN
from amfast.generators.reference_deep import BigGANDeep
from bench.machine import facts, matmul_peak
from bench.models import embedded_biggan, fold_spectral_norms
from bench.products import (
    LATENTS,
    Gflop,
    Product,
    alexnet,
    biggan_as_written,
    biggan_deep_as_written,
    biggan_deep_reduced,
    biggan_reduced,
    shapenet,
    total,
)
from bench.tables import markdown

META = torch.device("meta")
STEPS = 200
#: FLOP/s of the matrix units in 16 bits: data sheets for V100 and A100, measured for the H200.
PEAKS = {"V100 (125)": 125e12, "A100 (312)": 312e12, "H100, H200 (790)": 790e12}


@dataclass(frozen=True)
class Row:
    """A generator: its shape, its two forms, and the classifier that a trial uses it with."""

    name: str
    config: Any
    reference: Callable[[Any], nn.Module]
    frozen: Callable[[Any, torch.dtype, torch.device], nn.Module]
    as_written: Callable[[Any], list[Product]]
    reduced: Callable[[Any], list[Product]]
    classifier: tuple[str, list[Product]] = ("AlexNet", alexnet())


def rows() -> list[Row]:
    biggan = (BigGAN, FrozenBigGAN, biggan_as_written, biggan_reduced)
    deep = (BigGANDeep, FrozenBigGANDeep, biggan_deep_as_written, biggan_deep_reduced)
    embedded = embedded_biggan().config
    return [
        Row("BigGAN-256", ARCHITECTURES["biggan-256"], *biggan),
        Row("BigGAN-128", ARCHITECTURES["biggan-128"], *biggan),
        Row("BigGAN-deep-512", ARCHITECTURES["biggan-deep-512"], *deep),
        Row("BigGAN-deep-256", ARCHITECTURES["biggan-deep-256"], *deep),
        Row("BigGAN-deep-128", ARCHITECTURES["biggan-deep-128"], *deep),
        Row("embedded", embedded, *biggan, ("ShapeNet", shapenet(embedded.num_classes))),
    ]


@dataclass(frozen=True)
class Pass:
    """One forward on meta tensors of one trial's images, and what it depends on."""

    forward: Callable[[], Tensor]
    weights: tuple[Tensor, ...]


# Building a model takes ten times as long as a pass of it, and on meta tensors it holds no memory.
@cache
def _plain(
    reference: Callable[[Any], nn.Module], config: Any, dtype: torch.dtype, frozen: bool
) -> nn.Module:
    with META:
        model = reference(config).to(dtype).eval().requires_grad_(not frozen)
        if frozen:
            fold_spectral_norms(model, dtype)
    return model


@cache
def _frozen(
    frozen: Callable[[Any, torch.dtype, torch.device], nn.Module],
    reference: Callable[[Any], nn.Module],
    config: Any,
    dtype: torch.dtype,
) -> nn.Module:
    with META:
        return frozen(reference(config).eval(), dtype, META)


def plain_pass(
    row: Row, dtype: torch.dtype = torch.bfloat16, images: int = LATENTS, *, frozen: bool = True
) -> Pass:
    """The generator as written: folded and frozen, or else as a loop that froze nothing runs it."""
    model = _plain(row.reference, row.config, dtype, frozen)
    with META:
        embedding = torch.zeros(1, row.config.embedding_dim, dtype=dtype, requires_grad=True)
        latents = torch.zeros(images, row.config.latent_dim, dtype=dtype)
    weights = [*model.parameters(), *model.buffers()]
    return Pass(lambda: model(embedding.expand(images, -1), latents), tuple(weights))


def frozen_pass(row: Row, dtype: torch.dtype = torch.bfloat16, images: int = LATENTS) -> Pass:
    """The generator as the engine runs it in a step: its latents are prepared."""
    model = _frozen(row.frozen, row.reference, row.config, dtype)
    with META:
        embedding = torch.zeros(1, row.config.embedding_dim, requires_grad=True)
        latents = torch.zeros(1, images, row.config.latent_dim)
    prepared = model.prepare_latents(latents)  # type: ignore[operator]
    return Pass(lambda: model(embedding, prepared), tuple(model.buffers()))


def counted(run: Callable[[], Tensor], images: int = LATENTS) -> tuple[float, float]:
    """GFLOP per image of a forward and of its backward, by torch's counter."""
    with FlopCounterMode(display=False) as forward:
        result = run()
    with FlopCounterMode(display=False) as backward:
        result.sum().backward()
    return forward.get_total_flops() / images / 1e9, backward.get_total_flops() / images / 1e9


def kept_bytes(of: Pass) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward, weights aside."""
    weights = {weight.untyped_storage()._cdata for weight in of.weights}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)  # else its address could serve twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        of.forward()
    return sum(kept.values())


def kept_per_image(make: Callable[[int], Pass]) -> int:
    """What one more image keeps, so that what a trial's images share drops out."""
    return (kept_bytes(make(4)) - kept_bytes(make(2))) // 2


def floor(generator: Gflop, classifier: Gflop, peak: float, steps: int = STEPS) -> float:
    """Seconds of a trial at ``peak`` FLOP/s: every step, every latent, forward and backward."""
    return steps * LATENTS * (generator.needed + classifier.needed) * 1e9 / peak


def gflop_table(generators: list[Row]) -> list[list[str]]:
    table = [
        [
            "GFLOP per image",
            "forward",
            "forward + input gradient",
            "with the map worked out again",
            "unfrozen",
            "MB kept, 16 bits",
        ]
    ]
    for row in generators:
        written, reduced = total(row.as_written(row.config)), total(row.reduced(row.config))
        kept = [
            kept_per_image(partial(make, row, torch.bfloat16)) for make in (plain_pass, frozen_pass)
        ]
        table.append(
            [
                row.name,
                f"{written.forward:.4g} → {reduced.forward:.4g}",
                f"{written.needed:.4g} → {reduced.needed:.4g}",
                f"{reduced.run:.4g}",
                f"{written.unfrozen:.4g}",
                f"{kept[0] / 1e6:.3g} → {kept[1] / 1e6:.3g}",
            ]
        )
    for name, products in dict(row.classifier for row in generators).items():
        of = total(products)
        table.append([name, f"{of.forward:.3g}", f"{of.needed:.3g}", "", f"{of.unfrozen:.3g}", ""])
    return table


def floor_table(generators: list[Row], peaks: dict[str, float]) -> list[list[str]]:
    table = [["seconds per trial, at least", *peaks]]
    for row in generators:
        of = total(row.reduced(row.config)), total(row.classifier[1])
        seconds = [floor(*of, peak) for peak in peaks.values()]
        table.append([f"{row.name} with {row.classifier[0]}", *(f"{s:.3g}" for s in seconds)])
    return table


def peak_here() -> dict[str, float]:
    """The measured peak of the device at hand, under its name and the dtype that serves there."""
    machine = facts()
    if machine["gpu"]:
        name, device, dtype = machine["gpu"], torch.device("cuda"), torch.bfloat16
    else:
        name = f"{machine['cpu_model']}, {machine['threads']} threads"
        device, dtype = torch.device("cpu"), torch.float32
    peak = matmul_peak(device, dtype)
    return {f"{name} ({peak / 1e12:.3g} measured, {str(dtype).removeprefix('torch.')})": peak}


def main() -> None:
    generators = rows()
    print(markdown(gflop_table(generators)), end="\n\n")
    print("The attention map worked out again counts as run, not as needed: floors leave it out.")
    print(f"{STEPS} steps x {LATENTS} latents; TFLOP/s in brackets.", end="\n\n")
    print(markdown(floor_table(generators, PEAKS | peak_here())))


if __name__ == "__main__":
    main()
