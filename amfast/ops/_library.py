"""Where operators are declared, and where the compiled kernels are loaded.

PyTorch's dispatcher is the only registry: a reference is registered for every device, a compiled
kernel for its own device wins over it, and ``implementations`` asks the dispatcher which serves.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

NAMESPACE = "amfast"
CPU_LIBRARY = Path(__file__).resolve().parents[1] / "_C_cpu.so"

# Registrations last as long as this object does.
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")


@dataclass(frozen=True)
class OpImplementation:
    """Which implementation of one operator serves on one device, and why."""

    op: str
    device: str
    implementation: Literal["compiled", "reference"]
    reason: str


@dataclass(frozen=True)
class LoadOutcome:
    """What became of a compiled library; ``unintended``: it is absent and nobody asked for that."""

    loaded: bool
    reason: str
    unintended: bool = False


def define_op(schema: str, *, reference: Callable[..., object], fake: Callable[..., object]) -> str:
    """Declare an operator, with its reference for every device and its fake for tracing.

    ``schema`` is ``name(Tensor x, ...) -> ...``. Returns the qualified name, ``amfast::name``.
    """
    name = LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    qualified = f"{NAMESPACE}::{name}"
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    return qualified


def define_gradient(
    op: str,
    backward: Callable[..., object],
    *,
    setup_context: Callable[..., object] | None = None,
) -> None:
    """Register ``backward`` for the operator with the qualified name ``op``."""
    torch.library.register_autograd(op, backward, setup_context=setup_context, lib=LIBRARY)


def forbid_second_derivative(op: str, *, public: str) -> None:
    """Make differentiating the backward operator ``op`` raise; ``public`` names its function."""

    def backward(ctx: Any, *grads: torch.Tensor) -> None:
        raise NotImplementedError(
            f"{public} cannot be differentiated twice. Call it with impl='ref', whose second "
            "derivative PyTorch knows, or drop create_graph=True."
        )

    define_gradient(op, backward)


def load_compiled(path: Path, *, skip: bool) -> LoadOutcome:
    """Load the compiled kernels at ``path``; with ``skip``, leave them alone."""
    if skip:
        return LoadOutcome(False, "AMFAST_NO_EXT is set, so compiled kernels are not loaded")
    if not path.is_file():
        return LoadOutcome(
            False,
            f"{path.name} is not there: the package was installed without building it",
            unintended=True,
        )
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return LoadOutcome(False, f"{path.name} could not be loaded: {error}", unintended=True)
    return LoadOutcome(True, f"{path.name} is loaded")


def implementations() -> list[OpImplementation]:
    """Which implementation of every operator serves on each device of this machine.

    Sorted by operator, then device: the CPU always, CUDA where PyTorch finds a device.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    ops = sorted(
        name for name in torch._C._dispatch_get_all_op_names() if name.startswith(f"{NAMESPACE}::")
    )
    return [_implementation(op, device) for op in ops for device in devices]


def _implementation(op: str, device: str) -> OpImplementation:
    name = op.removeprefix(f"{NAMESPACE}::")
    if torch._C._dispatch_has_kernel_for_dispatch_key(op, device.upper()):
        return OpImplementation(name, device, "compiled", _loaded_reason(device))
    return OpImplementation(name, device, "reference", _missing_reason(device))


def _loaded_reason(device: str) -> str:
    if device == "cpu":
        return f"{OUTCOME.reason} and holds a kernel for it."
    return f"A kernel for {device} is registered."


def _missing_reason(device: str) -> str:
    if device != "cpu":
        return f"No kernel for {device} is registered, so the reference serves."
    if OUTCOME.loaded:
        return f"{OUTCOME.reason} but holds no kernel for it, so the reference serves."
    return f"{OUTCOME.reason}."


OUTCOME = load_compiled(CPU_LIBRARY, skip=os.environ.get("AMFAST_NO_EXT", "") not in ("", "0"))
if OUTCOME.unintended:
    warnings.warn(
        f"amfast runs on its reference implementations, which give the same results more slowly: "
        f"{OUTCOME.reason}. To build the kernels, install g++, make and cmake, then run "
        "'pip install --no-build-isolation .' in amfast's source; AMFAST_NO_EXT=1 silences this.",
        RuntimeWarning,
        stacklevel=2,
    )
