"""Where operators are declared, and where their kernels are loaded.

PyTorch's dispatcher is the only registry: a reference is registered for every device, and a kernel
for its own device wins over it. On CUDA that is the compiled kernel where ``_C_cuda.so`` holds one
and the Triton kernel otherwise. ``implementations`` asks the dispatcher which serves.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch._ops import OpOverload
from torch.autograd import forward_ad

from amfast.ops._fallback import FAILED, with_fallback

NAMESPACE = "amfast"
PACKAGE = Path(__file__).resolve().parents[1]
#: What Triton builds its launchers against; where it looks, whatever Debian calls its own scheme.
PYTHON_HEADERS = Path(sysconfig.get_path("include", "posix_prefix"))

# Registrations last as long as this object does.
LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")

#: Every operator with Triton kernels: its name -> "module.function" in amfast/ops/triton.
TRITON: dict[str, str] = {}
#: Those of them that Triton serves in this process.
_ON_TRITON: set[str] = set()


@dataclass(frozen=True)
class OpImplementation:
    """Which implementation of one operator serves on one device, and why."""

    op: str
    device: str
    implementation: Literal["compiled", "triton", "reference"]
    reason: str


@dataclass(frozen=True)
class LoadOutcome:
    """What became of a compiled library; ``unintended``: it is absent and nobody asked for that."""

    loaded: bool
    reason: str
    unintended: bool = False


def define_op(
    schema: str,
    *,
    reference: Callable[..., object],
    fake: Callable[..., object],
    triton: str | None = None,
) -> OpOverload:
    """Declare an operator, with its reference for every device and its fake for tracing.

    ``schema`` is ``name(Tensor x, ...) -> ...``; ``triton`` names the function that launches its
    Triton kernels, as "module.function" in ``amfast/ops/triton``. Returns the operator.
    """
    name = LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    qualified = f"{NAMESPACE}::{name}"
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    if triton is not None:
        TRITON[name] = triton
        if WITHOUT_TRITON is None and not _has_kernel(name, "cuda"):
            kernel = with_fallback(name, triton_function(triton), reference)
            LIBRARY.impl(name, kernel, "CUDA")
            _ON_TRITON.add(name)
    operator: OpOverload = getattr(torch.ops.amfast, name).default
    return operator


def triton_function(where: str) -> Callable[..., object]:
    """``where``, "module.function" in ``amfast/ops/triton``, imported when it is first called.

    Importing Triton takes a second, which a process without a GPU should not spend.
    """
    module, _, function = where.partition(".")

    def launch(*args: object) -> object:
        found: Callable[..., object]
        found = getattr(import_module(f"amfast.ops.triton.{module}"), function)
        return found(*args)

    return launch


def define_gradient(
    operator: OpOverload,
    backward: Callable[..., Any],
    *,
    setup_context: Callable[..., None] | None = None,
) -> None:
    """Register ``backward`` for ``operator``, as ``torch.library.register_autograd`` would.

    A step calls our operators some twenty times forward and back, on small maps too, and that
    function's wrapping takes a third of such a call.
    """

    def forward(ctx: Any, *inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            output = operator(*inputs)
        if setup_context is not None:
            setup_context(ctx, inputs, output)
        return output

    name = f"{operator._opname}_gradient"
    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(name, (torch.autograd.Function,), members)

    def differentiable(*inputs: Any) -> Any:
        if forward_ad._current_level >= 0 and any(map(_has_tangent, inputs)):
            raise NotImplementedError(
                f"{operator.name()} has no forward-mode derivative. Call its function in "
                "amfast.ops with impl='ref', whose derivatives PyTorch knows."
            )
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            return function.apply(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    LIBRARY.impl(operator, differentiable, "Autograd")


def _has_tangent(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and forward_ad.unpack_dual(value).tangent is not None


def forbid_second_derivative(operator: OpOverload, *, public: str) -> None:
    """Make differentiating the backward ``operator`` raise; ``public`` names its function."""

    def backward(ctx: Any, *grads: torch.Tensor) -> None:
        raise NotImplementedError(
            f"{public} cannot be differentiated twice. Call it with impl='ref', whose second "
            "derivative PyTorch knows, or drop create_graph=True."
        )

    define_gradient(operator, backward)


def load_compiled(path: Path, *, without: str | None) -> LoadOutcome:
    """Load the compiled kernels at ``path``, unless ``without`` gives a reason to do without."""
    if without is not None:
        return LoadOutcome(False, without)
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
        name.removeprefix(f"{NAMESPACE}::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith(f"{NAMESPACE}::")
    )
    return [_implementation(op, device) for op in ops for device in devices]


def slower_paths(device: str) -> list[str]:
    """Why operators on ``device``, "cpu" or "cuda", run slower than they could; empty if none does.

    A sentence, without its full stop, for each reason that nobody asked for: leaving kernels out by
    ``AMFAST_NO_EXT`` is none, nor is Triton in the place of CUDA kernels that were not built.
    """
    library = LIBRARIES[device]
    if device == "cpu":
        return [f"the references serve: {library.reason}"] if library.unintended else []
    found = list(FAILED.values())
    if library.unintended and _library_file(device).is_file():
        found.append(f"the compiled CUDA kernels do not serve: {library.reason}")
    lacking = [op for op in TRITON if not _has_kernel(op, "cuda")]
    if lacking and not _is_set("AMFAST_NO_EXT"):
        found.append(f"the references of {len(lacking)} operators serve: {WITHOUT_TRITON}")
    return found


def _implementation(op: str, device: str) -> OpImplementation:
    library = LIBRARIES[device]
    if device == "cuda" and op in FAILED:
        return OpImplementation(op, device, "reference", f"{FAILED[op]}.")
    if device == "cuda" and op in _ON_TRITON:
        name: Literal["compiled", "triton", "reference"] = "triton"
    else:
        name = "compiled" if _has_kernel(op, device) else "reference"
    clauses = [library.reason]
    if name == "compiled":
        return OpImplementation(op, device, name, f"{library.reason} and holds a kernel for it.")
    if library.loaded:
        clauses = [f"{library.reason} but holds no kernel for it"]
    if device == "cuda" and name == "reference":
        clauses.append(WITHOUT_TRITON or "it has no Triton kernel")
    why = " and ".join(dict.fromkeys(clauses))
    serves = "Triton's kernel" if name == "triton" else "the reference"
    return OpImplementation(op, device, name, f"{why}, so {serves} serves.")


def _has_kernel(op: str, device: str) -> bool:
    found: bool = torch._C._dispatch_has_kernel_for_dispatch_key(
        f"{NAMESPACE}::{op}", device.upper()
    )
    return found


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def without_triton(
    find_module: Callable[[str], object | None] = find_spec,
    find_tool: Callable[[str], object | None] = shutil.which,
    headers: Path = PYTHON_HEADERS,
) -> str | None:
    """Why Triton cannot serve on this machine, or None where it can."""
    if find_module("triton") is None:
        return "triton is not installed"
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    if not any(find_tool(compiler.split()[0]) for compiler in compilers):
        return f"triton finds no C compiler (looked for {', '.join(compilers)})"
    if not (headers / "Python.h").is_file():
        return f"triton finds no Python.h in {headers} (Debian's package is python3-dev)"
    return None


def _without(*variables: str) -> str | None:
    """Why kernels are not wanted in this process, or None where they are."""
    found = [variable for variable in variables if _is_set(variable)]
    return f"{found[0]} is set" if found else None


def _library_file(device: str) -> Path:
    return PACKAGE / f"_C_{device}.so"


WITHOUT_TRITON = _without("AMFAST_NO_EXT") or without_triton()
LIBRARIES = {
    "cpu": load_compiled(_library_file("cpu"), without=_without("AMFAST_NO_EXT")),
    "cuda": load_compiled(
        _library_file("cuda"), without=_without("AMFAST_NO_EXT", "AMFAST_NO_CUDA_EXT")
    ),
}
if LIBRARIES["cpu"].unintended:
    warnings.warn(
        f"amfast runs on its reference implementations, which give the same results more slowly: "
        f"{LIBRARIES['cpu'].reason}. To build the kernels, install g++, make and cmake, then run "
        "'pip install --no-build-isolation .' in amfast's source; AMFAST_NO_EXT=1 silences this.",
        RuntimeWarning,
        stacklevel=2,
    )
