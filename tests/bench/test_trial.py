"""The trial benchmark times what it says, on a network small enough to run here."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from amfast.generators.architectures import random_biggan
from amfast.generators.reference import BigGANConfig
from bench import bench_trial

CONFIG = BigGANConfig((16, 8, 8), attention_block=0, num_classes=5, embedding_dim=6, chunk_dim=3)


class Benchmark:
    """As much of pytest-benchmark's fixture as the benchmark uses; every call takes 0.4 s."""

    def __init__(self) -> None:
        self.group = ""
        self.extra_info: dict[str, Any] = {}
        self.stats = SimpleNamespace(stats=SimpleNamespace(min=0.4))

    def pedantic(self, function: Callable[[], object], **_: int) -> None:
        assert self.group, "a group that is set later is not reported"
        function()


@pytest.fixture(autouse=True)
def small_case(monkeypatch: pytest.MonkeyPatch) -> None:
    small = bench_trial.Case("embedded", "cpu", lambda: random_biggan(CONFIG), "embedded", 2, 1, 4)
    monkeypatch.setitem(bench_trial.CASES, "small", small)
    monkeypatch.setattr(bench_trial, "peak", lambda device, dtype: 1e12)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


@pytest.mark.parametrize(("contestant", "units"), [("engine", 2), ("plain", 4), ("compiled", 4)])
def test_what_is_reported(contestant: str, units: int) -> None:
    benchmark = Benchmark()
    bench_trial.test_trial("small", contestant, benchmark)
    info = benchmark.extra_info
    assert benchmark.group == "trial small"
    assert info["contestant"] == contestant
    assert info["units"] == info["trials"] * info["steps"] == units
    assert info["seconds_per_trial"] == pytest.approx(200 * 0.4 / units)
    assert info["images_per_s"] == pytest.approx(20 * units / 0.4)
    # 0.1304 GFLOP of the embedded generator and 0.0336 of its classifier, for every image
    assert info["tflops"] == pytest.approx(0.16406e-3 * 20 * units / 0.4, rel=1e-3)
    assert info["of_matmul_peak"] == pytest.approx(info["tflops"])
    assert info["dtype"] == "fp32"
    assert info["peak_bytes"] is None
    assert (info.get("kept_bytes_per_image", 0) > 0) == (contestant == "engine")
