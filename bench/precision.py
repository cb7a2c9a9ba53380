"""How far 16- and 32-bit numbers stray from float64: the tables of docs/precision.md.

``python -m bench.precision`` prints them and writes them between the markers of that page.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from amfast.classifiers import ModuleClassifier, load_classifier
from amfast.device import resolve_device
from amfast.embedded import EMBEDDED
from amfast.generators import frozen
from amfast.generators.biggan import infer_config, load_reference
from amfast.generators.frozen import FrozenBigGAN
from amfast.generators.frozen_layers import FrozenConv
from amfast.generators.reference import BigGAN
from amfast.optimize import objective as objective_module
from amfast.optimize.objective import TargetLogProb
from amfast.optimize.precision import FP16_LOSS_SCALE
from amfast.optimize.trials import Trial, draw_latents
from amfast.weights.files import read_safetensors
from bench.tables import markdown

PAGE = Path(__file__).parents[1] / "docs" / "precision.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
GRADIENT = "gradient of the embedding"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Problem:
    """Embeddings ``[T, E]`` half-way between the mean and their classes, where gradients matter."""

    model: BigGAN
    judge: ModuleClassifier
    embeddings: Tensor
    latents: Tensor
    targets: Tensor

    @staticmethod
    def embedded(device: torch.device, latents: int = 8) -> Problem:
        state, metadata = read_safetensors(EMBEDDED / "generator.safetensors")
        eps = {name: float(metadata[name]) for name in ("norm_eps", "spectral_eps")}
        model = load_reference(state, infer_config(state, **eps))
        table = model.shared.weight.detach()
        half = 0.5 * (table + table.mean(dim=0))
        trials = [Trial(i, 0, 0) for i in range(len(table))]
        return Problem(
            model,
            load_classifier("embedded", device=device),
            half.to(device),
            draw_latents(trials, [0] * len(trials), latents, model.config.latent_dim, device),
            torch.arange(len(table), device=device).repeat_interleave(latents),
        )

    def measure(self, dtype: torch.dtype, loss_scale: float = 1.0) -> dict[str, Tensor]:
        """Every stage's values in float64, then the gradient ``[T, E]`` of the mean."""
        device = self.embeddings.device
        generator = FrozenBigGAN(self.model, dtype, device)
        judge = ModuleClassifier(self.judge.module, self.judge.spec, device, dtype)  # type: ignore[arg-type]
        objective = TargetLogProb(judge)
        seen: dict[str, Tensor] = {}
        with _recorded(generator, seen):
            leaf = self.embeddings.to(dtype if dtype == torch.float64 else torch.float32)
            leaf = leaf.clone().requires_grad_()
            pre_tanh = generator.pre_tanh(leaf, self.latents)
            with patch.object(objective_module, "target_log_prob", _noting(seen)):
                rows = objective(pre_tanh, self.targets, input="pre_tanh")
        seen["image"] = pre_tanh.double().tanh()
        scale = torch.full_like(rows, loss_scale / self.latents.shape[1])
        (gradient,) = torch.autograd.grad(rows, leaf, scale)
        seen[GRADIENT] = gradient / loss_scale
        return {name: value.detach().double() for name, value in seen.items()}


