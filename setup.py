"""Builds the compiled kernels with CMake where that is possible; the metadata is in pyproject.toml.

AMFAST_NO_EXT=1 leaves the kernels out. Without a compiler, cmake or torch at build time the package
is installed all the same, in pure Python; AMFAST_REQUIRE_EXT=1 turns that into an error.
"""

from __future__ import annotations

import importlib.util
import os
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
LIBRARY = "amfast._C_cpu"


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


def is_set(env: Mapping[str, str], name: str) -> bool:
    return env.get(name, "") not in ("", "0")


def give_up(reason: str, env: Mapping[str, str]) -> None:
    """Say that the package will be pure Python, or raise where kernels are required."""
    if is_set(env, "AMFAST_REQUIRE_EXT"):
        raise ExecError(f"AMFAST_REQUIRE_EXT is set, but the kernels were not built: {reason}.")
    print(
        f"amfast: installing without compiled kernels, since {reason}; "
        "the reference implementations will serve.",
        file=sys.stderr,
    )


def build_folder() -> Path:
    """CMake's folder, kept between builds; one that was made for another place is thrown away."""
    folder = ROOT / "build" / "cmake"
    cache = folder / "CMakeCache.txt"
    if cache.is_file() and f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT}\n" not in cache.read_text():
        shutil.rmtree(folder)
    return folder


class BuildWithCMake(build_ext):
    """Builds csrc/ into amfast/_C_cpu.so, a library that no Python version is written into."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext: Extension) -> None:
        build = build_folder()
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        cmake = find_tool("cmake")
        configure = ["-S", str(ROOT), "-B", str(build), f"-DAMFAST_PYTHON={sys.executable}"]
        environment = {**os.environ, "PATH": tool_path()}
        try:
            subprocess.run([cmake, *configure], check=True, env=environment)
            subprocess.run(
                [cmake, "--build", str(build), "--parallel"], check=True, env=environment
            )
        except (OSError, subprocess.CalledProcessError) as error:
            # An older library must not pass for the one that could not be built.
            target.unlink(missing_ok=True)
            if self.editable_mode:
                (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)
            give_up(f"the build failed ({error})", os.environ)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build / f"{ext.name.rpartition('.')[2]}.so", target)


class PlatformWheel(bdist_wheel):
    """The kernels need this platform but, thanks to torch's stable ABI, no particular Python."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if platform == "any" else ("py3", "none", platform)


def extensions() -> list[Extension]:
    reason = reason_not_to_build(os.environ)
    if reason is None:
        # Optional: the install goes on where build_extension gave up and left no library.
        optional = not is_set(os.environ, "AMFAST_REQUIRE_EXT")
        return [Extension(LIBRARY, sources=[], optional=optional)]
    give_up(reason, os.environ)
    return []


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildWithCMake, "bdist_wheel": PlatformWheel},
    )
