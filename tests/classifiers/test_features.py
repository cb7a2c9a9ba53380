"""The maps inside classifiers, against the same layers run by hand."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import amfast
from amfast.classifiers import ModuleClassifier, wrap_module
from amfast.classifiers.published import PUBLISHED
from amfast.errors import UsageError

CPU = torch.device("cpu")


class Tiny(nn.Module):
    """Two stages, a relu that runs twice, layers whose outputs are no maps, and one never run."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.relu, self.idle = nn.ReLU(), nn.Identity()
        self.pair, self.overwritten = Pair(), nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, 5)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.two(self.relu(self.one(x))))
        x = self.overwritten(self.pair(x)[0]).add_(1)
        self.calls += 1
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


ALL = ("one", "two", "relu", "idle", "pair", "overwritten", "head")


def tiny(
    dtype: torch.dtype = torch.float32, layers: tuple[str, ...] = ALL
) -> tuple[Tiny, ModuleClassifier]:
    torch.manual_seed(0)
    module = Tiny()
    return module, wrap_module(
        module, device=CPU, dtype=dtype, size=8, name="tiny", feature_layers=layers
    )


def test_maps_by_hand() -> None:
    module, wrapped = tiny(torch.float64)
    module, x = module.double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    one = module.one(x)
    for layers, wanted in (
        (["one"], [one]),
        (["two", "one"], [module.two(one.relu()), one]),
        (["relu"], [one.relu()]),  # of two runs the first
        ([], []),
    ):
        found = wrapped.features(x, layers)
        assert isinstance(found, tuple) and len(found) == len(wanted)
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs.detach(), rtol=1e-12, atol=1e-12)
    _, narrow = tiny(torch.float64, ("two", "head"))
    assert [map_.shape for map_ in narrow.features(x)] == [(2, 6, 4, 4), (2, 5)]
    torch.testing.assert_close(narrow.features(x)[1], wrapped(x))


def test_logits_and_maps_from_one_pass() -> None:
    wrapped = tiny()[1]
    x = torch.randn(2, 3, 8, 8)
    layers = ["one", "two"]
    maps, logits = wrapped.with_features(x, layers)
    assert torch.equal(logits, wrapped(x))
    for mine, alone in zip(maps, wrapped.features(x, layers), strict=True):
        assert torch.equal(mine, alone)


def test_maps_are_differentiable() -> None:
    module, wrapped = tiny(torch.float64)
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: wrapped.features(x, ["one", "two"]), x)
    wrapped.features(x, ["two"])[0].square().sum().backward()
    assert x.grad is not None and (x.grad != 0).any()
    assert all(p.grad is None for p in module.parameters())


def test_nothing_runs_after_the_last_layer() -> None:
    _, wrapped = tiny()
    network = wrapped._extract._network
    assert isinstance(network, Tiny)
    before = network.calls
    wrapped.features(torch.zeros(1, 3, 8, 8), ["two", "one"])
    assert network.calls == before
    wrapped.features(torch.zeros(1, 3, 8, 8), ["head"])
    assert network.calls == before + 1


def test_the_weights_are_kept_once_and_the_classifier_stays_as_it_is() -> None:
    _, wrapped = tiny(torch.bfloat16)
    wrapped.features(torch.zeros(1, 3, 8, 8), ["one"])
    own = [p.data_ptr() for p in wrapped._plain.parameters()]
    assert own == [p.data_ptr() for p in wrapped._extract._network.parameters()]
    assert not any(m._forward_hooks for m in wrapped._plain.modules())


def test_threads_do_not_mix_their_maps() -> None:
    _, wrapped = tiny()
    inputs = [torch.full((1, 3, 8, 8), float(i)) for i in range(8)]
    wanted = [wrapped.features(x, ["one", "two"]) for x in inputs]
    fresh = tiny()[1]  # whose extractor is made by whichever thread is first
    ready = threading.Barrier(len(inputs))

    def work(i: int) -> bool:
        ready.wait(30)
        found = [fresh.features(inputs[i], ["one", "two"]) for _ in range(40)]
        return all(
            torch.equal(a, b) for maps in found for a, b in zip(maps, wanted[i], strict=True)
        )

    with ThreadPoolExecutor(len(inputs)) as pool:
        assert all(pool.map(work, range(len(inputs))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(dtype: torch.dtype) -> None:
    _, exact = tiny(torch.float64)
    _, half = tiny(dtype)
    x = torch.randn(2, 3, 8, 8)
    for mine, theirs in zip(
        half.features(x, ["one", "two"]), exact.features(x, ["one", "two"]), strict=True
    ):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), theirs, rtol=0.02, atol=0.02)


