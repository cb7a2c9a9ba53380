"""A blind survey of people on a run's images, and what their answers come to."""

from __future__ import annotations

from amfast.study.make import Study, make_study
from amfast.study.score import StudyScore, score_study

__all__ = ["Study", "StudyScore", "make_study", "score_study"]