def _noting(seen: dict[str, Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    function: Callable[[Tensor, Tensor], Tensor] = objective_module.target_log_prob

    def noted(logits: Tensor, targets: Tensor) -> Tensor:
        seen["logits"], seen["log-probability"] = logits, function(logits, targets)
        return seen["log-probability"]

    return noted


@contextmanager
def _recorded(generator: FrozenBigGAN, seen: dict[str, Tensor]) -> Iterator[None]:
    """Note the sum after every block but the last, where the next one takes it in."""

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            seen[name] = inputs[0]

        return hook

    with ExitStack() as stack:
        for i, block in enumerate(generator.blocks):
            if i:
                name = f"sum after block {i}"
                hook = block.conv_sc.register_forward_pre_hook(note(name))  # type: ignore[union-attr, operator]
                stack.callback(hook.remove)
        yield


def error(found: Tensor, exact: Tensor) -> float:
    """Root mean square of the difference over that of the exact values."""
    return float((found - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def by_trial(found: Tensor, exact: Tensor) -> str:
    """The same for the rows of two gradients ``[T, E]``: the median row's and the worst's."""
    errors = [error(mine, theirs) for mine, theirs in zip(found, exact, strict=True)]
    return f"{statistics.median(errors):.1e}, {max(errors):.1e}"


def stages(problem: Problem) -> list[list[str]]:
    exact = problem.measure(torch.float64)
    columns = {
        name: problem.measure(dtype, FP16_LOSS_SCALE if name == "fp16" else 1.0)
        for name, dtype in DTYPES.items()
    }
    rows = [["stage", *columns]]
    for stage, wanted in exact.items():
        if stage == "log-probability":
            off = [f"{(c[stage] - wanted).abs().mean():.1e} nats" for c in columns.values()]
            rows.append([f"{stage}, mean absolute", *off])
        elif stage == GRADIENT:
            rows.append(
                [
                    f"{stage}, median and worst trial",
                    *(by_trial(c[stage], wanted) for c in columns.values()),
                ]
            )
        else:
            rows.append([stage, *(f"{error(c[stage], wanted):.1e}" for c in columns.values())])
    return rows


def _rounded(name: str, dtype: torch.dtype) -> Any:
    """What the engine keeps in fp32, kept in ``dtype`` instead; or the other way round."""
    if name == "scales and shifts in 16 bits":
        whole = FrozenBigGAN._norms

        def norms(self: FrozenBigGAN, *inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            for scale, shift in whole(self, *inputs):
                yield scale.to(dtype).to(scale.dtype), shift.to(dtype).to(shift.dtype)

        return patch.object(FrozenBigGAN, "_norms", norms)
    if name == "log-softmax in 16 bits":
        return patch.object(
            objective_module,
            "target_log_prob",
            lambda logits, target: (
                logits.to(dtype).log_softmax(dim=1).gather(1, target[:, None])[:, 0].float()
            ),
        )
    if name == "classifier in fp32":
        keep = ModuleClassifier.__init__

        def whole_judge(self: Any, module: Any, spec: Any, device: Any, _: Any) -> None:
            keep(self, module, spec, device, torch.float32)

        return patch.object(ModuleClassifier, "__init__", whole_judge)
    if name == "residual sums in fp32":
        stack = ExitStack()
        forward = FrozenConv.apply_forward

        def fused(main: Tensor, skip: Tensor, scale: Tensor, shift: Tensor) -> Any:
            total = frozen.upsample_add(main.float(), skip.float())
            return total, frozen.cond_norm_relu(total, scale, shift).to(dtype)

        stack.enter_context(patch.object(frozen, "upsample_add_norm_relu", fused))
        stack.enter_context(
            patch.object(
                FrozenConv, "apply_forward", lambda self, x: forward(self, x.to(self.weight.dtype))
            )
        )
        return stack
    return ExitStack()


ALTERNATIVES = (
    "as shipped",
    "residual sums in fp32",
    "classifier in fp32",
    "scales and shifts in 16 bits",
    "log-softmax in 16 bits",
)


def alternatives(problem: Problem) -> list[list[str]]:
    """What each choice does to the gradient and to the log-probability."""
    exact = problem.measure(torch.float64)
    rows = [
        ["", "bf16: log-probability", "bf16: gradient", "fp16: log-probability", "fp16: gradient"]
    ]
    for name in ALTERNATIVES:
        row = [name]
        for dtype in (torch.bfloat16, torch.float16):
            with _rounded(name, dtype):
                found = problem.measure(dtype, FP16_LOSS_SCALE)
            off = (found["log-probability"] - exact["log-probability"]).abs().mean()
            row += [f"{off:.1e} nats", by_trial(found[GRADIENT], exact[GRADIENT])]
        rows.append(row)
    return rows


def loss_scales(problem: Problem) -> list[list[str]]:
    """The gradient's error in fp16, and how much of it is not finite, by loss scale."""
    exact = problem.measure(torch.float64)[GRADIENT]
    rows = [["loss scale", "gradient", "trials out of range"]]
    for power in (0, 5, 10, 15, 20):
        found = problem.measure(torch.float16, 2.0**power)[GRADIENT]
        usable = found.isfinite().all(dim=1)
        off = by_trial(found[usable], exact[usable]) if usable.any() else "-"
        rows.append([f"2^{power}", off, f"{int((~usable).sum())} of {len(usable)}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--print", action="store_true", help="leave docs/precision.md as it is")
    options = parser.parse_args()
    device = resolve_device(options.device)
    problem = Problem.embedded(device)
    measured = "\n\n".join(
        [
            f"Measured on {device.type} with torch {torch.__version__.split('+')[0]}.",
            "### By stage",
            markdown(stages(problem)),
            "### Other choices",
            markdown(alternatives(problem)),
            "### fp16's loss scale",
            markdown(loss_scales(problem)),
        ]
    )
    print(measured)
    if not options.print:
        before, rest = PAGE.read_text().split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n\n{measured}\n\n{END}{after}")


if __name__ == "__main__":
    main()
