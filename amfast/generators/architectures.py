"""The published generators by name: their shapes, their eps values, and random weights for them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from amfast.generators.family import Plain
from amfast.generators.reference import BigGAN, BigGANConfig
from amfast.generators.reference_deep import BigGANDeep, BigGANDeepConfig, StoredSpectralNorm

#: BigGAN with ch = 96 and BigGAN-deep with ch = 128 (Brock et al., 2019, appendix B).
ARCHITECTURES: dict[str, BigGANConfig | BigGANDeepConfig] = {
    "biggan-128": BigGANConfig((1536, 1536, 768, 384, 192, 96), 3, num_classes=1000),
    "biggan-256": BigGANConfig((1536, 1536, 768, 768, 384, 192, 96), 4, num_classes=1000),
    "biggan-deep-128": BigGANDeepConfig((2048, 2048, 1024, 512, 256, 128), 3, num_classes=1000),
    "biggan-deep-256": BigGANDeepConfig(
        (2048, 2048, 1024, 1024, 512, 256, 128), 3, num_classes=1000
    ),
    "biggan-deep-512": BigGANDeepConfig(
        (2048, 2048, 1024, 1024, 512, 256, 128, 128), 3, num_classes=1000
    ),
}

#: ``norm_eps`` and ``spectral_eps`` of BigGAN, which no checkpoint holds: as the paper's authors
#: run both sizes, and as the script set them that trained the published 128 model.
EPS_PROFILES: dict[str, tuple[float, float]] = {
    "biggan-am": (1e-4, 1e-4),
    "training": (1e-5, 1e-6),
}


def default_eps(name: str) -> tuple[float, float]:
    """What ``"auto"`` comes to where a file says nothing."""
    return EPS_PROFILES["training" if name == "biggan-128" else "biggan-am"]


def random_biggan(config: BigGANConfig, seed: int = 0) -> BigGAN:
    """The plain model of this shape with seeded random weights, in evaluation mode.

    Statistics, gates and gains are far from their neutral values, so that every part does
    something. Built without the modules' own initialisation, which takes half a minute at full
    width.
    """
    return _with_random_weights(lambda: BigGAN(config), seed)


def random_deep(config: BigGANDeepConfig, seed: int = 0) -> BigGANDeep:
    """The same for BigGAN-deep; its stored singular vectors are one power iteration's."""
    return _with_random_weights(lambda: BigGANDeep(config), seed)


def _with_random_weights(make: Callable[[], Plain], seed: int) -> Plain:
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("stored_var", "running_vars")):
                tensor.uniform_(0.5, 2.0, generator=random)
            elif name.endswith("gamma"):
                tensor.fill_(0.7)
            elif name.endswith(("0.gain", "bn.weight")):  # the output's
                tensor.normal_(1, 0.2, generator=random)
            elif tensor.dim() == 1:
                tensor.normal_(0, 0.2, generator=random)
            elif name.startswith(("shared", "embeddings")) or name.endswith("_means"):
                tensor.normal_(0, 0.3, generator=random)
            else:
                tensor.normal_(generator=random)
        for module in model.modules():
            if isinstance(module, StoredSpectralNorm):  # else u^T W v may be next to nothing
                matrix = module.weight_orig.flatten(1)
                v = module.weight_u @ matrix
                module.weight_v.copy_(v / v.norm())
                u = matrix @ module.weight_v
                module.weight_u.copy_(u / u.norm())
    return model.eval().requires_grad_(False)
