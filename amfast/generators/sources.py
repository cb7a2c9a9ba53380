"""Where a generator's weights come from: its own file, another one, a directory, or chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from amfast.config import EpsProfile
from amfast.embedded import EMBEDDED
from amfast.errors import UsageError, WeightsError
from amfast.generators.architectures import (
    ARCHITECTURES,
    EPS_PROFILES,
    default_eps,
    random_biggan,
    random_deep,
)
from amfast.generators.biggan import infer_config, load_reference
from amfast.generators.biggan_deep import EMBEDDINGS_KEY, infer_deep_config, load_deep_reference
from amfast.generators.reference import BigGAN, BigGANConfig
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig
from amfast.imagenet import CLASSES, imagenet_labels
from amfast.text import parse_json
from amfast.weights.files import RANDOM, read_labels, read_weights

_DEEP_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class PlainGenerator:
    """A plain model with its weights, the name it goes by, and its classes' names."""

    model: BigGAN | BigGANDeep
    name: str
    labels: list[str] = field(repr=False)


def load_plain(name: str, weights: str | Path | None, eps: EpsProfile) -> PlainGenerator:
    """The plain model that ``load_generator`` freezes; arguments and errors are the same."""
    if name != "embedded" and name not in ARCHITECTURES:
        known = ", ".join(["embedded", *ARCHITECTURES])
        raise UsageError(f"unknown generator {name!r}; it may be one of {known}")
    if eps != "auto" and eps not in EPS_PROFILES:
        known = ", ".join(["auto", *EPS_PROFILES])
        raise UsageError(f"eps is {eps!r}; it may be one of {known}")
    if str(weights) == RANDOM:
        return _random(name, eps)
    path, shown = _locate(name, weights)
    state, metadata, path = read_generator(path)
    values = {key: metadata.get(key) for key in ("norm_eps", "spectral_eps")}
    found_eps = _checked_eps(name, eps, values, path)
    try:
        model = _build(state, found_eps)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    _check_architecture(name, model.config, path)
    return PlainGenerator(model, shown, _labels(metadata, model.config.num_classes, path))


def check_generator(name: str, state: Mapping[str, Tensor]) -> None:
    """Raise ``WeightsError`` unless these tensors are those of the published generator ``name``."""
    eps = dict(zip(("norm_eps", "spectral_eps"), default_eps(name), strict=True))
    _check_architecture(name, _build(state, eps).config, Path("the file"))


def weights_path(name: str, weights: str | Path | None) -> Path:
    """The file or directory that ``load_generator`` reads: given, shipped, or in the weight store.

    Raises ``UsageError`` for random weights, which are in none, and ``WeightsError`` for weights
    that have not been fetched.
    """
    if str(weights) == RANDOM:
        raise UsageError("random weights are in no file; give --weights PATH")
    return _locate(name, weights)[0]


def read_generator(path: Path) -> tuple[dict[str, Tensor], dict[str, str], Path]:
    """Tensors, metadata and their file, of a file or of a directory with a ``config.json``.

    The metadata's ``norm_eps`` is that of ``config.json`` where there is one. Raises
    ``WeightsError``.
    """
    if not path.is_dir():
        return (*read_weights(path), path)
    file, norm_eps = _file_in(path), _read_norm_eps(path)
    state, metadata = read_weights(file)
    return state, metadata | ({} if norm_eps is None else {"norm_eps": str(norm_eps)}), file


def _random(name: str, eps: EpsProfile) -> PlainGenerator:
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UsageError(f"random weights are for {known}; {name} has its own")
    config = ARCHITECTURES[name]
    model: BigGAN | BigGANDeep
    if isinstance(config, BigGANConfig):
        norm_eps, spectral_eps = default_eps(name) if eps == "auto" else EPS_PROFILES[eps]
        model = random_biggan(replace(config, norm_eps=norm_eps, spectral_eps=spectral_eps))
    else:
        model = random_deep(config)
    return PlainGenerator(model, f"{name}-random", _default_labels(config.num_classes))


