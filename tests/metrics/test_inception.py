"""The Inception through torch-fidelity's class: its numbers on the same images and weights."""

from __future__ import annotations

import copy
import io
import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_fidelity
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from amfast.errors import UsageError, WeightsError
from amfast.images.picture import to_bytes
from amfast.metrics import inception
from amfast.metrics.features import FeatureNetwork
from amfast.metrics.frechet import RunningMoments, measure_fid
from amfast.metrics.inception import Inception, load_inception
from amfast.metrics.inception_score import measure_inception_score
from amfast.weights import store


@pytest.fixture(scope="module")
def network() -> Inception:
    return load_inception(weights="random", device="cpu")


def state_of(network: Inception) -> dict[str, Tensor]:
    return dict(network._module.state_dict())


def saved(network: Inception) -> io.BytesIO:
    """Its weights as torch-fidelity reads them."""
    file = io.BytesIO()
    torch.save(state_of(network), file)
    file.seek(0)
    return file


def pictures(count: int, seed: int, contrast: float) -> Tensor:
    """Noise in [-1, 1] around a grey, of contrasts up to this: random layers see little else."""
    stream = torch.Generator().manual_seed(seed)
    noise = 2 * torch.rand(count, 3, 32, 32, generator=stream) - 1
    return noise * contrast * torch.linspace(0.1, 1, count)[:, None, None, None]


class Bytes(Dataset[Tensor]):
    """Images as torch-fidelity takes them."""

    def __init__(self, images: Tensor) -> None:
        self.images = to_bytes(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_features_are_torch_fidelitys(network: Inception) -> None:
    weights = saved(network)
    theirs = torch_fidelity.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights
    )
    images = pictures(3, 0, contrast=1)
    for found, wanted in zip(network(images), theirs(to_bytes(images)), strict=True):
        assert torch.equal(found, wanted) and found.dtype == torch.float32
        assert float(found.std(dim=0).mean()) > 0


def test_from_images_to_metrics_it_is_torch_fidelity(network: Inception) -> None:
    """FID of its first 64 features: the eigenvalues of 2,048 by 2,048 numbers take 15 seconds."""
    module: Any = copy.deepcopy(network._module)
    module.features_list = ["64", "logits_unbiased"]
    module.fc.weight *= 20  # as random layers leave them, logits make every score 1
    network = Inception(module, network.name, torch.device("cpu"))
    sets = [pictures(4, 1, contrast=1), pictures(3, 2, contrast=0.05)]
    wanted = torch_fidelity.calculate_metrics(
        input1=Bytes(sets[0]),
        input2=Bytes(sets[1]),
        isc=True,
        isc_splits=2,
        fid=True,
        feature_layer_fid="64",
        feature_extractor_weights_path=saved(network),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no processes for the few images
    )
    moments, logits = [], []
    for images in sets:
        running = RunningMoments(network)
        for part in images.split(3):
            features, part_logits = network(part)
            running.update(features)
            logits.append(part_logits)
        moments.append(running.moments())
    fid = measure_fid(*moments)
    assert fid.value == pytest.approx(wanted["frechet_inception_distance"], rel=1e-6)
    assert fid.name == "fid[fid-inception-random]" and "too few for 64 features" in fid.note
    score = measure_inception_score(torch.cat(logits[:2]), network, splits=2)
    assert score.value > 1.1
    assert score.value == pytest.approx(wanted["inception_score_mean"], rel=1e-6)
    assert score.std == pytest.approx(wanted["inception_score_std"], rel=1e-6)
    assert score.weights == fid.weights == network.fingerprint


def test_random_weights_are_seeded(network: Inception) -> None:
    assert load_inception(weights="random", device="cpu").fingerprint == network.fingerprint


def test_a_byte_comes_back_as_itself_and_others_as_the_nearest() -> None:
    grey = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(grey / 127.5 - 1), grey)
    between = torch.tensor([100.4, 100.6]) / 127.5 - 1
    assert to_bytes(between).tolist() == [100, 101]
    assert to_bytes(torch.tensor([-1.01, 1.01]).bfloat16()).tolist() == [0, 255]


def test_weights_come_from_the_store_or_a_file(
    network: Inception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMFAST_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="amfast weights fetch fid-inception"):
        load_inception(device="cpu")
    save_file(state_of(network), store.path("fid-inception"))
    published = load_inception(device="cpu")
    assert published.name == "fid-inception"
    assert isinstance(published, FeatureNetwork)
    images = pictures(2, 3, contrast=1)
    features, logits = network(images)
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    for found, wanted in zip(published(images), (features, logits), strict=True):
        torch.testing.assert_close(found, wanted)
    # The published file may lack what evaluation never reads; no fingerprint depends on it.
    lean = {k: t for k, t in state_of(network).items() if not k.endswith("num_batches_tracked")}
    save_file(lean, tmp_path / "mine.safetensors")
    mine = load_inception(weights=tmp_path / "mine.safetensors", device="cpu")
    assert (mine.name, mine.fingerprint) == ("mine", published.fingerprint)
    lean["fc.weight"] = lean["fc.weight"] + 1
    save_file(lean, tmp_path / "mine.safetensors")
    other = load_inception(weights=tmp_path / "mine.safetensors", device="cpu")
    assert other.fingerprint != mine.fingerprint


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(1000, 2048), "aux.bias": torch.zeros(1)}, path)
    with pytest.raises(WeightsError) as caught:
        load_inception(weights=path, device="cpu")
    said = str(caught.value)
    assert said.startswith("these weights do not fit FID's Inception: missing: Conv2d_1a_3x3.bn.")
    assert "unexpected: aux.bias" in said
    assert "misshapen: fc.weight [1000, 2048] instead of [1008, 2048]" in said


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.zeros(3, 8, 8), r"\[N, 3, H, W\]"),
        (torch.full((1, 3, 8, 8), 255.0), r"must be in \[-1, 1\]"),
        (torch.full((1, 3, 8, 8), math.nan), "not finite"),
    ],
)
def test_what_are_no_images_gets_a_sentence(
    network: Inception, images: Tensor, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        network(images)


def test_torch_fidelity_is_asked_for_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    fresh: dict[str, Any] = runpy.run_path(inception.__file__)
    with pytest.raises(UsageError, match=r"torch-fidelity .*pip install 'amfast\[metrics\]'"):
        fresh["load_inception"](weights="random", device="cpu")
