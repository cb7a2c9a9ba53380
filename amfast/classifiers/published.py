"""The classifiers of the paper: torchvision's architectures, under the weights they come with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amfast.classifiers.protocol import IMAGENET_MEAN, IMAGENET_STD, ClassifierSpec
from amfast.errors import UsageError, WeightsError
from amfast.fingerprint import fingerprint
from amfast.generators.family import fill
from amfast.imagenet import CLASSES, imagenet_labels, torchvision_models
from amfast.weights.catalogue import CATALOGUE
from amfast.weights.files import RANDOM, read_labels, read_weights

TIMM = "timm:"
PLACES = 365


@dataclass(frozen=True)
class Architecture:
    """A function of ``torchvision.models``, the side of its square input, its number of classes.

    ``feature_layers`` as in ``ClassifierSpec``.
    """

    function: str
    size: int
    num_classes: int
    feature_layers: tuple[str, ...]


#: The relus after its five convolutions, which LPIPS taps too; the last is the paper's "conv5".
ALEXNET_LAYERS = tuple(f"features.{i}" for i in (1, 4, 7, 9, 11))
_STAGES = tuple(f"layer{i}" for i in (1, 2, 3, 4))
#: Of 64, 192, 768 and 2,048 channels: where FID's Inception is read.
_INCEPTION_LAYERS = ("maxpool1", "maxpool2", "Mixed_6e", "Mixed_7c")

PUBLISHED = {
    "alexnet": Architecture("alexnet", 224, 1000, ALEXNET_LAYERS),
    "resnet50": Architecture("resnet50", 224, 1000, _STAGES),
    "inception_v3": Architecture("inception_v3", 299, 1000, _INCEPTION_LAYERS),
    "resnet50-robust": Architecture("resnet50", 224, 1000, _STAGES),
    "resnet18-places365": Architecture("resnet18", 224, PLACES, _STAGES),
    "alexnet-places365": Architecture("alexnet", 224, PLACES, ALEXNET_LAYERS),
}


def load_published(name: str, weights: str | Path | None) -> tuple[nn.Module, ClassifierSpec]:
    """A published classifier, in evaluation mode on the CPU, and its facts.

    Arguments and errors are those of ``load_classifier``.
    """
    architecture = PUBLISHED[name]
    labels: tuple[str, ...] = ()
    if weights is not None and str(weights) == RANDOM:
        module = with_random_weights(*_architecture(name))
        shown = f"{name}-random"
    else:
        path = _path(name, weights)
        tensors_alone = CATALOGUE[name].tensors_alone
        state, metadata = read_weights(path, tensors_alone=tensors_alone)
        labels = tuple(read_labels(metadata, path))
        module = _filled(name, state)
        shown = name if weights is None else path.stem
    if architecture.function == "alexnet":
        # It pools 6x6 to 6x6, and torch has no deterministic backward of that on CUDA.
        module.avgpool = nn.Identity()
    spec = ClassifierSpec(
        name=shown,
        size=architecture.size,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        labels=labels or _labels(architecture.num_classes),
        fingerprint=fingerprint(module.state_dict()),
        feature_layers=architecture.feature_layers,
    )
    return module.eval().requires_grad_(False), spec


def check_classifier(name: str, state: Mapping[str, Tensor]) -> None:
    """Raise ``WeightsError`` unless these tensors are those of the published classifier ``name``.

    ``UsageError`` without torchvision.
    """
    _filled(name, state)


def published_labels(name: str) -> tuple[str, ...]:
    """The names of a published classifier's classes, for which its weights are not needed.

    Raises ``UsageError`` for ImageNet's without torchvision.
    """
    return _labels(PUBLISHED[name].num_classes)


def load_timm(name: str, weights: str | Path | None) -> tuple[nn.Module, ClassifierSpec]:
    """Any classifier of timm, ``"timm:<name>"``, with its own size, mean and std.

    Without ``weights`` timm fetches its own into its own cache. Arguments and errors are those of
    ``load_classifier``.
    """
    try:
        timm: Any = import_module("timm")  # typed in part, and not for what is used here
    except ImportError:
        raise UsageError(f"{name} needs timm: pip install timm") from None
    bare = name.removeprefix(TIMM)
    if not timm.is_model(bare):
        raise UsageError(f"timm has no model {bare!r}: timm.list_models() lists them")
    random = weights is not None and str(weights) == RANDOM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            module: nn.Module = timm.create_model(bare, pretrained=weights is None)
        except (OSError, RuntimeError, ValueError) as error:
            said = (str(error).splitlines() or [""])[0]
            raise WeightsError(
                f"timm cannot give {bare}: {said}; a file of its weights does as well, or random"
            ) from None
    if weights is not None and not random:
        _fill(module, read_weights(Path(weights))[0], f"the classifier {name}")
    config = timm.data.resolve_model_data_config(module)
    _, height, width = config["input_size"]
    if height != width:
        raise UsageError(f"{name} takes images of {height} x {width}; amfast makes square ones")
    spec = ClassifierSpec(
        name=f"{name}-random" if random else name,
        size=height,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        labels=_labels(module.num_classes),  # type: ignore[arg-type]
        fingerprint=fingerprint(module.state_dict()),
    )
    return module.eval().requires_grad_(False), spec


def _architecture(name: str) -> tuple[Any, dict[str, Any]]:
    """The function that makes a published classifier, and its options."""
    architecture = PUBLISHED[name]
    options: dict[str, Any] = {"weights": None, "num_classes": architecture.num_classes}
    if name == "inception_v3":
        # As its published weights were trained: it brings ImageNet's normalisation to its own.
        options |= {"transform_input": True, "init_weights": False}
    return getattr(torchvision_models(), architecture.function), options


def _filled(name: str, state: Mapping[str, Tensor]) -> nn.Module:
    function, options = _architecture(name)
    with torch.device("meta"):
        module: nn.Module = function(**options)
    _fill(module, state, f"the classifier {name}")
    return module


def _fill(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """``family.fill``, but for batch norms' counters, which evaluation never reads."""
    # A checkpoint of data-parallel features, as Places365's AlexNet, has the prefix within names.
    given = {key.replace(".module.", "."): tensor for key, tensor in state.items()}
    fill(module, given, what, may_lack="num_batches_tracked")


def with_random_weights(function: Any, options: dict[str, Any]) -> nn.Module:
    """Seeded, by He's initialisation, under which no signal dies out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = function(**options)
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return module


def _path(name: str, weights: str | Path | None) -> Path:
    if weights is not None:
        return Path(weights)
    from amfast.weights import store  # its HTTP libraries take a tenth of a second to import

    return store.resolve(name)


def _labels(num_classes: int) -> tuple[str, ...]:
    """ImageNet's names for 1,000 classes, Places365's for 365, numbers for any other count."""
    if num_classes == CLASSES:
        return imagenet_labels()
    if num_classes == PLACES:
        return tuple(Path(__file__).with_name("places365.txt").read_text("utf-8").split())
    return tuple(map(str, range(num_classes)))
