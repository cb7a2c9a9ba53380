"""What the Triton kernels over maps ``[N, C, H, W]`` share: tiles, norms and sums over pixels.

Maps are channels_last. A program works on a tile of ``BLOCK_P`` pixels by ``BLOCK_C`` channels of
one image, or on a few of them, one below the other. How a map is cut up depends on its height,
width and channels alone, never on how many images there are, so that an image's results do not
depend on its batch-mates.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from amfast.ops.triton._launch import ROUNDING, on_device_of

#: 128 threads, each with 16 bytes of a map at a time.
WARPS = 4
ROUND_BYTES = 32 * WARPS * 16
#: Programs that an image is spread over at least, if it is large enough, so that a few images keep
#: every multiprocessor busy.
PROGRAMS_PER_IMAGE = 64


class Tiling(NamedTuple):
    """Pixels and channels of a tile, and how many tiles a program works on."""

    pixels: int
    channels: int
    steps: int

    def blocks(self, pixels: int) -> int:
        """Programs for one image and one tile's channels."""
        return int(triton.cdiv(pixels, self.pixels * self.steps))

    def programs(self, images: int, pixels: int, channels: int) -> int:
        return images * self.blocks(pixels) * int(triton.cdiv(channels, self.channels))


def tiling(x: Tensor, pixels: int, channels: int, *, rounds: int, most_pixels: int = 1) -> Tiling:
    """How to cut up images of so many pixels and channels, with the dtype of ``x``.

    ``rounds`` are the 16 bytes that each thread has in a tile. A program works on tiles of up to
    ``most_pixels`` together where it adds something up: then writing and reading partial sums is
    next to nothing beside the maps.
    """
    # The longest runs of neighbours in memory that leave at most a fifth of the lanes without any.
    fitting = [b for b in (32, 64, 128) if triton.cdiv(channels, b) * b <= 1.25 * channels]
    tile_channels = fitting[-1] if fitting else 16
    tile_pixels = rounds * ROUND_BYTES // x.element_size() // tile_channels
    tile_pixels = min(max(tile_pixels, 1), triton.next_power_of_2(pixels))
    groups = triton.cdiv(channels, tile_channels)
    steps = min(most_pixels, pixels * groups // PROGRAMS_PER_IMAGE) // tile_pixels
    return Tiling(tile_pixels, tile_channels, max(steps, 1))


def options(tiles: Tiling) -> dict[str, Any]:
    """What every launch is given by name."""
    return {
        "BLOCK_P": tiles.pixels,
        "BLOCK_C": tiles.channels,
        "num_warps": WARPS,
        **ROUNDING,
    }


def channels_last(map_: Tensor) -> Tensor:
    return map_.contiguous(memory_format=torch.channels_last)


def new_map(like: Tensor, *size: int) -> Tensor:
    return torch.empty(
        size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


@triton.jit
def place(pixels, channels, PIXELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """This program's image and block of ``PIXELS`` pixels, and the channels of its tile.

    Programs with neighbouring channels run side by side: they share lines of memory.
    """
    program = tl.program_id(0)
    groups = tl.cdiv(channels, BLOCK_C)
    blocks = tl.cdiv(pixels, PIXELS)
    image = (program // (groups * blocks)).to(tl.int64)
    channel = program % groups * BLOCK_C + tl.arange(0, BLOCK_C)
    return image, program // groups % blocks, channel


@triton.jit
def load_affine(scale, shift, image, channel, channels):
    """Scale and shift of the tile's channels, ``[1, BLOCK_C]``."""
    at = image * channels + channel
    mask = channel < channels
    return (
        tl.load(scale + at, mask=mask, other=0.0)[None, :],
        tl.load(shift + at, mask=mask, other=0.0)[None, :],
    )


@triton.jit
def norm_relu(x, scale, shift):
    """relu(x * scale + shift); NaN stays NaN, which ``tl.maximum`` would not promise."""
    t = x.to(scale.dtype) * scale + shift
    return tl.where(t < 0, 0.0, t)


@triton.jit
def norm_relu_gradient(dy, x, scale, shift):
    """What relu(x * scale + shift) lets through of ``dy``, in the dtype of ``scale``."""
    t = x.to(scale.dtype) * scale + shift
    return tl.where(t <= 0, 0.0, dy.to(scale.dtype))


@triton.jit
def load_four(map_, at, masks):
    """The map at four tiles of places. To be called before anything is stored: the compiler could
    not move the reads ahead of it, and they would wait for each other.
    """
    return (
        tl.load(map_ + at[0], mask=masks[0], other=0.0),
        tl.load(map_ + at[1], mask=masks[1], other=0.0),
        tl.load(map_ + at[2], mask=masks[2], other=0.0),
        tl.load(map_ + at[3], mask=masks[3], other=0.0),
    )


@triton.jit
def store_sums(dscale, dshift, by_scale, by_shift, image, block, blocks, channel, channels):
    """Store sums over a program's pixels, from ``[BLOCK_P, BLOCK_C]``, in its row of the parts."""
    at = (image * blocks + block) * channels + channel
    mask = channel < channels
    tl.store(dscale + at, tl.sum(by_scale, 0), mask=mask)
    tl.store(dshift + at, tl.sum(by_shift, 0), mask=mask)


@triton.jit
def _add_up_kernel(
    scale_parts,
    shift_parts,
    dscale,
    dshift,
    blocks,
    channels,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    image, _, channel = place(1, channels, 1, BLOCK_C)
    by_scale = tl.zeros((BLOCK_P, BLOCK_C), dscale.dtype.element_ty)
    by_shift = tl.zeros((BLOCK_P, BLOCK_C), dscale.dtype.element_ty)
    for first in range(0, blocks, BLOCK_P):
        block = first + tl.arange(0, BLOCK_P)
        at = (image * blocks + block)[:, None] * channels + channel[None, :]
        mask = (block < blocks)[:, None] & (channel < channels)[None, :]
        by_scale += tl.load(scale_parts + at, mask=mask, other=0.0)
        by_shift += tl.load(shift_parts + at, mask=mask, other=0.0)
    store_sums(dscale, dshift, by_scale, by_shift, image, 0, 1, channel, channels)


class Sums:
    """The gradients of scale and shift ``[N, C]``: room for every block's part, then their sum.

    The order of summation is fixed, and no atomics are needed.
    """

    def __init__(self, scale: Tensor, blocks: int) -> None:
        self.scale, self.blocks = scale, blocks
        images, channels = scale.shape
        size = (images, channels) if blocks == 1 else (images, blocks, channels)
        self.parts = scale.new_empty(size), scale.new_empty(size)

    def add_up(self) -> tuple[Tensor, Tensor]:
        if self.blocks == 1:
            return self.parts
        images, channels = self.scale.shape
        sums = self.scale.new_empty(images, channels), self.scale.new_empty(images, channels)
        tiles = tiling(self.scale, self.blocks, channels, rounds=2)
        with on_device_of(self.scale):
            _add_up_kernel[(images * triton.cdiv(channels, tiles.channels),)](
                *self.parts, *sums, self.blocks, channels, **options(tiles)
            )
        return sums