def _locate(name: str, weights: str | Path | None) -> tuple[Path, str]:
    """The file or directory, and the name that the generator goes by."""
    if weights is not None:
        path = Path(weights)
        return path, path.name if path.is_dir() else path.stem
    if name == "embedded":
        return EMBEDDED / "generator.safetensors", name
    from amfast.weights import store  # its HTTP libraries take a tenth of a second to import

    return store.resolve(name), name


def _file_in(directory: Path) -> Path:
    for file in _DEEP_FILES:
        if (directory / file).is_file():
            return directory / file
    raise WeightsError(
        f"{directory} holds no {' or '.join(_DEEP_FILES)}: "
        "a directory of weights is one as the pytorch-pretrained-biggan package reads"
    )


def _read_norm_eps(directory: Path) -> float | None:
    """The eps in a directory's ``config.json``, None without the file or the key."""
    path = directory / "config.json"
    if not path.is_file():
        return None
    try:
        found: Any = parse_json(path.read_bytes())
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
        return float(found["eps"]) if "eps" in found else None
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None


def _checked_eps(
    name: str, eps: EpsProfile, stored: Mapping[str, Any], path: Path
) -> dict[str, float]:
    """``norm_eps`` and ``spectral_eps``: the file's own, unless ``eps`` names a profile."""
    defaults = dict(zip(stored, default_eps(name), strict=True))
    if eps != "auto":
        return dict(zip(stored, EPS_PROFILES[eps], strict=True))
    try:
        values = {k: defaults[k] if v is None else float(v) for k, v in stored.items()}
    except ValueError as error:
        raise WeightsError(f"the metadata of {path} cannot be read: {error}") from None
    for key, value in values.items():
        if not 0 <= value < math.inf:
            raise WeightsError(
                f"{path}: its {key} is {value}, expected a small number such as 1e-4"
            )
    return values


def _build(state: Mapping[str, Tensor], eps: Mapping[str, float]) -> BigGAN | BigGANDeep:
    if EMBEDDINGS_KEY in state:
        deep = infer_deep_config(state, norm_eps=eps["norm_eps"])
        return load_deep_reference(state, deep)
    return load_reference(state, infer_config(state, **eps))


def _check_architecture(name: str, found: BigGANConfig | BigGANDeepConfig, path: Path) -> None:
    """``WeightsError`` unless a published generator has its published shape.

    The number of classes is free: an export may have added some.
    """
    wanted = ARCHITECTURES.get(name)
    if wanted is None:
        return
    free = {"num_classes": wanted.num_classes, "norm_eps": wanted.norm_eps}
    if isinstance(wanted, BigGANConfig):
        free["spectral_eps"] = wanted.spectral_eps
    if type(found) is not type(wanted) or replace(found, **free) != wanted:  # type: ignore[arg-type]
        family = "BigGAN" if isinstance(found, BigGANConfig) else "BigGAN-deep"
        raise WeightsError(
            f"{path} holds a {family} of {found.resolution} px and widths {list(found.widths)}, "
            f"which is not {name}: that has widths {list(wanted.widths)}"
        )


def _labels(metadata: Mapping[str, str], num_classes: int, path: Path) -> list[str]:
    """One name per class: the file's own, or those that its number of classes suggests."""
    labels = read_labels(metadata, path)
    if labels and len(labels) != num_classes:
        raise WeightsError(f"{path} names {len(labels)} classes and holds {num_classes}")
    return labels or _default_labels(num_classes)


def _default_labels(num_classes: int) -> list[str]:
    """ImageNet's names for as many classes, where torchvision gives them; otherwise numbers."""
    if num_classes == CLASSES:
        with suppress(UsageError):
            return list(imagenet_labels())
    return [str(i) for i in range(num_classes)]
