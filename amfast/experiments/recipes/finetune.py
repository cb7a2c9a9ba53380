"""Section 3.4: one embedding at a time, finetuned with the original GAN loss."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from amfast.api import own_rows
from amfast.discriminator import load_discriminator
from amfast.evaluation.pictures import RealImages, to_float
from amfast.evaluation.session import open_real
from amfast.experiments.gan_loss import GENERATOR_LR, finetune_embedding
from amfast.experiments.laboratory import Laboratory
from amfast.experiments.measured import Finding
from amfast.experiments.recipes.statements import brings_less
from amfast.optimize.initializers import METHODS

#: The rate that BigGAN was trained with, and AM-S's.
RATES = {"GAN loss": GENERATOR_LR, "GAN loss, fast": METHODS["am-s"].learning_rate}


def finetune(lab: Laboratory) -> list[Finding]:
    options = lab.options
    published = load_discriminator(
        options.generator, weights=options.discriminator_weights, device=options.device
    )
    am_s = lab.measure("AM-S", lab.optimise("AM-S", method="am-s").directory.path)
    job = lab.job(method="am-s")
    device = job.generator.class_embeddings.device
    names = {i: job.label(i) for i in job.config.classes}
    rows = own_rows(job.generator, job.classifier)
    real = open_real(
        options.against,
        generator=options.generator,
        labels=lambda: job.classifier.spec.labels,
        classes=names,
        size=job.generator.spec.resolution,
        seed=options.seed,
        device=device,
        on_note=lab.reporter.on_note,
    )
    if real is None:
        lab.reporter.on_note("no real images: the discriminator stays as it was published")
    findings = []
    for name, rate in RATES.items():
        lab.reporter.on_stage(f"{name}: 10 iterations of each class at {rate:g}")
        found = {}
        for class_id in names:
            found[class_id] = finetune_embedding(
                job.generator,
                copy.deepcopy(published),
                job.generator.class_embeddings[rows[class_id]],
                rows[class_id],
                real=None if real is None else _Draw(real, class_id, options.seed),
                learning_rate=rate,
                seed=options.seed,
            )
        measured = lab.measure(name, lab.keep(name, job.generator, names, found))
        findings.append(brings_less(f"{name} (learning rate {rate:g})", measured, "AM-S", am_s))
    return findings


class _Draw:
    """Batches of a class's real images in [-1, 1], drawn anew from at most 1,000."""

    def __init__(self, real: RealImages, class_id: int, seed: int) -> None:
        self._images = real.of_class(class_id, 1000)
        self._stream = torch.Generator().manual_seed(seed)

    def __call__(self, count: int) -> Tensor:
        rows = torch.randint(len(self._images), (count,), generator=self._stream)
        return to_float(self._images[rows], self._images.device)
