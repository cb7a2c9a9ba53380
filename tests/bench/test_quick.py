"""Metrics beside the packages that have them, compared and timed at sizes that take no time."""

from __future__ import annotations

import pytest
import torch

from bench import quick


def test_lpips_beside_its_package() -> None:
    ratios = quick.lpips_ratios(rounds=1, size=64, images=40)
    assert set(ratios) == {"metric_lpips_40pairs", "metric_lpips_allpairs"}
    assert all(ratio > 0 for ratio in ratios.values())


def test_ms_ssim_beside_pytorch_msssim() -> None:
    ratios = quick.metric_ms_ssim_ratio(rounds=1, size=168, images=2)
    assert set(ratios) == {"metric_ms_ssim"} and ratios["metric_ms_ssim"] > 0


def test_nothing_is_timed_where_they_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> dict[str, float]:
        raise RuntimeError("it was timed")

    monkeypatch.setattr(quick, "in_turns", never)
    monkeypatch.setattr(quick.bench_ms_ssim, "package", lambda x, y: torch.ones(len(x)))
    with pytest.raises(AssertionError, match="not close"):
        quick.metric_ms_ssim_ratio(size=32, images=4)
    ours, _ = quick.random_lpips()
    monkeypatch.setattr(quick, "random_lpips", lambda: (ours, lambda x, y: torch.ones(len(x))))
    with pytest.raises(AssertionError, match="not close"):
        quick.lpips_ratios(size=64, images=40)