def test_a_compiled_classifier_gives_them_too() -> None:
    _, wrapped = tiny()
    x = torch.randn(2, 3, 8, 8)
    compiled = wrapped.compiled()
    for a, b in zip(
        compiled.features(x, ["one", "head"]), wrapped.features(x, ["one", "head"]), strict=True
    ):
        assert torch.equal(a, b)


def test_inference_mode_keeps_what_is_overwritten() -> None:
    module, wrapped = tiny()
    with torch.inference_mode():
        x = torch.randn(2, 3, 8, 8)
        before, _ = wrapped.features(x, ["overwritten", "head"])
        conv = module.overwritten(module.relu(module.two(module.relu(module.one(x)))))
        torch.testing.assert_close(before, conv)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["three"], "classifier tiny has no feature layer 'three': it has one, two, relu, idle"),
        (["idle"], "the layer 'idle' does not run in a forward pass"),
        (["pair"], "the layer 'pair' gives a tuple, not a tensor"),
        (["overwritten", "head"], "what the layer 'overwritten' gives is overwritten in place"),
    ],
)
def test_layers_that_give_no_map_get_a_sentence(layers: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        tiny()[1].features(torch.zeros(1, 3, 8, 8), layers)


def test_a_classifier_without_layers_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"tiny names no feature layers: give amfast.wrap_module"):
        tiny(layers=())[1].features(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="Tiny has no submodule 'relo': did you mean relu"):
        tiny(layers=("relo",))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_embedded_classifiers(dtype: str) -> None:
    judge = amfast.load_classifier("embedded", device="cpu", dtype=dtype)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, 64)
    maps = judge.features(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 32, 32),
        (32, 16, 16),
        (32, 16, 16),
        (64, 8, 8),
        (64, 8, 8),
        (96, 4, 4),
    ]
    assert all((m >= 0).all() and (m > 0).any() for m in maps)
    head = judge.module.head  # type: ignore[attr-defined]
    logits = nn.functional.linear(
        maps[-1].mean(dim=(2, 3)).float(), head.weight.float(), head.bias.float()
    )
    torch.testing.assert_close(logits, judge(x).float(), rtol=0.02, atol=0.02)


CHANNELS = {
    "resnet18-places365": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "inception_v3": (64, 192, 768, 2048),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_the_published_classifiers(name: str) -> None:
    judge = amfast.load_classifier(name, weights="random", device="cpu", dtype="fp32")
    with torch.no_grad():
        maps = judge.features(torch.randn(1, 3, judge.spec.size, judge.spec.size))
    assert tuple(m.shape[1] for m in maps) == CHANNELS[name]
    assert all(m.dim() == 4 and m.isfinite().all() for m in maps)
    alike = [n for n, a in PUBLISHED.items() if a.function == PUBLISHED[name].function]
    assert {PUBLISHED[n].feature_layers for n in alike} == {judge.spec.feature_layers}


def test_alexnets_last_map_is_conv5() -> None:
    judge = amfast.load_classifier("alexnet", weights="random", device="cpu", dtype="fp32")
    x = torch.randn(2, 3, 224, 224)
    convolutions = judge.module.features  # type: ignore[attr-defined]
    with torch.no_grad():
        maps = judge.features(x)
        torch.testing.assert_close(maps[-1], convolutions[:-1](x))
    assert [m.shape[1] for m in maps] == [64, 192, 384, 256, 256]
    assert maps[-1].shape == (2, 256, 13, 13)


def test_timm_names_none() -> None:
    judge = amfast.load_classifier("timm:resnet10t", weights="random", device="cpu", dtype="fp32")
    with pytest.raises(UsageError, match="timm:resnet10t-random names no feature layers"):
        judge.features(torch.zeros(1, 3, judge.spec.size, judge.spec.size))
