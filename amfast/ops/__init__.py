"""Operators: each a public function, a plain reference that specifies it, and compiled kernels."""

from __future__ import annotations

from amfast.ops._library import OpImplementation, implementations
from amfast.ops.target_log_prob import target_log_prob, target_log_prob_ref

__all__ = ["OpImplementation", "implementations", "target_log_prob", "target_log_prob_ref"]
