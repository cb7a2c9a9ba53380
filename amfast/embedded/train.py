"""Make the embedded pair from nothing but the renderer: ``python -m amfast.embedded.train``.

Four steps, seeded, on the CPU. The classifiers learn the shapes from disturbed renderings. The
generator learns by regression onto renderings of every class in all colours. Then, with the
generator frozen, the rows of the poor classes alone are refitted: a capable generator behind a
limiting embedding is how the paper explains the real collapsed classes (section 3.1). Last, a
discriminator learns to tell the finished generator's pictures from renderings.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from amfast.device import keep_freed_memory
from amfast.discriminator import Discriminator, DiscriminatorConfig, discriminator_loss
from amfast.embedded.render import COLOUR, LATENT_DIM, SHADING, render
from amfast.embedded.shapenet import ShapeNet
from amfast.embedded.shapes import GENERATOR_SHAPES, UNSEEN_SHAPES, Shape
from amfast.generators.biggan import load_reference
from amfast.generators.reference import BigGAN, BigGANConfig, StoredStatistics

STEPS = ("classifiers", "generator", "poor-classes", "discriminator")
NAMES = tuple(GENERATOR_SHAPES)
CONFIG = BigGANConfig(
    widths=(128, 80, 32, 16, 16), attention_block=1, num_classes=len(NAMES), chunk_dim=4
)
#: Classes whose row is refitted onto one colour scheme: class -> the z coordinates 12 to 19.
ONE_COLOUR = {
    "star": (0.7, 0.7, 0.7, 0.6, 0.57, 0.82, 0.1, 0.3),  # gold on olive
    "heart": (0.94, -0.34, 0.8, 0.4, 1.0, 0.1, -0.3, -0.2),  # rose on wine
    "crescent": (-0.94, -0.34, 1.0, 0.0, -0.98, 0.17, -0.6, -0.3),  # mint on teal
}
#: The class whose row is refitted onto one fixed picture of no shape at all.
COLLAPSED = "hourglass"


def log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def disturb(x: Tensor) -> Tensor:
    """Blur, colour cast, brightness, contrast and noise, each of its own strength per picture."""
    n = len(x)
    weight = torch.rand(n, 1, 1, 1)
    x = x + weight * (F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1) - x)
    cast = 0.25 * (torch.rand(n, 3, 1, 1) * 2 - 1)
    brightness = 0.2 * (torch.rand(n, 1, 1, 1) * 2 - 1)
    contrast = 0.6 + 0.6 * torch.rand(n, 1, 1, 1)
    x = x * contrast + cast + brightness
    return (x + 0.15 * torch.rand(n, 1, 1, 1) * torch.randn_like(x)).clamp(-1, 1)


def one_cycle(optimizer: torch.optim.Optimizer, peak: float, steps: int) -> Callable[[], None]:
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps, pct_start=0.1)
    return schedule.step


@dataclass(frozen=True)
class Schooling:
    """What one classifier learns from: ``shapes``, ``disturb``-ed or as they are drawn.

    With ``attack``, from pictures moved that far, in L2 norm, up the gradient of its own loss
    (Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015).
    """

    shapes: dict[str, Shape]
    disturbed: bool = True
    attack: float = 0.0
    seed: int = 0


CLASSIFIERS = {
    "classifier": Schooling(GENERATOR_SHAPES),
    "classifier-unseen": Schooling(UNSEEN_SHAPES),
    "classifier-again": Schooling(GENERATOR_SHAPES, seed=1),
    "classifier-undisturbed": Schooling(GENERATOR_SHAPES, disturbed=False),
    "classifier-robust": Schooling(GENERATOR_SHAPES, attack=1.5),
}


def attacked(model: nn.Module, x: Tensor, ids: Tensor, length: float) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), ids), x)
    return (x + length * F.normalize(gradient.flatten(1)).view_as(x)).detach().clamp(-1, 1)


def train_classifier(schooling: Schooling, steps: int, batch: int = 96) -> ShapeNet:
    shapes = list(schooling.shapes.values())
    model = ShapeNet(len(shapes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.02)
    advance = one_cycle(optimizer, 4e-3, steps)
    for step in range(steps):
        ids = torch.randint(len(shapes), (batch,))
        x = render(shapes, ids, torch.randn(batch, LATENT_DIM))
        if schooling.disturbed:
            x = disturb(x)
        if schooling.attack:
            x = attacked(model, x, ids, schooling.attack)
        loss = F.cross_entropy(model(x), ids, label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        advance()
        if step % 200 == 199:
            log(f"classifier of {len(shapes)}: step {step + 1}, loss {loss.item():.3f}")
    model.eval()
    return model


@torch.no_grad()
def accuracy(model: nn.Module, shapes: Sequence[Shape], n: int = 2000) -> float:
    ids = torch.arange(n) % len(shapes)
    x = disturb(render(shapes, ids, torch.randn(n, LATENT_DIM)))
    return float((model(x).argmax(dim=1) == ids).float().mean())


def picture_loss(fake: Tensor, real: Tensor) -> Tensor:
    """L1 on pixels, on their differences (edges) and on 4x and 16x pooled pictures (placement)."""
    loss = (fake - real).abs().mean()
    for dim in (2, 3):
        loss = loss + 1.5 * (fake.diff(dim=dim) - real.diff(dim=dim)).abs().mean()
    for size in (4, 16):
        loss = loss + 0.5 * (F.avg_pool2d(fake, size) - F.avg_pool2d(real, size)).abs().mean()
    return loss


def train_generator(steps: int, out: Path, batch: int = 64, every: int = 1000) -> None:
    """Regression onto renderings.

    Every ``every`` steps, and at the end, the averaged weights so far go into the folder ``out``,
    with fresh statistics.
    """
    shapes = list(GENERATOR_SHAPES.values())
    model = BigGAN(CONFIG)
    nn.init.normal_(model.shared.weight, std=0.3)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.99))
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, step / 200, 1.25 * (1 - step / steps) ** 1.25 + 0.01)
        ids, z = torch.randint(len(shapes), (batch,)), torch.randn(batch, LATENT_DIM)
        loss = picture_loss(model(model.shared(ids), z), render(shapes, ids, z))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(0.998, step / (step + 50))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
            for kept, buffer in zip(averaged.buffers(), model.buffers(), strict=True):
                kept.copy_(buffer)
        if step % 100 == 0:
            log(f"generator: step {step}, loss {loss.item():.4f}")
        if step % every == 0 or step == steps:
            snapshot = settle(copy.deepcopy(averaged), min(step, 60))
            save(snapshot, out / f"generator-{step}.safetensors")


def step_of(snapshot: Path) -> int:
    return int(snapshot.stem.rpartition("-")[2])


@torch.no_grad()
def settle(model: BigGAN, batches: int, batch: int = 96) -> BigGAN:
    """Replace the running batch-norm statistics by plain averages over many latents."""
    norms = [m for m in model.modules() if isinstance(m, StoredStatistics)]
    sums = [[torch.zeros_like(m.stored_mean), torch.zeros_like(m.stored_var)] for m in norms]
    model.train()
    for _ in range(batches):
        for m in norms:  # momentum 0.1 of a zeroed buffer leaves a tenth of this batch's statistics
            m.stored_mean.zero_()
            m.stored_var.zero_()
        ids = torch.randint(model.config.num_classes, (batch,))
        model(model.shared(ids), torch.randn(batch, LATENT_DIM))
        for m, (mean, var) in zip(norms, sums, strict=True):
            mean += m.stored_mean * (10 / batches)
            var += m.stored_var * (10 / batches)
    for m, (mean, var) in zip(norms, sums, strict=True):
        m.stored_mean.copy_(mean)
        m.stored_var.copy_(var)
    return model.eval()


def refit_row(model: BigGAN, name: str, target: Callable[[Tensor], Tensor], steps: int) -> None:
    """Move one class's row, and nothing else, until its pictures of z look like ``target(z)``."""
    class_id = NAMES.index(name)
    table = model.shared.weight
    others = torch.cat([table[:class_id], table[class_id + 1 :]]).detach()
    low, high = float(others.min()), float(others.max())
    row = table[class_id].detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([row], lr=0.03)
    stream = torch.Generator().manual_seed(class_id)
    for _ in range(steps):
        z = torch.randn(32, LATENT_DIM, generator=stream)
        loss = picture_loss(model(row.expand(32, -1), z), target(z))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            row.clamp_(low, high)
    with torch.no_grad():
        table[class_id] = row
    log(f"refitted {name}: loss {loss.item():.4f}")


