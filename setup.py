"""Builds the compiled kernels with CMake where that is possible; the metadata is in pyproject.toml.

AMFAST_NO_EXT=1 leaves the kernels out, AMFAST_NO_CUDA_EXT=1 those for CUDA, which are built where
nvcc is found and is of the CUDA version of torch. Without a compiler, cmake or torch at build time
the package is installed all the same, in pure Python; AMFAST_REQUIRE_EXT=1 makes that an error.
TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX") names the GPUs to build for.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import ExecError

ROOT = Path(__file__).resolve().parent
CPU_LIBRARY, CUDA_LIBRARY = "amfast._C_cpu", "amfast._C_cuda"


def tool_path() -> str:
    """PATH, with the running Python's own folder first: there lies a cmake that pip installed."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def find_tool(name: str) -> str | None:
    return shutil.which(name, path=tool_path())


def find_module(name: str) -> object | None:
    return importlib.util.find_spec(name)


def reason_not_to_build(
    env: Mapping[str, str],
    find_tool: Callable[[str], object | None] = find_tool,
    find_module: Callable[[str], object | None] = find_module,
) -> str | None:
    """Why the kernels cannot or should not be built here, or None where they can."""
    if is_set(env, "AMFAST_NO_EXT"):
        return "AMFAST_NO_EXT is set"
    if find_module("torch") is None:
        return "torch is not installed in the building Python (try --no-build-isolation)"
    if find_tool("cmake") is None:
        return "cmake was not found (try 'pip install cmake')"
    compilers = [env["CXX"]] if env.get("CXX") else ["c++", "g++", "clang++"]
    if not any(find_tool(compiler.split()[0]) for compiler in compilers):
        return f"no C++ compiler was found (looked for {', '.join(compilers)})"
    if not any(find_tool(tool) for tool in ("make", "ninja")):
        return "neither make nor ninja was found"
    return None


def nvcc_version(nvcc: str) -> tuple[int, int] | None:
    """Major and minor version of this nvcc, or None where it does not say."""
    try:
        said = subprocess.run(
            [nvcc, "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"release (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def torch_cuda_version() -> str | None:
    """The CUDA version that the installed torch was built with, None where it is CPU-only."""
    ask = "import torch; print(torch.version.cuda or '')"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return said.stdout.strip() or None


def reason_not_to_build_cuda(
    env: Mapping[str, str], nvcc: tuple[int, int] | None, torch_cuda: str | None
) -> str | None:
    """Why the CUDA kernels cannot or should not be built here, or None where they can."""
    if is_set(env, "AMFAST_NO_CUDA_EXT"):
        return "AMFAST_NO_CUDA_EXT is set"
    if torch_cuda is None:
        return "the installed torch is CPU-only"
    if nvcc is None:
        return "nvcc was not found"
    if nvcc[0] != int(torch_cuda.partition(".")[0]):
        return f"nvcc is of CUDA {nvcc[0]}.{nvcc[1]} and torch of CUDA {torch_cuda}"
    return None


def cuda_architectures(env: Mapping[str, str], nvcc: tuple[int, int]) -> str:
    """CMAKE_CUDA_ARCHITECTURES: what TORCH_CUDA_ARCH_LIST names, or all from the V100 on.

    ``ValueError`` where the list holds something else than versions such as 8.6 or 9.0+PTX.
    """
    named = env.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").split()
    if not named:
        known = ["75", "80", "86", "90"] + (["100", "120"] if nvcc >= (12, 8) else [])
        # The newest one's intermediate code serves the GPUs that come after it.
        return (
            ";".join(f"{a}-real" for a in ["70"] * (nvcc < (13, 0)) + known[:-1]) + f";{known[-1]}"
        )
    architectures = []
    for name in named:
        found = re.fullmatch(r"(\d+)\.(\d+[af]?)(\+PTX)?", name)
        if found is None:
            raise ValueError(
                f"TORCH_CUDA_ARCH_LIST holds {name!r}; give versions such as '8.0;9.0+PTX'"
            )
        architectures.append(f"{found[1]}{found[2]}" + ("" if found[3] else "-real"))
    return ";".join(architectures)


def is_set(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "") not in ("", "0")


def give_up(reason: str, env: Mapping[str, str], library: str = CPU_LIBRARY) -> None:
    """Say that a library will be missing, or raise where kernels are required."""
    if is_set(env, "AMFAST_REQUIRE_EXT"):
        raise ExecError(f"AMFAST_REQUIRE_EXT is set, but the kernels were not built: {reason}.")
    instead = {
        CPU_LIBRARY: "compiled kernels, since {}; the reference implementations will serve.",
        CUDA_LIBRARY: "compiled CUDA kernels, since {}; on a GPU Triton's will serve.",
    }
    print(f"amfast: installing without {instead[library].format(reason)}", file=sys.stderr)


def build_folder() -> Path:
    """CMake's folder, kept between builds; one that was made for another place is thrown away."""
    folder = ROOT / "build" / "cmake"
    cache = folder / "CMakeCache.txt"
    if cache.is_file() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
        shutil.rmtree(folder)
    return folder


class BuildWithCMake(build_ext):
    """Builds csrc/ into libraries in amfast/ that no Python version is written into."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        build = build_folder()
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        library = ext.name.rpartition(".")[2]
        cmake = find_tool("cmake")
        environment = {**os.environ, "PATH": tool_path()}
        try:
            configure = ["-S", str(ROOT), "-B", str(build), f"-DAMFAST_PYTHON={sys.executable}"]
            subprocess.run(
                [cmake, *configure, *self.cuda_options(ext)], check=True, env=environment
            )
            subprocess.run(
                [cmake, "--build", str(build), "--parallel", "--target", library],
                check=True,
                env=environment,
            )
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            # An older library must not pass for the one that could not be built.
            target.unlink(missing_ok=True)
            if self.editable_mode:
                (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)
            give_up(f"the build failed ({error})", os.environ, ext.name)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / f"{library}.so", target)

    @staticmethod
    def cuda_options(ext: Extension) -> list[str]:
        if ext.name != CUDA_LIBRARY:
            return ["-DAMFAST_CUDA=OFF"]
        nvcc = find_tool("nvcc")
        version = nvcc_version(nvcc) if nvcc else None
        if version is None:
            raise ValueError("nvcc was not found")
        architectures = cuda_architectures(os.environ, version)
        return [
            "-DAMFAST_CUDA=ON",
            f"-DCMAKE_CUDA_COMPILER={nvcc}",
            f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
        ]


class PlatformWheel(bdist_wheel):
    """The kernels need this platform but, thanks to torch's stable ABI, no particular Python."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if platform == "any" else ("py3", "none", platform)


def extensions() -> list[Extension]:
    reason = reason_not_to_build(os.environ)
    if reason is not None:
        give_up(reason, os.environ)
        return []
    # Optional: the install goes on where build_extension gave up and left no library.
    optional = not is_set(os.environ, "AMFAST_REQUIRE_EXT")
    built = [Extension(CPU_LIBRARY, sources=[], optional=optional)]
    nvcc = find_tool("nvcc")
    version = nvcc_version(nvcc) if nvcc else None
    without_cuda = reason_not_to_build_cuda(os.environ, version, torch_cuda_version())
    if without_cuda is None:
        built.append(Extension(CUDA_LIBRARY, sources=[], optional=optional))
    else:
        print(f"amfast: no compiled CUDA kernels, since {without_cuda}.", file=sys.stderr)
    return built


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildWithCMake, "bdist_wheel": PlatformWheel},
    )
