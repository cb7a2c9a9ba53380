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
            generator={
                "name": generator.name,
                "fingerprint": generator.fingerprint,
                "resolution": generator.resolution,
                "embedding_dim": generator.embedding_dim,
                "latent_dim": generator.latent_dim,
                "clip_range": list(generator.clip_range),
            },
            classifier={"name": classifier.name, "fingerprint": classifier.fingerprint},
            class_names=dict(enumerate(classifier.labels)),
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                **{name: version(name) for name in ("amfast", "numpy")},
            },
            device={"type": device.type, "name": _device_name(device), "dtype": dtype},
        )


def _device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture and the vector instructions torch uses on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
