"""Load BigGAN checkpoints: a state_dict under the published key names -> a frozen generator."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from amfast.errors import WeightsError
from amfast.fingerprint import fingerprint
from amfast.generators.frozen import FrozenBigGAN, PreparedLatents
from amfast.generators.protocol import GeneratorSpec
from amfast.generators.reference import BigGAN, BigGANConfig


def infer_config(
    state: Mapping[str, Tensor], *, norm_eps: float = 1e-4, spectral_eps: float = 1e-4
) -> BigGANConfig:
    """Read the architecture off the tensors' shapes.

    Raises ``WeightsError`` where the tensors are not those of a BigGAN. The two eps values are not
    in a checkpoint; the defaults are those of the converted 128 and 256 models.
    """
    try:
        blocks = len([k for k in state if re.fullmatch(r"blocks\.\d+\.0\.conv1\.weight", k)])
        fan_ins = [state[f"blocks.{i}.0.conv1.weight"].shape[1] for i in range(blocks)]
        last = state[f"blocks.{blocks - 1}.0.conv1.weight"].shape[0]
        (attention,) = (int(k.split(".")[1]) for k in state if k.endswith(".1.gamma"))
        num_classes, embedding_dim = state["shared.weight"].shape
        return BigGANConfig(
            widths=(*fan_ins, last),
            attention_block=attention,
            num_classes=num_classes,
            embedding_dim=embedding_dim,
            chunk_dim=state["linear.weight"].shape[1],
            norm_eps=norm_eps,
            spectral_eps=spectral_eps,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(
            "these weights are not a BigGAN generator's: a key such as 'shared.weight', "
            f"'linear.weight' or 'blocks.0.0.conv1.weight' is missing or misshapen ({error})"
        ) from None


def load_reference(state: Mapping[str, Tensor], config: BigGANConfig) -> BigGAN:
    """The plain model with these weights, in evaluation mode. Only ``*.sv0`` keys may be absent.

    Raises ``WeightsError`` listing the keys that are missing, unexpected, misshapen or not finite.
    """
    model = BigGAN(config)
    wanted = model.state_dict()
    missing = sorted(k for k in wanted if k not in state and not k.endswith(".sv0"))
    unexpected = sorted(k for k in state if k not in wanted)
    shared = [k for k in wanted if k in state]
    misshapen = [
        f"{k} {list(state[k].shape)} instead of {list(wanted[k].shape)}"
        for k in shared
        if state[k].numel() != wanted[k].numel()
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
        raise WeightsError(f"these weights do not fit a BigGAN of {config.resolution} px: {found}")
    model.load_state_dict({k: state.get(k, wanted[k]).view_as(wanted[k]) for k in wanted})
    return model.eval().requires_grad_(False)


class BigGANGenerator:
    """A frozen BigGAN that meets the ``Generator`` protocol.

    ``truncation`` scales the latents (Brock et al., section 3.1); latents are given unscaled.
    Images come out in fp32 whatever the weights' dtype.
    """

    def __init__(
        self,
        model: BigGAN,
        *,
        name: str,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        truncation: float = 1.0,
    ) -> None:
        table = model.shared.weight.detach()
        self.spec = GeneratorSpec(
            name=name,
            resolution=model.config.resolution,
            embedding_dim=model.config.embedding_dim,
            latent_dim=model.config.latent_dim,
            clip_range=(float(table.min()), float(table.max())),
            fingerprint=fingerprint(model.state_dict()),
            labels=tuple(labels),
        )
        self.class_embeddings = table.to(device)
        self.truncation, self.dtype = truncation, dtype
        self._model = FrozenBigGAN(model, dtype, device)

    def prepare_latents(self, latents: Tensor) -> PreparedLatents:
        return self._model.prepare_latents(latents * self.truncation)

    def __call__(self, embeddings: Tensor, latents: Tensor | PreparedLatents) -> Tensor:
        if isinstance(latents, Tensor):
            latents = self.prepare_latents(latents)
        images: Tensor = self._model(embeddings, latents)
        return images.float()
