"""The errors that docs/precision.md reports are of the size it says, and of what it says."""

from __future__ import annotations

import pytest
import torch

from bench import precision
from bench.precision import ALTERNATIVES, GRADIENT, Problem, error

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def problem() -> Problem:
    whole = Problem.embedded(CPU, latents=2)
    rows = slice(0, 3)
    return Problem(
        whole.model, whole.judge, whole.embeddings[rows], whole.latents[rows], whole.targets[:6]
    )


@pytest.fixture(scope="module")
def exact(problem: Problem) -> dict[str, torch.Tensor]:
    return problem.measure(torch.float64)


@pytest.mark.parametrize(
    ("dtype", "image", "gradient"),
    [(torch.float32, 1e-6, 1e-4), (torch.float16, 2e-3, 0.05), (torch.bfloat16, 2e-2, 0.3)],
    ids=["fp32", "fp16", "bf16"],
)
def test_errors_are_of_their_formats_size(
    problem: Problem,
    exact: dict[str, torch.Tensor],
    dtype: torch.dtype,
    image: float,
    gradient: float,
) -> None:
    found = problem.measure(dtype, 1024.0)
    assert found.keys() == exact.keys()
    assert image / 100 < error(found["image"], exact["image"]) < image
    assert error(found[GRADIENT], exact[GRADIENT]) < gradient
    assert error(found["log-probability"], exact["log-probability"]) < gradient


def test_the_other_choices_do_differ(problem: Problem) -> None:
    def measured() -> torch.Tensor:
        found = problem.measure(torch.float16, 1024.0)
        return torch.cat([found["log-probability"], found[GRADIENT].flatten()])

    seen = []
    for name in ALTERNATIVES:
        with precision._rounded(name, torch.float16):
            seen.append(measured())
    again = measured()
    assert torch.equal(seen[0], again)  # as shipped, and nothing is left changed
    for i, one in enumerate(seen):
        assert not any(torch.equal(one, other) for other in seen[:i]), ALTERNATIVES[i]


def test_tables(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = precision.stages(problem)
    assert rows[0] == ["stage", "fp32", "bf16", "fp16"]
    assert [row[0] for row in rows[1:3]] == ["sum after block 1", "sum after block 2"]
    scales = precision.loss_scales(problem)
    assert scales[1][2] == "0 of 3"
