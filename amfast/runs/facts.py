"""What a run depends on besides its configuration."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from amfast.classifiers.protocol import ClassifierSpec
from amfast.generators.protocol import GeneratorSpec


class GeneratorFacts(TypedDict):
    name: str
    fingerprint: str
    resolution: int
    embedding_dim: int
    latent_dim: int
    clip_range: list[float]


class ClassifierFacts(TypedDict):
    name: str
    fingerprint: str


@dataclass(frozen=True)
class RunFacts:
    """Generator, classifier, class names by id, versions and device, as ``run.json`` holds them."""

    generator: GeneratorFacts
    classifier: ClassifierFacts
    class_names: dict[int, str]
    versions: dict[str, str]
    device: dict[str, str]

    @staticmethod
    def gather(
        generator: GeneratorSpec, classifier: ClassifierSpec, device: torch.device, dtype: str
    ) -> RunFacts:
        """The facts of this process; ``dtype`` is the name the run computes in, such as "fp32"."""
        return RunFacts(
            generator=generator_facts(generator),
            classifier={"name": classifier.name, "fingerprint": classifier.fingerprint},
            class_names=dict(enumerate(classifier.labels)),
            versions=versions(),
            device={"type": device.type, "name": _device_name(device), "dtype": dtype},
        )


def generator_facts(spec: GeneratorSpec) -> GeneratorFacts:
    return {
        "name": spec.name,
        "fingerprint": spec.fingerprint,
        "resolution": spec.resolution,
        "embedding_dim": spec.embedding_dim,
        "latent_dim": spec.latent_dim,
        "clip_range": list(spec.clip_range),
    }


def versions() -> dict[str, str]:
    """Of what decides a result's bytes in this process."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        **{name: version(name) for name in ("amfast", "numpy")},
    }


def _device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture and the vector instructions torch uses on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
