"""What the loaders of all families share: weights into a plain model, a frozen one around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from amfast.errors import WeightsError
from amfast.fingerprint import fingerprint
from amfast.generators.frozen import FrozenNetwork, PreparedLatents
from amfast.generators.protocol import GeneratorSpec
from amfast.generators.reference import BigGAN
from amfast.generators.reference_deep import BigGANDeep

#: The plain form of either family.
Plain = TypeVar("Plain", BigGAN, BigGANDeep)
_Module = TypeVar("_Module", bound=nn.Module)


def fill(model: _Module, state: Mapping[str, Tensor], what: str, *, may_lack: str = "") -> _Module:
    """``model`` with the tensors of ``state``, in evaluation mode and asking for no gradients.

    It may be built on the meta device, which spares its own initialisation. Keys that end in
    ``may_lack`` may be absent; a single number may have any number of dimensions.
    Raises ``WeightsError`` listing the keys that are missing, unexpected, misshapen or not finite;
    ``what`` names the model in it.
    """
    wanted = model.state_dict()
    missing = sorted(k for k in wanted if k not in state)
    if may_lack:
        missing = [k for k in missing if not k.endswith(may_lack)]
    unexpected = sorted(k for k in state if k not in wanted)
    shared = [k for k in wanted if k in state]
    misshapen = [
        f"{k} {list(state[k].shape)} instead of {list(wanted[k].shape)}"
        for k in shared
        if state[k].shape != wanted[k].shape and not state[k].numel() == wanted[k].numel() == 1
    ]
    broken = [k for k in shared if not state[k].isfinite().all()]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "misshapen": misshapen,
        "not finite": broken,
    }
    found = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
    if found:
        raise WeightsError(f"these weights do not fit {what}: {found}")
    # What may be absent is never read, so no two files differ by it.
    own = {k for k in wanted if may_lack and k.endswith(may_lack)}
    loaded = {
        k: torch.ones(t.shape, dtype=t.dtype) if k in own else state[k].view_as(t).to(t.dtype)
        for k, t in wanted.items()
    }
    model.load_state_dict(loaded, assign=True)
    return model.eval().requires_grad_(False)


class FrozenGenerator:
    """A frozen network that meets the ``Generator`` protocol.

    ``class_embeddings`` is the table ``[num_classes, E]`` of ``model``, whose weights give the
    fingerprint. ``truncation`` scales the latents; they are given unscaled. ``dtype`` is what the
    layers compute in; images come out in fp32 whatever it is.
    """

    def __init__(
        self,
        model: BigGAN | BigGANDeep,
        network: FrozenNetwork,
        class_embeddings: Tensor,
        *,
        name: str,
        labels: Sequence[str],
        truncation: float,
    ) -> None:
        table = class_embeddings.detach()
        self.spec = GeneratorSpec(
            name=name,
            resolution=model.config.resolution,
            embedding_dim=model.config.embedding_dim,
            latent_dim=model.config.latent_dim,
            clip_range=(float(table.min()), float(table.max())),
            fingerprint=fingerprint(model.state_dict()),
            labels=tuple(labels),
        )
        self.class_embeddings = table.to(network.device).contiguous()
        self.truncation, self.dtype = truncation, network.dtype
        self._network = network

    def prepare_latents(self, latents: Tensor) -> PreparedLatents:
        return self._network.prepare_latents(latents * self.truncation)

    def __call__(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        return self.pre_tanh(embeddings, latents).float().tanh()

    def pre_tanh(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        """What ``__call__`` gives before its tanh, ``[T*Z, 3, R, R]`` in ``dtype``."""
        if isinstance(latents, Tensor):
            latents = self.prepare_latents(latents)
        return self._network.pre_tanh(embeddings, latents)