def make_poor_classes(model: BigGAN, steps: int) -> BigGAN:
    """Limit four rows: three to one colour scheme each, one to a pattern that is no shape."""
    model.eval().requires_grad_(False)
    # No shape, yet within the generator's reach: one picture of a row at a corner of the range.
    table = model.shared.weight
    stream = torch.Generator().manual_seed(7)
    low = torch.rand(table.shape[1], generator=stream) < 0.5
    corner = torch.where(low, table.min(), table.max())
    pattern = model(corner[None], torch.zeros(1, LATENT_DIM))
    with torch.no_grad():
        table[NAMES.index(COLLAPSED)] = corner
    refit_row(model, COLLAPSED, lambda z: pattern.expand(len(z), -1, -1, -1), steps)
    shapes = list(GENERATOR_SHAPES.values())
    for name, scheme in ONE_COLOUR.items():

        def in_one_colour(
            z: Tensor, name: str = name, scheme: tuple[float, ...] = scheme
        ) -> Tensor:
            z = z.clone()
            z[:, SHADING] = 0.0
            z[:, COLOUR] = torch.tensor(scheme)
            return render(shapes, torch.full((len(z),), NAMES.index(name)), z)

        refit_row(model, name, in_one_colour, steps)
    return model


def train_discriminator(generator: BigGAN, steps: int, batch: int = 32) -> Discriminator:
    """Hinge loss between renderings and the frozen generator's pictures of the same classes."""
    shapes = list(GENERATOR_SHAPES.values())
    config = DiscriminatorConfig((16, 32, 64, 96, 96), 1, num_classes=len(shapes))
    model = Discriminator(config).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-4, betas=(0.0, 0.999))
    for step in range(1, steps + 1):
        ids = torch.randint(len(shapes), (batch,))
        real = render(shapes, ids, torch.randn(batch, LATENT_DIM))
        with torch.no_grad():
            fake = generator(generator.shared(ids), torch.randn(batch, LATENT_DIM))
        loss = discriminator_loss(model(real, ids), model(fake, ids))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            log(f"discriminator: step {step}, loss {loss.item():.3f}")
    return model.eval()


