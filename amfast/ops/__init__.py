"""Operators: each a public function, a plain reference that specifies it, and compiled kernels."""

from __future__ import annotations

from amfast.ops._fallback import on_fallback, refuse_slower_paths
from amfast.ops._library import OpImplementation, implementations, slower_paths
from amfast.ops.cond_norm_relu import cond_norm_relu, cond_norm_relu_ref
from amfast.ops.lpips_distance import lpips_all_pairs, lpips_distance, lpips_distance_ref
from amfast.ops.ms_ssim import ms_ssim, ms_ssim_scale_ref
from amfast.ops.resize_to_classifier import resize_to_classifier, resize_to_classifier_ref
from amfast.ops.softmax_pair_distance import softmax_pair_distance, softmax_pair_distance_ref
from amfast.ops.subpixel_norm_relu import subpixel_norm_relu, subpixel_norm_relu_ref
from amfast.ops.target_log_prob import (
    target_log_prob,
    target_log_prob_and_top1,
    target_log_prob_ref,
)
from amfast.ops.upsample_add_norm_relu import (
    upsample_add,
    upsample_add_norm_relu,
    upsample_add_norm_relu_ref,
)
from amfast.ops.upsample_add_to_rgb import upsample_add_to_rgb, upsample_add_to_rgb_ref

__all__ = [
    "OpImplementation",
    "cond_norm_relu",
    "cond_norm_relu_ref",
    "implementations",
    "lpips_all_pairs",
    "lpips_distance",
    "lpips_distance_ref",
    "ms_ssim",
    "ms_ssim_scale_ref",
    "on_fallback",
    "refuse_slower_paths",
    "resize_to_classifier",
    "resize_to_classifier_ref",
    "slower_paths",
    "softmax_pair_distance",
    "softmax_pair_distance_ref",
    "subpixel_norm_relu",
    "subpixel_norm_relu_ref",
    "target_log_prob",
    "target_log_prob_and_top1",
    "target_log_prob_ref",
    "upsample_add",
    "upsample_add_norm_relu",
    "upsample_add_norm_relu_ref",
    "upsample_add_to_rgb",
    "upsample_add_to_rgb_ref",
]
