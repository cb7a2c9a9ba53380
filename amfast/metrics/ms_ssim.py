"""How similar the images of one class are to each other in structure, over pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import ms_ssim
from amfast.ops._checks import check_pairs


def pairwise_ms_ssim(images: Tensor, pairs: Tensor, *, pairs_per_pass: int = 64) -> Tensor:
    """MS-SSIM of pairs of images: 1 for equal ones, at least 0; lower is more diverse.

    The measure of diversity of Odena, Olah and Shlens ("Conditional image synthesis with auxiliary
    classifier GANs", ICML 2017, section 4.3), by the definition of Wang, Simoncelli and Bovik
    (2003); ``amfast.ops.ms_ssim`` says what becomes of it below 161 pixels.

    Args:
        images: ``[N, 3, H, W]`` in ``[-1, 1]``, of a floating dtype; H and W at least 1.
        pairs: ``[P, 2]`` int64, indices of images; P may be 0.
        pairs_per_pass: how many pairs are copied out at a time; the result does not depend on it,
            but for rounding.

    Returns:
        ``[P]``, float64 for float64 images and float32 otherwise, on the images' device.

    Raises:
        UsageError: another shape or dtype of an argument, an index that no image has (looked for on
            the CPU only), or less than one pair per pass.
    """
    if pairs_per_pass < 1:
        raise UsageError(f"pairs_per_pass is {pairs_per_pass}; it must be at least 1.")
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise UsageError(
            f"images are {list(images.shape)} of {images.dtype}; they must be [N, 3, H, W] of a "
            "floating dtype, in [-1, 1]."
        )
    check_pairs(pairs, "images", len(images))
    unit = ((images + 1) / 2).contiguous()
    parts = [
        ms_ssim(unit[part[:, 0]], unit[part[:, 1]], data_range=1.0)
        for part in pairs.to(images.device).split(pairs_per_pass)
    ]
    return torch.cat(parts)