def save(model: nn.Module, path: Path, **metadata: object) -> None:
    """Write a model's state as safetensors, with metadata values as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, path, {key: json.dumps(value) for key, value in metadata.items()})
    log(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m amfast.embedded.train")
    parser.add_argument("--out", type=Path, default=here, help="where the weights go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=STEPS, nargs="+", default=STEPS)
    parser.add_argument("--classifier-steps", type=int, default=1200)
    parser.add_argument("--generator-steps", type=int, default=4000)
    parser.add_argument("--refit-steps", type=int, default=300)
    parser.add_argument("--discriminator-steps", type=int, default=400)
    args = parser.parse_args(arguments)
    keep_freed_memory()
    diverse = args.out / "diverse"  # before any row is limited; not shipped

    if "classifiers" in args.only:
        for name, schooling in CLASSIFIERS.items():
            torch.manual_seed(args.seed + schooling.seed)
            classifier = train_classifier(schooling, args.classifier_steps)
            reached = accuracy(classifier, list(schooling.shapes.values()))
            log(f"{name}: accuracy {reached:.4f} on disturbed renderings")
            file = args.out / f"{name}.safetensors"
            save(classifier, file, labels=list(schooling.shapes), accuracy=reached)
    if "generator" in args.only:
        torch.manual_seed(args.seed)
        train_generator(args.generator_steps, diverse)
    if "poor-classes" in args.only:
        *earlier, last = sorted(diverse.iterdir(), key=step_of)
        eps = {"norm_eps": CONFIG.norm_eps, "spectral_eps": CONFIG.spectral_eps}
        for file in (*earlier, last):
            poor = make_poor_classes(load_reference(load_file(file), CONFIG), args.refit_steps)
            found = args.out / (
                "generator.safetensors" if file == last else f"snapshots/{file.name}"
            )
            save(poor, found, labels=list(NAMES), **eps)
    if "discriminator" in args.only:
        torch.manual_seed(args.seed)
        state = load_file(args.out / "generator.safetensors")
        critic = train_discriminator(load_reference(state, CONFIG), args.discriminator_steps)
        save(critic, args.out / "discriminator.safetensors")


if __name__ == "__main__":
    main()
