"""The networks that the benchmarks run, beside generators of ``ARCHITECTURES`` with random weights.

Arithmetic takes as long with random weights as with trained ones, and they need no download.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from amfast.embedded import EMBEDDED
from amfast.embedded.shapenet import ShapeNet
from amfast.generators.biggan import infer_config, load_reference
from amfast.generators.reference import BigGAN, SpectralNorm
from amfast.generators.reference_deep import StoredSpectralNorm
from amfast.metrics.lpips import Lpips, load_lpips
from amfast.weights.files import read_safetensors


def embedded_biggan() -> BigGAN:
    """The generator that ships with the package, in its plain form."""
    state, _ = read_safetensors(EMBEDDED / "generator.safetensors")
    return load_reference(state, infer_config(state))


def embedded_shapenet() -> ShapeNet:
    """The classifier that ships with the package, its batch norms not folded."""
    state, _ = read_safetensors(EMBEDDED / "classifier.safetensors")
    network = ShapeNet(len(state["head.bias"]))
    network.load_state_dict(state)
    return network.eval()


def random_alexnet() -> nn.Module:
    """The paper's classifier, ``[N, 3, 224, 224]`` -> logits ``[N, 1000]``.

    He's initialisation in place of torchvision's, under which a signal dies out within the eight
    layers and every image has the same logits.
    """
    from torchvision.models import alexnet

    torch.manual_seed(0)
    network: nn.Module = alexnet(weights=None)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()


def random_lpips() -> tuple[Lpips, nn.Module]:
    """LPIPS with AlexNet, ours and the lpips package's, on the weights of ``random_alexnet``."""
    import lpips

    weights = random_alexnet().state_dict()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "alexnet.pth"
        torch.save(weights, file)
        ours = load_lpips("alex", weights=file, device="cpu")
    theirs: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    # Its slices keep the numbers that torchvision gives the layers: slice2.3 is features.3.
    theirs.net.load_state_dict(
        {name: weights[f"features.{name.split('.', 1)[1]}"] for name in theirs.net.state_dict()}
    )
    return ours, theirs


def fold_spectral_norms(
    model: nn.Module,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> None:
    """Let every layer of ``model`` return its normalised weight as it is now, worked out once."""
    for module in model.modules():
        if isinstance(module, SpectralNorm | StoredSpectralNorm):
            weight = module.normalized_weight().detach().to(dtype)
            folded = weight.contiguous(
                memory_format=layout if weight.dim() == 4 else torch.contiguous_format
            )
            module.normalized_weight = lambda folded=folded: folded  # type: ignore[method-assign, misc]
