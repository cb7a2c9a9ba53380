"""NVRTC 12 through ctypes: compiles device code for a V100, which nvcc 13 no longer can."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path


def library() -> ctypes.CDLL:
    """NVRTC of the package nvidia-cuda-nvrtc-cu12, part of the extra ``test``."""
    found = find_spec("nvidia.cuda_nvrtc")
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "lib"
    return ctypes.CDLL(str(folder / "libnvrtc.so.12"))


def compile_device_code(source: Path, kernels: list[str], architecture: str) -> bytes:
    """The cubin of ``kernels``, template instances such as ``f<float>``, of one CUDA source.

    Raises ``ValueError`` with the compiler's log where it does not compile.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    text = source.read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None)
    try:
        for kernel in kernels:
            assert nvrtc.nvrtcAddNameExpression(program, kernel.encode()) == 0
        options = [
            f"--gpu-architecture={architecture}",
            f"--include-path={source.parent}",
            *("--std=c++17", "--fmad=false"),
        ]
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), given):
            raise ValueError(_read(nvrtc, program, "ProgramLog").decode())
        return _read(nvrtc, program, "CUBIN")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    content = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, content) == 0
    return content.raw
