"""One step of all slots: the passes through the networks, then the update, all in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from amfast.device_errors import out_of_memory
from amfast.errors import AmfastError, UsageError
from amfast.generators.protocol import Generator
from amfast.metrics.diversity import pooled_spread
from amfast.optimize.diversity import latent_gaps
from amfast.optimize.memory import Pass, plan_passes
from amfast.optimize.noise_layer import apply_noise_layers
from amfast.optimize.objective import Objective, evaluate, images_together
from amfast.optimize.parallel import Map, side_by_side
from amfast.optimize.slots import Slots
from amfast.optimize.trials import draw_latents, draw_shared_latents
from amfast.optimize.update import Update


@dataclass(frozen=True)
class StepSettings:
    """The numbers of a step (paper, section 2).

    ``weight_decay``, ``clamp_in_graph`` and ``shared_latents`` are those of ``Profile``.
    ``noise_layer`` learns a linear map of the latents beside the embedding. ``deterministic``: no
    operator sees more than one trial, so that nothing is rounded otherwise among others;
    ``images_per_pass`` is then at most ``latents``.
    """

    learning_rate: float
    latents: int
    steps_per_latents: int
    images_per_pass: int
    weight_decay: float = 0.0
    clamp_in_graph: bool = False
    shared_latents: bool = False
    noise_layer: bool = False
    deterministic: bool = False


class Ascent(NamedTuple):
    """What the networks say of T trials with Z latents each."""

    log_prob: Tensor  # [T, Z]
    pooled: Tensor  # [T, Z, 192]: the images, pooled
    gradient: Tensor  # [T, V] of the mean worth over the latents


class Step:
    """A callable that advances the slots it was given by one step. Nothing in it waits for the
    device.

    The slots' tensors stay where they are as long as their number does, so that a recorded step can
    be replayed on them.
    """

    def __init__(
        self,
        generator: Generator,
        objective: Objective,
        settings: StepSettings,
        on_note: Callable[[str], None],
        cores: int | None = None,
    ) -> None:
        """``cores`` is that of ``side_by_side``."""
        self.generator, self.objective, self.settings = generator, objective, settings
        self.on_note, self._cores = on_note, cores
        self.images_per_pass = settings.images_per_pass
        self.slots = Slots.begin([], generator.class_embeddings[:0], 0)
        self._latents: Tensor  # [T, Z, D]
        self._prepared: list[tuple[Pass, Any, Tensor | None]]
        self._targets: Tensor  # [T, Z]
        self._stack = ExitStack()

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def load(self, slots: Slots) -> None:
        """Take over a copy of ``slots`` and draw their latents."""
        self.place(slots)
        self.prepare()

    def place(self, slots: Slots) -> bool:
        """The same without ``prepare``; true if the slots' tensors have a new place."""
        latents = self._draw(slots)
        targets = torch.tensor([t.class_id for t in slots.trials], device=latents.device)
        targets = targets[:, None].expand(-1, self.settings.latents)
        if len(self.slots.trials) == len(slots.trials):
            mine = self.slots.tensors()
            for name, tensor in slots.tensors().items():
                mine[name].copy_(tensor)
            self.slots = Slots(slots.trials, **mine)
            self._latents.copy_(latents)
            self._targets.copy_(targets)
            return False
        self.slots = slots.rows(range(len(slots.trials)))
        self._latents, self._targets = latents, targets.contiguous()
        self._update = Update(
            slots.history.shape[1],
            self.settings.learning_rate,
            self._bounds(slots),
            self.settings.weight_decay,
        )
        self._plan()
        return True

    def _draw(self, slots: Slots) -> Tensor:
        resamples = [step // self.settings.steps_per_latents for step in slots.step.tolist()]
        dim, device = self.generator.spec.latent_dim, slots.start.device
        if self.settings.shared_latents:
            seed = slots.trials[0].seed
            return draw_shared_latents(seed, resamples, self.settings.latents, dim, device)
        return draw_latents(slots.trials, resamples, self.settings.latents, dim, device)

    def _bounds(self, slots: Slots) -> tuple[Tensor, Tensor]:
        """Of the projection, ``[V]`` each: an embedding's, and none for a noise layer."""
        count, embedding_dim = slots.variables.shape[1], slots.start.shape[1]
        least, most = slots.variables.new_tensor([-math.inf, math.inf])[:, None].repeat(1, count)
        if not self.settings.clamp_in_graph:
            least[:embedding_dim], most[:embedding_dim] = self.generator.spec.clip_range
        return least, most

    def _plan(self) -> None:
        count, latents = len(self.slots.trials), self.settings.latents
        together = images_together(self.objective)
        self._passes = plan_passes(count, latents, self.images_per_pass, together)
        self._stack.close()
        device = self.slots.start.device
        self._run_passes: Map[Ascent] = self._stack.enter_context(
            side_by_side(device, len(self._passes), self._cores)
        )

    def prepare(self) -> None:
        """What depends on the latents alone, once for all the steps that use them.

        With a noise layer that is how far they are apart, at most.
        """
        drawn = [self._own(self._latents[part.trials, part.latents]) for part in self._passes]
        prepare = self.generator.prepare_latents
        prepared = drawn if self.settings.noise_layer else [prepare(latents) for latents in drawn]
        paired = images_together(self.objective) > 1
        gaps = [latent_gaps(latents).flatten() if paired else None for latents in drawn]
        self._prepared = list(zip(self._passes, prepared, gaps, strict=True))

    def __call__(self) -> None:
        while True:
            try:
                ascent = self.ascend()
                break
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # its frames would keep the pass's tensors
            self.halve(failure)
        self.update(ascent)

    def update(self, ascent: Ascent) -> None:
        parts = [(self.slots, ascent)]
        if self.settings.deterministic:
            rows = zip(*(tensor.split(1) for tensor in ascent), strict=True)
            apart = [Ascent(*map(self._own, row)) for row in rows]
            parts = list(zip(self.slots.apart(), apart, strict=True))
        for slots, found in parts:
            self._update(slots, found.log_prob, pooled_spread(found.pooled), found.gradient)

    def _own(self, part: Tensor) -> Tensor:
        """A part of a tensor that is to be read by itself.

        Libraries choose among their kernels by where numbers lie in memory, which depends on the
        other trials unless it is a copy.
        """
        return part.clone() if self.settings.deterministic else part

    def halve(self, error: BaseException) -> None:
        """Make do with half as many images in a pass; raise ``error`` if there is one only.

        ``AmfastError`` where passes have to keep their size.
        """
        most = max(
            (p.trials.stop - p.trials.start) * (p.latents.stop - p.latents.start)
            for p in self._passes
        )
        if most <= images_together(self.objective):
            raise error
        if self.settings.deterministic:
            raise AmfastError(
                f"out of memory with {most} images in a pass, and passes of another size would "
                "round otherwise, which --deterministic rules out: start a new run with "
                f"--microbatch {most // 2}"
            ) from error
        self.images_per_pass = most // 2
        self.on_note(
            f"out of memory with {most} images in a pass: going on with {self.images_per_pass}; "
            f"--microbatch {self.images_per_pass} starts there"
        )
        self._plan()
        self.prepare()

    def ascend(self) -> Ascent:
        """What the networks say of all trials.

        The slots are only read, so a step that runs out of memory here can be made again.
        """
        done = self._run_passes(self._run_pass, self._prepared)
        if len(done) == 1:
            return done[0]
        log_prob = torch.empty(self._targets.shape, device=self._targets.device)
        pooled = log_prob.new_empty(*log_prob.shape, done[0].pooled.shape[2])
        gradient = torch.zeros_like(self.slots.variables)
        for part, found in zip(self._passes, done, strict=True):
            log_prob[part.trials, part.latents] = found.log_prob
            pooled[part.trials, part.latents] = found.pooled
            gradient[part.trials] += found.gradient
        return Ascent(log_prob, pooled, gradient)

    def _run_pass(self, item: tuple[Pass, Any, Tensor | None]) -> Ascent:
        part, prepared, gaps = item
        width = self.slots.start.shape[1]
        variables = self._own(self.slots.variables[part.trials])
        embeddings = variables[:, :width].requires_grad_()
        leaves, seen = [embeddings], embeddings
        if self.settings.clamp_in_graph:
            seen = embeddings.clamp(*self.generator.spec.clip_range)
        if self.settings.noise_layer:
            leaves.append(variables[:, width:].requires_grad_())
            prepared = self.generator.prepare_latents(apply_noise_layers(leaves[1], prepared))
        targets = self._targets[part.trials, part.latents]
        log_prob, rows, pooled = (
            of_all.unflatten(0, targets.shape)
            for of_all in evaluate(
                self.objective, self.generator, seen, prepared, targets.flatten(), gaps
            )
        )
        # Each trial's part of the gradient is scaled for itself: no trial can push another's out
        # of a 16-bit format's range. The scales are powers of two, so dividing them out is exact.
        scale = self.slots.loss_scale[part.trials, None]
        scaled = self._gradients(rows, leaves, (scale / self.settings.latents).expand_as(rows))
        return Ascent(log_prob.detach(), pooled, scaled / scale)

    def _gradients(self, rows: Tensor, leaves: list[Tensor], d_rows: Tensor) -> Tensor:
        """By each of ``leaves``, side by side; ``UsageError`` where one would learn nothing."""
        found: Sequence[Tensor | None] = [None] * len(leaves)
        if rows.requires_grad:
            found = torch.autograd.grad(rows, leaves, d_rows.to(rows), allow_unused=True)
        names = ("embeddings through __call__", "latents through prepare_latents")
        gradients = []
        for name, gradient in zip(names, found, strict=False):
            if gradient is None:
                raise UsageError(
                    f"no gradient flows from the images of generator {self.generator.spec.name} "
                    f"to the {name}: is it under torch.no_grad?"
                )
            gradients.append(gradient)
        return torch.cat(gradients, dim=1) if len(gradients) > 1 else gradients[0]
