"""The ``amfast`` command: it parses, calls the public API and prints; it holds no logic."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from amfast.cli import (
    classes,
    diagnose,
    doctor,
    evaluate,
    export,
    importing,
    plot,
    report,
    reproduce,
    run,
    sample,
    study,
    weights,
)
from amfast.cli.console import complain
from amfast.cli.interrupt import INTERRUPTED, interrupts
from amfast.device_errors import is_device_error, out_of_memory
from amfast.errors import AmfastError
from amfast.text import first_line

app = typer.Typer(
    name="amfast",
    help="Repair and re-purpose classes of a frozen BigGAN by optimising their embeddings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
MODULES = (
    run,
    report,
    sample,
    diagnose,
    evaluate,
    plot,
    study,
    reproduce,
    export,
    importing,
    classes,
    weights,
    doctor,
)
for module in MODULES:
    module.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit.

    0 done, 1 failed, 2 wrong usage, 3 some trials failed, 130 interrupted.
    """
    with interrupts():
        try:
            _run(arguments)
        finally:
            # After a KeyboardInterrupt out of code in a string, as typer and dataclasses run it,
            # Python ends by SIGINT though it was caught; more code in a string makes it forget.
            exec("")


def _run(arguments: Sequence[str] | None) -> None:
    try:
        try:
            app(args=arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except AmfastError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # what amfast reads and writes has sentences of its own
        complain(f"cannot go on: {error.strerror or error}")
        sys.stdout = None  # or Python would try once more on its way out
        sys.exit(AmfastError.exit_code)
    except (MemoryError, RuntimeError) as error:
        if is_device_error(error):
            complain(f"the device failed: {first_line(error)}; start amfast anew to use it again")
        elif out_of_memory(error):
            hint = "try fewer --latents or a smaller --microbatch"
            complain(f"out of memory: {hint} ({first_line(error)})")
        else:
            raise
        sys.exit(AmfastError.exit_code)
