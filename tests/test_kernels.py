"""tests/ops again, with every other implementation in the place of the CPU's own kernels.

The references alone; the Triton kernels, interpreted; the CUDA sources, compiled by g++ and run on
threads (csrc/testing/cuda_on_host.h), plain and under ThreadSanitizer; and the CPU's kernels under
AddressSanitizer and UBSan. Each run has a process of its own, two at a time.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from amfast.ops import _library
from tests.command import REPOSITORY
from tests.nvrtc import compile_device_code

CUDA_SOURCES = sorted((REPOSITORY / "csrc" / "cuda").glob("*.cu"))
TORCH = Path(torch.__file__).parent
#: What need not run on every kernel: what tests of the registration check, and gradients by finite
#: differences, many runs where a comparison with float64 is one.
ONCE = "opcheck or compiles or fakes or bad_arguments or unknown_impl or gradcheck"

Outcome = subprocess.CompletedProcess[str]


def op_tests(*options: str, under: tuple[str, ...] = (), **variables: str) -> Outcome:
    """Run tests/ops in a process of its own, which loads no kernel of the installed libraries."""
    command = [*under, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops"]
    return subprocess.run(
        [*command, *options],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "AMFAST_NO_EXT": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2400,
    )


def compile_on_host(target: Path, sources: list[Path], *options: str) -> None:
    """A library of kernels for the CPU's place, from C++ or, for tests, from CUDA sources."""
    command = [
        *("g++", "-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-pthread", "-ffp-contract=off"),
        *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", *options),
        *("-DTORCH_TARGET_VERSION=0x020A000000000000", f"-isystem{TORCH / 'include'}"),
        *("-o", str(target), "-xc++", *map(str, sources)),
        *("-xnone", f"-L{TORCH / 'lib'}", "-ltorch_cpu"),
    ]
    subprocess.run(command, check=True)


def sanitizer(name: str) -> str:
    """g++'s run-time library of a sanitizer, which has to be loaded before Python."""
    found = subprocess.run(
        ["g++", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def the_references(folder: Path) -> Outcome:
    return op_tests()


def triton_interpreted(folder: Path) -> Outcome:
    ops = sorted({where.partition(".")[0] for where in _library.TRITON.values()})
    return op_tests(
        *("-k", f"({' or '.join(ops)}) and not ({ONCE})"),
        AMFAST_TEST_OPS="triton",
        TRITON_INTERPRET="1",
    )


def cuda_on_host(folder: Path) -> Outcome:
    compile_on_host(folder / "cuda.so", CUDA_SOURCES, "-DAMFAST_CUDA_ON_HOST")
    ops = " or ".join(source.stem for source in CUDA_SOURCES)
    return op_tests(*("-k", f"({ops}) and not ({ONCE})"), AMFAST_TEST_OPS=str(folder / "cuda.so"))


def cuda_on_host_under_tsan(folder: Path) -> Outcome:
    library = folder / "cuda-tsan.so"
    compile_on_host(library, CUDA_SOURCES, "-DAMFAST_CUDA_ON_HOST", "-fsanitize=thread")
    ops = " or ".join(source.stem for source in CUDA_SOURCES)
    return op_tests(
        *("-k", f"({ops}) and float64 and auto and float32"),
        # Its own address space layout, which the sanitizer's shadow memory asks for.
        under=("setarch", platform.machine(), "--addr-no-randomize"),
        AMFAST_TEST_OPS=str(library),
        LD_PRELOAD=sanitizer("tsan"),
        # torch itself is not compiled for it, so what happens there says nothing.
        TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66",
    )


def cpu_under_asan_and_ubsan(folder: Path) -> Outcome:
    sources = sorted((REPOSITORY / "csrc" / "cpu").glob("*.cpp"))
    options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_on_host(folder / "asan.so", sources, "-DAMFAST_NO_CLONES", *options)
    return op_tests(
        *("-k", f"not ({ONCE})"),
        AMFAST_TEST_OPS=str(folder / "asan.so"),
        LD_PRELOAD=f"{sanitizer('asan')} {sanitizer('ubsan')}",
        ASAN_OPTIONS="detect_leaks=0",  # Python keeps memory until its end
    )


#: The longest first.
VARIANTS: tuple[Callable[[Path], Outcome], ...] = (
    cpu_under_asan_and_ubsan,
    triton_interpreted,
    cuda_on_host,
    cuda_on_host_under_tsan,
    the_references,
)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    folder = tmp_path_factory.mktemp("kernels")
    with ThreadPoolExecutor(2) as pool:
        yield {variant.__name__: pool.submit(variant, folder) for variant in VARIANTS}


@pytest.mark.parametrize("variant", [variant.__name__ for variant in VARIANTS])
def test_the_op_tests_pass_on(variant: str, outcomes: dict[str, Future[Outcome]]) -> None:
    done = outcomes[variant].result()
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d+ passed", done.stdout)


#: Template parameters of a kernel -> the arguments to compile it for.
TYPES = ["float, float", "double, double", "amfast::Half, float", "amfast::BFloat16, float"]
INSTANCES = {
    "typename T, typename Acc": TYPES,
    "typename T, typename Acc, bool Full": [
        f"{types}, {full}" for types in TYPES for full in ("true", "false")
    ],
    "typename Acc": ["float", "double"],
    "typename Image, typename Result, typename Acc": [
        *("float, float, float", "amfast::BFloat16, amfast::Half, float"),
        *("amfast::Half, double, double", "double, amfast::BFloat16, double"),
    ],
}


@pytest.mark.parametrize("source", CUDA_SOURCES, ids=lambda source: source.stem)
def test_every_cuda_kernel_compiles_for_a_v100(source: Path) -> None:
    kernels = re.findall(
        r"template <([^<>]*)>\s*__global__ void(?: __launch_bounds__\([^()]*\))?\s+(\w+)\(",
        source.read_text(),
    )
    assert len(kernels) == source.read_text().count("__global__") > 0
    instances = [
        f"amfast::{name}<{arguments}>"
        for parameters, name in kernels
        for arguments in INSTANCES[parameters]
    ]
    cubin = compile_device_code(source, instances, "sm_70")
    assert cubin.startswith(b"\x7fELF")


def test_what_nvrtc_refuses_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text("__global__ void f() { no_such_function(); }")
    with pytest.raises(ValueError, match="no_such_function"):
        compile_device_code(broken, [], "sm_70")


def nvcc_fits_torch() -> bool:
    cuda = torch.version.cuda
    return shutil.which("nvcc") is not None and cuda is not None and cuda.startswith("13.")


@pytest.mark.parametrize("source", CUDA_SOURCES, ids=lambda source: source.stem)
def test_nvcc_has_compiled_it_where_there_is_one(source: Path) -> None:
    """The build compiled every source: where nvcc is, the library holds each op's two kernels."""
    ops = {op for op, where in _library.TRITON.items() if where.startswith(f"{source.stem}.")}
    assert len(ops) == 2 and all(_library._has_kernel(op, "cuda") for op in ops)
    if nvcc_fits_torch():
        assert _library.LIBRARIES["cuda"].loaded
        assert not _library._ON_TRITON & ops
    else:
        assert find_spec("triton") is None or ops <= _library._ON_TRITON
