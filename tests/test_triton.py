"""Every Triton kernel, compiled for real GPUs on a machine that has none.

tests/test_kernels.py runs them in Triton's interpreter, which accepts what the compiler would not.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from amfast.ops import _library
from amfast.ops._checks import accumulator
from amfast.ops.ms_ssim import gaussian_window

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
#: Volta, the first that amfast serves, and Hopper.
CAPABILITIES = [70, 90]


class Compiler:
    """Stands for a GPU of this compute capability, as far as compiling for it goes."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.cubins: list[bytes] = []
        self.ptx: dict[str, str] = {}  # by the kernel's name

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # kernels are cached by device

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture(params=CAPABILITIES, ids=lambda capability: f"sm_{capability}")
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Launches compile, without starting anything."""
    found, launch = Compiler(request.param), JITFunction.run

    def compile_only(kernel: JITFunction, *args: object, **options: object) -> object:
        compiled = launch(kernel, *args, **{**options, "warmup": True})
        found.cubins.append(compiled.asm["cubin"])
        found.ptx[kernel.__name__] = compiled.asm["ptx"]
        return compiled

    monkeypatch.setattr(driver, "_active", found)
    monkeypatch.setattr(JITFunction, "run", compile_only)
    return found


def arguments(
    op: str,
    dtype: torch.dtype,
    *,
    channels: int = 96,
    side: int = 8,
    classes: int = 1000,
    mode: str = "bilinear_antialias",
) -> tuple[object, ...]:
    """What one of the operators takes, as the engine would give it on BigGAN-256 (values aside)."""
    half = (side + 1) // 2
    wide = accumulator(dtype)

    def image_map(channels: int, height: int, width: int) -> Tensor:
        empty = torch.empty(2, channels, height, width, dtype=dtype)
        return empty.contiguous(memory_format=torch.channels_last)

    x, dy = image_map(channels, side, side), image_map(channels, side, side)
    doubled = image_map(channels, 2 * half, 2 * half)
    phases = image_map(4 * channels, half + 1, half + 1)
    affine = (torch.empty(2, channels, dtype=wide), torch.empty(2, channels, dtype=wide))
    logits, target = torch.empty(2, classes, dtype=dtype), torch.tensor([0, 1])
    row, weights = torch.empty(2, dtype=wide), torch.empty(channels, dtype=wide)
    normalisation, to = ((0.5,) * 3, (0.25,) * 3), max(side - 1, 1)
    image = torch.empty(2, 3, 17, 16, dtype=dtype) if side > 1 else x[:1].contiguous()
    n, c, height, width = image.shape
    ssim = (image, image, gaussian_window(min(11, width)), 1e-4, 9e-4)
    halves = (torch.empty(n, c, (height + 1) // 2, (width + 1) // 2, dtype=wide),) * 2
    squashed = mode == "bilinear_antialias"  # the other modes stand for images after their tanh
    found: dict[str, tuple[object, ...]] = {
        "cond_norm_relu": (x, *affine),
        "cond_norm_relu_backward": (dy, x, *affine),
        "lpips_distance": (x, dy, weights),
        "lpips_distance_backward": (row, x, dy, weights),
        "ms_ssim_scale": ssim,
        "ms_ssim_scale_backward": (*(torch.empty(n, c, dtype=wide),) * 2, *halves, *ssim),
        "resize_to_classifier": (
            *(image_map(3, side, side), [to, to], *normalisation, mode, squashed, dtype),
        ),
        "resize_to_classifier_backward": (
            *(image_map(3, to, to), image_map(3, side, side) if squashed else None),
            *([side, side], normalisation[1], mode, dtype),
        ),
        "softmax_pair_distance": (logits, torch.tensor([[0, 1]])),
        "softmax_pair_distance_backward": (
            *(row[:1], logits, torch.tensor([[0, 1]]), row[:1], torch.empty(2, 2, dtype=wide)),
        ),
        "subpixel_norm_relu": (phases, *affine),
        "subpixel_norm_relu_backward": (doubled, phases, *affine),
        "target_log_prob": (logits, target),
        "target_log_prob_backward": (row, logits, target, torch.empty(2, 2, dtype=wide)),
        "upsample_add_norm_relu": (doubled, image_map(channels, half, half), *affine),
        "upsample_add_norm_relu_backward": (
            # Of the last block's sum there is no gradient.
            *(doubled if channels > 1 else None, doubled, doubled, *affine),
        ),
    }
    return found[op]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", sorted(_library.TRITON))
def test_it_compiles(op: str, dtype: torch.dtype, compiler: Compiler) -> None:
    _library.triton_function(_library.TRITON[op])(*arguments(op, dtype))
    assert compiler.cubins and all(cubin.startswith(b"\x7fELF") for cubin in compiler.cubins)


@pytest.mark.parametrize("op", sorted(_library.TRITON))
def test_it_compiles_for_sizes_of_one(op: str, compiler: Compiler) -> None:
    """Triton makes constants of arguments that are 1; the interpreter does not."""
    one = arguments(op, torch.float32, channels=1, side=1, classes=1)
    _library.triton_function(_library.TRITON[op])(*one)
    assert compiler.cubins


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("op", ["resize_to_classifier", "resize_to_classifier_backward"])
def test_other_ways_to_resize_compile(op: str, mode: str, compiler: Compiler) -> None:
    _library.triton_function(_library.TRITON[op])(*arguments(op, torch.float32, mode=mode))
    assert compiler.cubins


def test_no_similarity_is_lifted_above_one(compiler: Compiler) -> None:
    """As Triton's own division, off by up to 2 ulp, lifts some that are 1; NumPy's does not."""
    op = "ms_ssim_scale"
    _library.triton_function(_library.TRITON[op])(*arguments(op, torch.float32))
    ptx = compiler.ptx["_similarity_kernel"]
    assert ptx.count("div.rn.f32") >= 2 and "div.full.f32" not in ptx
