"""The table of stopping rules says what the engine would do under each of them."""

from __future__ import annotations

import pytest
import torch

import amfast
from bench import stopping
from bench.stopping import Course, courses, table

STEPS, PERIOD = 6, 2


@pytest.fixture(scope="module")
def found() -> list[Course]:
    return courses(trials=1, steps=STEPS, period=PERIOD)


def test_a_course_holds_what_the_rule_would_have_ended_with(found: list[Course]) -> None:
    rule = "prob=0.6"
    stopped = amfast.optimize(
        amfast.load_generator("embedded", device="cpu"),
        amfast.load_classifier("embedded", device="cpu"),
        classes="0-3",
        trials=1,
        steps=STEPS,
        steps_per_latents=PERIOD,
        stop=rule,
    )
    by_trial = {course.result.trial: course for course in found}
    ends = []
    for result in stopped.trials:
        course = by_trial[result.trial]
        ends.append(course.end(rule, PERIOD))
        assert ends[-1] == (result.stopped_at or STEPS)
        assert torch.equal(course.embeddings[ends[-1]], result.embedding)
    assert min(ends) < STEPS


def test_table(found: list[Course], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "RULES", ("none", "prob=0.0001"))
    _, none, at_once = table(found[:2], PERIOD)
    assert none[:3] == ["`none`", "6", "0%"]
    assert at_once[:3] == ["`prob=0.0001`", "2", "67%"]
    assert none[3:] != at_once[3:]
