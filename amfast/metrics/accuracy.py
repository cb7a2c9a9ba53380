"""How often a classifier sees in an image what it should show."""

from __future__ import annotations

import torch
from torch import Tensor

from amfast.errors import UsageError
from amfast.metrics.features import FeatureNetwork, check_features
from amfast.metrics.measure import Measure, measure_mean


def in_top(logits: Tensor, target: int | Tensor, k: int) -> Tensor:
    """Whether the target is among the k most probable classes: logits ``[N, C]`` -> ``[N]`` bool.

    Of equal logits the first counts as the greater, as for ``argmax``.

    Args:
        logits: floating and finite; N may be 0.
        target: one class for all images, or int64 ``[N]``.
        k: from 1 to C.

    Raises:
        UsageError: another shape or dtype, NaN, a class or a k that there is not.
    """
    check_features("logits", logits)
    images, classes = logits.shape
    if not 1 <= k <= classes:
        raise UsageError(f"k is {k}; among {classes} classes it must be from 1 to {classes}.")
    if isinstance(target, Tensor) and (target.dtype, target.shape) != (torch.int64, (images,)):
        raise UsageError(
            f"target is {list(target.shape)} of {target.dtype}; beside logits "
            f"{list(logits.shape)} it must be one class, or int64 of [{images}]."
        )
    wanted = torch.as_tensor(target, device=logits.device).expand(images)[:, None]
    if images and not (int(wanted.min()) >= 0 and int(wanted.max()) < classes):
        raise UsageError(
            f"target holds {int(wanted.min())} to {int(wanted.max())}; the logits are of "
            f"{classes} classes, counted from 0."
        )
    own = logits.gather(1, wanted)
    earlier = torch.arange(classes, device=logits.device) < wanted
    ahead = (logits > own) | ((logits == own) & earlier)
    return ahead.sum(dim=1) < k


def measure_accuracy(
    logits: Tensor, target: int | Tensor, network: FeatureNetwork, *, k: int = 1, seed: int = 0
) -> Measure:
    """The share of images with the target in the top k, in [0, 1], higher is better.

    Named ``top1[network]``. By Inception-v3, with k = 1, it is the Inception accuracy of Li et al.
    (ACCV 2020); that is torchvision's ``inception_v3``, because FID's Inception has 1,008 classes
    in an order of their own. Arguments and errors are those of ``in_top``; there must be an image.
    """
    hits = in_top(logits, target, k)
    return measure_mean(
        f"top{k}[{network.name}]",
        hits,
        unit="images",
        seed=seed,
        weights=network.fingerprint,
    )
