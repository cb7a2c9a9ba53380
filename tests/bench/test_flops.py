"""The FLOP that the benchmarks divide by: derived, and counted by torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench import flops
from bench.flops import Row, counted, frozen_pass, plain_pass
from bench.models import embedded_shapenet, random_alexnet
from bench.products import Product, alexnet, shapenet, total
from tests.generators.conftest import DEEP_UNITS, deep_config

ROWS = {row.name: row for row in flops.rows()}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_counter_agrees_as_written(row: Row) -> None:
    derived = total(row.as_written(row.config))
    assert counted(plain_pass(row).forward) == pytest.approx(
        (derived.forward, derived.input_gradient)
    )


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_counter_agrees_on_the_frozen_form(row: Row) -> None:
    derived = total(row.reduced(row.config))
    backward = derived.input_gradient + derived.map_again
    assert counted(frozen_pass(row).forward) == pytest.approx((derived.forward, backward))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_counter_agrees_on_a_loop_that_froze_nothing(row: Row) -> None:
    derived = total(row.as_written(row.config)).unfrozen
    assert sum(counted(plain_pass(row, frozen=False).forward)) == pytest.approx(derived, rel=5e-3)


@pytest.mark.parametrize(
    ("network", "size", "products"),
    [(random_alexnet, 224, alexnet()), (embedded_shapenet, 64, shapenet(12))],
    ids=["alexnet", "shapenet"],
)
def test_the_counter_agrees_on_the_classifiers(
    network: Callable[[], nn.Module], size: int, products: list[Product]
) -> None:
    module = network().to("meta").requires_grad_(False)
    images = torch.zeros(2, 3, size, size, device="meta", requires_grad=True)
    derived = total(products)
    assert counted(lambda: module(images), 2) == pytest.approx(
        (derived.forward, derived.input_gradient)
    )


def test_biggan_256_takes_what_it_should() -> None:
    row = ROWS["BigGAN-256"]
    map_again = total(row.reduced(row.config)).map_again
    assert sum(counted(frozen_pass(row).forward)) - map_again <= 230
    assert sum(counted(plain_pass(row).forward)) == pytest.approx(337, abs=0.5)
    with_alexnet = sum(counted(plain_pass(row, frozen=False).forward)) + total(alexnet()).needed
    assert with_alexnet == pytest.approx(484, abs=0.5)


@pytest.mark.parametrize("name", DEEP_UNITS)
def test_biggan_deep_is_counted_in_its_published_shape(name: str) -> None:
    """The generators' tests hold these shapes against the published files' sizes."""
    assert ROWS[f"BigGAN-deep-{name}"].config == deep_config(128, *DEEP_UNITS[name])


def test_kept_bytes_are_those_of_one_more_image() -> None:
    """A square keeps its input, a square root its result: 4 bytes each for a pixel."""

    def make(images: int) -> flops.Pass:
        weight = torch.ones(100)
        x = torch.ones(images, 100, requires_grad=True)
        return flops.Pass(lambda: (weight * x).square().sqrt(), (weight,))

    assert flops.kept_per_image(make) == 2 * 4 * 100


def test_the_floor_is_a_trial_at_full_speed() -> None:
    row = ROWS["BigGAN-256"]
    of = total(row.reduced(row.config)), total(alexnet())
    assert flops.floor(*of, flops.PEAKS["V100 (125)"]) == pytest.approx(7.43, abs=0.01)
    assert flops.floor(*of, flops.PEAKS["H100, H200 (790)"]) == pytest.approx(1.18, abs=0.01)


def test_the_tables_have_every_generator(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flops, "peak_here", lambda: {"a slow one (1)": 1e12})
    flops.main()
    printed = capsys.readouterr().out
    for name in ROWS:
        assert f"| {name} |" in printed
        assert f"| {name} with " in printed
    assert "106.7" in printed
    assert "| a slow one (1) |" in printed
