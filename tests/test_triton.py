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
        return compiled

    monkeypatch.setattr(driver, "_active", found)
    monkeypatch.setattr(JITFunction, "run", compile_only)
    return found


def arguments(op: str, dtype: torch.dtype) -> tuple[object, ...]:
    """What one of the operators takes, as the engine would give it on BigGAN-256 (values aside)."""
    wide = accumulator(dtype)

    def image_map(channels: int, height: int, width: int) -> Tensor:
        empty = torch.empty(2, channels, height, width, dtype=dtype)
        return empty.contiguous(memory_format=torch.channels_last)

    x, dy = image_map(96, 8, 8), image_map(96, 8, 8)
    affine = (torch.empty(2, 96, dtype=wide), torch.empty(2, 96, dtype=wide))
    logits, target = torch.empty(2, 1000, dtype=dtype), torch.tensor([0, 1])
    row = torch.empty(2, dtype=wide)
    normalisation, resize = ((0.5,) * 3, (0.25,) * 3), ("bilinear_antialias",)
    images = (torch.empty(2, 3, 17, 16, dtype=dtype), torch.empty(2, 3, 17, 16, dtype=dtype))
    of_scale = (torch.empty(2, 3, dtype=wide), torch.empty(2, 3, 9, 8, dtype=wide))
    found: dict[str, tuple[object, ...]] = {
        "cond_norm_relu": (x, *affine),
        "cond_norm_relu_backward": (dy, x, *affine),
        "lpips_distance": (x, dy, torch.empty(96, dtype=wide)),
        "lpips_distance_backward": (row, x, dy, torch.empty(96, dtype=wide)),
        "ms_ssim_scale": (*images, gaussian_window(11), 1e-4, 9e-4),
        "ms_ssim_scale_backward": (
            *(of_scale[0], *of_scale, of_scale[1]),
            *(*images, gaussian_window(11), 1e-4, 9e-4),
        ),
        "resize_to_classifier": (image_map(3, 8, 8), [7, 7], *normalisation, *resize, True, dtype),
        "resize_to_classifier_backward": (
            *(image_map(3, 7, 7), image_map(3, 8, 8), [8, 8], normalisation[1], *resize, dtype),
        ),
        "softmax_pair_distance": (logits, torch.tensor([[0, 1]])),
        "softmax_pair_distance_backward": (
            *(row[:1], logits, torch.tensor([[0, 1]]), row[:1], torch.empty(2, 2, dtype=wide)),
        ),
        "subpixel_norm_relu": (image_map(4 * 96, 5, 5), *affine),
        "subpixel_norm_relu_backward": (dy, image_map(4 * 96, 5, 5), *affine),
        "target_log_prob": (logits, target),
        "target_log_prob_backward": (row, logits, target, torch.empty(2, 2, dtype=wide)),
        "upsample_add_norm_relu": (x, image_map(96, 4, 4), *affine),
        "upsample_add_norm_relu_backward": (dy, dy, x, *affine),
    }
    return found[op]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", sorted(_library.TRITON))
def test_it_compiles(op: str, dtype: torch.dtype, compiler: Compiler) -> None:
    _library.triton_function(_library.TRITON[op])(*arguments(op, dtype))
    assert compiler.cubins and all(cubin.startswith(b"\x7fELF") for cubin in compiler.cubins)
