"""The few kinds of error amfast raises on purpose. Each message is a sentence a user can act on."""

from __future__ import annotations


class AmfastError(Exception):
    """Something failed that the user can act on. The command line exits with ``exit_code``."""

    exit_code = 1


class UsageError(AmfastError, ValueError):
    """An argument or option that amfast cannot accept."""

    exit_code = 2


class RunError(AmfastError):
    """A run directory that cannot be made, written, read or continued."""


class WeightsError(AmfastError):
    """A weights file that is missing, damaged or of another model."""
