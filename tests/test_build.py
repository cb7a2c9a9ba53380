"""Installing and running with and without compiled kernels."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from amfast.ops._library import load_compiled, without_triton

ROOT = Path(__file__).resolve().parents[1]

USE_THE_OP = """
import json, torch
from amfast.ops import implementations, target_log_prob
logits = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
target_log_prob(logits, torch.tensor([0, 1])).sum().backward()
print(json.dumps({
    "grad": logits.grad.tolist(),
    "implementations": {entry.op: entry.implementation for entry in implementations()},
    "reasons": [entry.reason for entry in implementations()],
}))
"""


@pytest.fixture(scope="module")
def build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("amfast_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python(*arguments: str, cwd: Path, **extra_env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a clean environment: no switches of amfast's, and not measured for coverage."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AMFAST_", "COV", "PYTHON", "PYTEST_"))
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**env, **extra_env},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def pure_package(tmp_path: Path) -> Path:
    """A folder with a copy of the package's Python files and no compiled library."""
    shutil.copytree(
        ROOT / "amfast", tmp_path / "amfast", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    return tmp_path


def all_but(*missing: str) -> Callable[[str], object | None]:
    """A search that finds every tool or module except these."""
    return lambda name: None if name in missing else name


everything = all_but()


def test_builds_where_everything_is_there(build_script: ModuleType) -> None:
    assert build_script.reason_not_to_build({}, everything, everything) is None
    assert build_script.reason_not_to_build({"AMFAST_NO_EXT": "0"}, everything, everything) is None


def test_says_what_is_missing(build_script: ModuleType) -> None:
    decide = build_script.reason_not_to_build
    assert "AMFAST_NO_EXT is set" in decide({"AMFAST_NO_EXT": "1"}, everything, everything)
    assert "torch is not installed" in decide({}, everything, all_but("torch"))
    assert "cmake was not found" in decide({}, all_but("cmake"), everything)
    assert "no C++ compiler" in decide({}, all_but("c++", "g++", "clang++"), everything)
    assert "looked for icpx" in decide({"CXX": "icpx -v"}, all_but("icpx"), everything)
    assert "neither make nor ninja" in decide({}, all_but("make", "ninja"), everything)


def test_giving_up_is_one_sentence_unless_kernels_are_required(
    build_script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    build_script.give_up("the compiler broke", {})
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "without compiled kernels, since the compiler broke" in said
    with pytest.raises(Exception, match="AMFAST_REQUIRE_EXT is set.*the compiler broke"):
        build_script.give_up("the compiler broke", {"AMFAST_REQUIRE_EXT": "1"})


@pytest.mark.parametrize(
    ("env", "nvcc", "torch_cuda", "reason"),
    [
        ({}, (13, 0), "13.2", None),
        ({"AMFAST_NO_CUDA_EXT": "0"}, (12, 8), "12.6", None),
        ({"AMFAST_NO_CUDA_EXT": "1"}, (13, 0), "13.0", "AMFAST_NO_CUDA_EXT is set"),
        ({}, (13, 0), None, "CPU-only"),
        ({}, None, "13.0", "nvcc was not found"),
        ({}, (13, 0), "12.8", "nvcc is of CUDA 13.0 and torch of CUDA 12.8"),
    ],
)
def test_whether_cuda_kernels_are_built(
    build_script: ModuleType,
    env: dict[str, str],
    nvcc: tuple[int, int] | None,
    torch_cuda: str | None,
    reason: str | None,
) -> None:
    found = build_script.reason_not_to_build_cuda(env, nvcc, torch_cuda)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("named", "nvcc", "architectures"),
    [
        ("", (13, 0), "75-real;80-real;86-real;90-real;100-real;120"),
        ("", (12, 9), "70-real;75-real;80-real;86-real;90-real;100-real;120"),
        ("", (12, 4), "70-real;75-real;80-real;86-real;90"),
        ("9.0", (13, 0), "90-real"),
        ("7.0;8.6+PTX", (12, 4), "70-real;86"),
        ("8.0 9.0a+PTX", (13, 0), "80-real;90a"),
    ],
)
def test_the_gpus_that_kernels_are_built_for(
    build_script: ModuleType, named: str, nvcc: tuple[int, int], architectures: str
) -> None:
    found = build_script.cuda_architectures({"TORCH_CUDA_ARCH_LIST": named}, nvcc)
    assert found == architectures


def test_an_architecture_that_is_no_version(build_script: ModuleType) -> None:
    with pytest.raises(ValueError, match="TORCH_CUDA_ARCH_LIST holds 'Ampere'.*'8.0;9.0"):
        build_script.cuda_architectures({"TORCH_CUDA_ARCH_LIST": "8.0;Ampere"}, (13, 0))


def test_the_version_of_nvcc(build_script: ModuleType, tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
    nvcc.chmod(0o755)
    assert build_script.nvcc_version(str(nvcc)) == (12, 4)
    nvcc.write_text("#!/bin/sh\nexit 1\n")
    assert build_script.nvcc_version(str(nvcc)) is None


@pytest.mark.parametrize("required", [False, True])
def test_a_compiler_that_fails(tmp_path: Path, required: bool) -> None:
    source = tmp_path / "source"
    (source / "csrc" / "cpu").mkdir(parents=True)
    (source / "csrc" / "cpu" / "broken.cpp").write_text("this is not C++\n")
    for name in ("setup.py", "CMakeLists.txt", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").touch()
    (source / "amfast").mkdir()
    (source / "amfast" / "__init__.py").touch()
    built = python("setup.py", "build", cwd=source, AMFAST_REQUIRE_EXT="1" if required else "0")
    if required:
        assert built.returncode != 0
        assert "AMFAST_REQUIRE_EXT is set, but the kernels were not built" in built.stderr
    else:
        assert built.returncode == 0, built.stderr
        assert "installing without compiled kernels, since the build failed" in built.stderr
        assert list((source / "build").rglob("amfast/__init__.py"))
    assert not list(source.rglob("_C_cpu.so"))


def test_without_the_library_the_reference_serves_and_that_is_said_once(pure_package: Path) -> None:
    done = python("-c", USE_THE_OP, cwd=pure_package)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["grad"] == [[0.5, -0.5], [-0.5, 0.5]]
    assert set(answer["implementations"].values()) == {"reference"}
    assert all("installed without building" in reason for reason in answer["reasons"])
    assert done.stderr.count("amfast runs on its reference implementations") == 1
    assert "pip install --no-build-isolation" in done.stderr


def test_a_broken_library_is_said_with_its_reason(pure_package: Path) -> None:
    (pure_package / "amfast" / "_C_cpu.so").write_bytes(b"not a library")
    done = python("-c", USE_THE_OP, cwd=pure_package)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["implementations"].values()) == {"reference"}
    assert done.stderr.count("amfast runs on its reference implementations") == 1
    assert "_C_cpu.so could not be loaded: " in done.stderr


def test_asking_for_the_reference_is_silent() -> None:
    done = python("-W", "error", "-c", USE_THE_OP, cwd=ROOT, AMFAST_NO_EXT="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["grad"] == [[0.5, -0.5], [-0.5, 0.5]]
    assert set(answer["implementations"].values()) == {"reference"}
    assert all("AMFAST_NO_EXT is set" in reason for reason in answer["reasons"])


def test_why_triton_does_not_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CC", raising=False)
    lacking = without_triton(lambda name: name, lambda tool: tool, tmp_path)
    assert lacking is not None and f"no Python.h in {tmp_path}" in lacking
    assert without_triton(find_module=lambda name: None) == "triton is not installed"
    assert without_triton(lambda name: name, lambda tool: tool == "clang") is None
    lacking = without_triton(lambda name: name, lambda tool: None)
    assert lacking == "triton finds no C compiler (looked for gcc, clang)"
    monkeypatch.setenv("CC", "mycc -m64")
    assert without_triton(lambda name: name, lambda tool: tool == "mycc") is None


def test_outcomes_of_loading(tmp_path: Path) -> None:
    absent = tmp_path / "_C_cpu.so"
    skipped = load_compiled(absent, without="AMFAST_NO_EXT is set")
    assert (skipped.loaded, skipped.unintended, skipped.reason) == (
        *(False, False),
        "AMFAST_NO_EXT is set",
    )
    assert load_compiled(absent, without=None).unintended
    absent.write_bytes(b"not a library")
    assert "could not be loaded" in load_compiled(absent, without=None).reason
