"""The Inception that FID and the Inception Score are of, through torch-fidelity's class."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amfast.classifiers.published import with_random_weights
from amfast.device import resolve_device
from amfast.errors import UsageError
from amfast.fingerprint import fingerprint
from amfast.generators.family import fill
from amfast.images.picture import to_bytes
from amfast.metrics.features import INCEPTION, check_images
from amfast.weights.files import RANDOM, read_weights

#: torch-fidelity's names: FID is of the pooled last maps, the Inception Score of logits that lack
#: their bias, as the original code took them.
_LAYERS = ["2048", "logits_unbiased"]


class Inception:
    """Inception of 2015-12-05: 2,048 features and 1,008 logits, a ``FeatureNetwork``."""

    def __init__(self, module: nn.Module, name: str, device: torch.device) -> None:
        self.name, self.fingerprint = name, fingerprint(module.state_dict())
        self.device = device
        self._module = module.to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``[N, 3, H, W]`` in [-1, 1] -> features ``[N, 2048]`` and logits ``[N, 1008]``.

        In fp32. torch-fidelity takes bytes and leaves it to its caller to make them; here they are
        rounded to the nearest, as in files, so that an image counts the same from memory and from
        disk. It then resizes them to 299 pixels as TensorFlow did. Raises ``UsageError`` for what
        are not images in [-1, 1].
        """
        check_images(images)
        features, logits = self._module(to_bytes(images.to(self.device)))
        return features, logits


def load_inception(
    *, weights: str | Path | None = None, device: str | torch.device = "auto"
) -> Inception:
    """The Inception as published, from the weight store; only its metrics bear their bare names.

    ``weights`` is a file in its place, or ``"random"`` for seeded random ones, to try plumbing.
    Raises ``UsageError`` where torch-fidelity is missing and ``WeightsError`` for weights that are
    not here or do not fit, whose keys are listed.
    """
    target = resolve_device(device)
    unfilled = _unfilled_class()
    if weights is not None and str(weights) == RANDOM:
        module = with_random_weights(_unfilled, {"cls": unfilled})
        module.eval().requires_grad_(False)
        return Inception(module, f"{INCEPTION}-{RANDOM}", target)
    path, name = _path(weights), INCEPTION if weights is None else Path(weights).stem
    with torch.device("meta"):
        module = _unfilled(unfilled)
    state, _ = read_weights(path)
    fill(module, state, "FID's Inception", may_lack="num_batches_tracked")
    return Inception(module, name, target)


def _unfilled_class() -> Any:
    """torch-fidelity's class, but that a file without a tensor leaves it as it was built."""
    try:
        from torch_fidelity import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        raise UsageError(
            f"FID and the Inception Score need torch-fidelity ({error}): "
            "pip install 'amfast[metrics]'"
        ) from None

    class Unfilled(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(
            self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False
        ) -> Any:
            return super().load_state_dict(state_dict, bool(state_dict) and strict, assign)

    return Unfilled


def _unfilled(cls: Any) -> nn.Module:
    """The network without weights: its class loads a file of its own choice, or downloads one."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    module: nn.Module = cls("inception-v3-compat", _LAYERS, feature_extractor_weights_path=empty)
    return module


def _path(weights: str | Path | None) -> Path:
    if weights is not None:
        return Path(weights)
    from amfast.weights import store  # its HTTP libraries take a tenth of a second to import

    return store.resolve(INCEPTION)
