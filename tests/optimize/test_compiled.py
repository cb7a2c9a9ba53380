from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from amfast.classifiers.protocol import ModuleClassifier, wrap_module
from amfast.errors import UsageError
from amfast.optimize.compiled import compiled_for
from amfast.optimize.memory import plan_passes
from amfast.optimize.parallel import side_by_side

CPU = torch.device("cpu")
PASSES = plan_passes(trials=3, latents=6, images_per_pass=6)


class Crash(RuntimeError):
    """What a compiler says."""


@pytest.fixture
def classifier() -> ModuleClassifier:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    return wrap_module(module, device=CPU, dtype=torch.float32, size=4, name="tiny")


def test_compiled_equals_plain_forward_and_gradient(classifier: ModuleClassifier) -> None:
    notes: list[str] = []
    fast = compiled_for(classifier, PASSES, CPU, required=True, on_note=notes.append)
    assert fast is not classifier
    assert fast.spec == classifier.spec
    assert not notes
    x = torch.randn(6, 3, 4, 4, requires_grad=True)
    for mine, theirs in ((fast(x), classifier(x)),):
        torch.testing.assert_close(mine, theirs)
        (a,), (b,) = (torch.autograd.grad(y.square().sum(), x) for y in (mine, theirs))
        torch.testing.assert_close(a, b)


def test_the_passes_compile_nothing_again(classifier: ModuleClassifier) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fast = compiled_for(classifier, PASSES, CPU, required=True, on_note=print)
        before = counters["stats"]["unique_graphs"]
        assert before > 0
        with side_by_side(CPU, len(PASSES)) as run:
            x = torch.randn(6, 3, 4, 4, requires_grad=True)
            run(lambda _: torch.autograd.grad(fast(x).sum(), x), [0, 1, 2])
        assert counters["stats"]["unique_graphs"] == before
    finally:
        torch.set_num_threads(threads)


def test_without_a_compiler(classifier: ModuleClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: nn.Module, **_: object) -> nn.Module:
        def call(x: Tensor) -> Tensor:
            raise Crash("no compiler found\nand a long trace")

        return call  # type: ignore[return-value]

    monkeypatch.setattr(torch, "compile", broken)
    notes: list[str] = []
    options = {"passes": PASSES, "device": CPU, "on_note": notes.append}
    assert compiled_for(classifier, required=False, **options) is classifier  # type: ignore[arg-type]
    assert notes == ["classifier tiny runs uncompiled: no compiler found"]
    with pytest.raises(UsageError, match=r"tiny cannot be compiled here: no compiler found; use"):
        compiled_for(classifier, required=True, **options)  # type: ignore[arg-type]


def test_a_compiler_that_fails_at_a_later_shape(
    classifier: ModuleClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the backward, which is compiled after the forward has returned."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            raise Crash("no backward for this shape")

    def fails_but_for_six(module: nn.Module, **_: object) -> Any:
        return lambda x: module(x if len(x) == 6 else Broken.apply(x))

    monkeypatch.setattr(torch, "compile", fails_but_for_six)
    notes: list[str] = []
    options: Any = {"passes": PASSES[:1], "device": CPU, "on_note": notes.append}
    fast = compiled_for(classifier, required=False, **options)
    assert not notes and fast is not classifier
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    for _ in range(2):
        (mine,), (theirs,) = (
            torch.autograd.grad(judge(x).square().sum(), x) for judge in (fast, classifier)
        )
        torch.testing.assert_close(mine, theirs)
    assert notes == ["classifier tiny runs uncompiled: no backward for this shape"]
    strict = compiled_for(classifier, required=True, **options)
    with pytest.raises(UsageError, match="no backward for this shape; use --compile off"):
        strict(x)


def test_a_classifier_that_is_no_module_stays_as_it_is() -> None:
    class Judge:
        spec = None

    judge = Judge()
    found = compiled_for(judge, PASSES, CPU, required=True, on_note=print)  # type: ignore[arg-type]
    assert found is judge
