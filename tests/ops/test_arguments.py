"""What all ops owe alike, whichever kernel serves: dense tensors, no forward mode, any tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amfast import ops
from amfast.errors import UsageError

Call = Callable[..., Any]


def maps(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


#: Every public op, with tensors that it takes.
CALLS: dict[str, tuple[Call, dict[str, Tensor]]] = {
    "cond_norm_relu": (
        ops.cond_norm_relu,
        {"x": maps(2, 3, 4, 4), "scale": maps(2, 3), "shift": maps(2, 3)},
    ),
    "upsample_add": (ops.upsample_add, {"h": maps(2, 3, 4, 4), "skip": maps(2, 3, 2, 2)}),
    "upsample_add_norm_relu": (
        ops.upsample_add_norm_relu,
        {
            "h": maps(2, 3, 4, 4),
            "skip": maps(2, 3, 2, 2),
            "scale": maps(2, 3),
            "shift": maps(2, 3),
        },
    ),
    "subpixel_norm_relu": (
        ops.subpixel_norm_relu,
        {"x": maps(2, 12, 3, 3), "scale": maps(2, 3), "shift": maps(2, 3)},
    ),
    "upsample_add_to_rgb": (
        ops.upsample_add_to_rgb,
        {
            "h": maps(2, 4, 4, 4),
            "skip": maps(2, 4, 2, 2),
            "scale": maps(4),
            "shift": maps(4),
            "weight": maps(3, 4, 3, 3),
            "bias": maps(3),
        },
    ),
    "resize_to_classifier": (
        lambda x: ops.resize_to_classifier(x, 5, (0.5,) * 3, (0.5,) * 3),
        {"x": maps(2, 3, 4, 4)},
    ),
    "target_log_prob": (
        ops.target_log_prob,
        {"logits": maps(2, 3), "target": torch.tensor([0, 2])},
    ),
    "softmax_pair_distance": (
        ops.softmax_pair_distance,
        {"logits": maps(2, 3), "pairs": torch.tensor([[0, 1]])},
    ),
    "ms_ssim": (
        lambda x, y: ops.ms_ssim(x, y, data_range=1.0),
        {"x": maps(2, 3, 8, 8), "y": 1 - maps(2, 3, 8, 8)},
    ),
    "lpips_distance": (
        ops.lpips_distance,
        {"fx": maps(2, 3, 4, 4), "fy": 1 - maps(2, 3, 4, 4), "w": maps(3)},
    ),
    "lpips_all_pairs": (ops.lpips_all_pairs, {"features": maps(2, 3, 4, 4), "w": maps(3)}),
}
ARGUMENTS = [(op, name) for op, (_, tensors) in CALLS.items() for name in tensors]
#: Those that are PyTorch's own expressions, and so have all of its derivatives.
EXPRESSIONS = ("upsample_add", "lpips_all_pairs")


@pytest.mark.parametrize(("op", "name"), ARGUMENTS, ids="-".join)
@pytest.mark.parametrize("other", [None, 1.0, [1.0], np.zeros(2, np.float32)], ids=repr)
def test_bad_arguments_that_are_no_tensors_are_named(op: str, name: str, other: object) -> None:
    function, tensors = CALLS[op]
    with pytest.raises(UsageError, match=f"{name} is a .*torch.Tensor"):
        function(*{**tensors, name: other}.values())


@pytest.mark.parametrize(("op", "name"), ARGUMENTS, ids="-".join)
def test_bad_arguments_that_are_sparse_are_named(op: str, name: str) -> None:
    function, tensors = CALLS[op]
    with pytest.raises(UsageError, match=f"{name} is sparse"):
        function(*{**tensors, name: tensors[name].to_sparse()}.values())


@pytest.mark.parametrize("op", [op for op in CALLS if op not in EXPRESSIONS])
def test_forward_mode_is_refused(op: str) -> None:
    function, (first, *rest) = CALLS[op][0], CALLS[op][1].values()
    with pytest.raises(NotImplementedError, match="forward-mode.*impl='ref'"):
        torch.func.jvp(lambda x: function(x, *rest), (first,), (torch.ones_like(first),))


@pytest.mark.parametrize("op", CALLS)
def test_meta_tensors_give_meta_tensors(op: str) -> None:
    function, tensors = CALLS[op]
    here = function(*tensors.values())
    there = function(*(t.to("meta") for t in tensors.values()))
    for one, other in zip(_tuple(here), _tuple(there), strict=True):
        assert (other.device.type, other.shape, other.dtype) == ("meta", one.shape, one.dtype)


def test_compiles_ms_ssim_for_changing_sides() -> None:
    function = torch.compile(CALLS["ms_ssim"][0], backend="aot_eager", fullgraph=True)
    for side in (16, 12, 9, 20):
        x, y = maps(1, 3, side, side), 1 - maps(1, 3, side, side)
        torch.testing.assert_close(function(x, y), CALLS["ms_ssim"][0](x, y))


def test_compiles_resizing_for_changing_means() -> None:
    def resized(x: Tensor, mean: list[float]) -> Tensor:
        return ops.resize_to_classifier(x, 5, mean, [0.5] * 3)

    function, x = torch.compile(resized, backend="aot_eager", fullgraph=True), maps(1, 3, 8, 8)
    for mean in ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6], [0.1, 0.2, 0.3]):
        torch.testing.assert_close(function(x, mean), resized(x, mean))


def test_a_batch_of_weights_has_no_values_to_look_at() -> None:
    function, tensors = CALLS["lpips_distance"]
    fx, fy, w = tensors.values()
    one = torch.func.vmap(lambda a, b: ops.lpips_distance_ref(fx, a, b))(fy[None], w[None])
    torch.testing.assert_close(one[0], function(fx, fy, w))


def test_bad_arguments_in_a_parameter_are_looked_at() -> None:
    target = nn.Parameter(torch.tensor([0, 9]), requires_grad=False)
    with pytest.raises(UsageError, match="class 9"):
        ops.target_log_prob(maps(2, 3), target)


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_autocast_leaves_the_sums_of_upsample_add_to_rgb_alone(impl: str) -> None:
    tensors = CALLS["upsample_add_to_rgb"][1].values()
    with torch.autocast("cpu", torch.bfloat16):
        found = ops.upsample_add_to_rgb(*tensors, impl=impl)
    assert torch.equal(found, ops.upsample_add_to_rgb(*tensors, impl=impl))


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("shape", [(2, 0, 6, 4), (2, 4, 0, 4), (0, 4, 6, 4)], ids=str)
def test_upsample_add_to_rgb_of_nothing(shape: tuple[int, ...], impl: str) -> None:
    n, channels, height, width = shape
    h = maps(*shape).requires_grad_()
    skip = maps(n, channels, height // 2, width // 2).requires_grad_()
    frozen = maps(channels), maps(channels), maps(3, channels, 3, 3), maps(3)
    rgb = ops.upsample_add_to_rgb(h, skip, *frozen, impl=impl)
    assert torch.equal(rgb, frozen[3][:, None, None].expand(n, 3, height, width))
    rgb.sum().backward()
    assert h.grad.shape == h.shape and skip.grad.shape == skip.shape


def test_lpips_all_pairs_of_a_broken_image() -> None:
    features = maps(3, 4, 2, 2)
    features[1, 0, 0, 0] = torch.nan
    for impl in ("auto", "ref"):
        broken = ops.lpips_all_pairs(features, maps(4), impl=impl).isnan()
        assert torch.equal(broken, torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]]).bool())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"mean": 0.5}, "mean is 0.5; it must be three finite numbers"),
        ({"mean": torch.zeros(3)}, "mean is tensor.*three finite numbers"),
        ({"mean": ["a"] * 3}, "mean is .*three finite numbers"),
        ({"mean": [1e39] * 3}, "mean is .*three finite numbers"),
        ({"std": [1e-39] * 3}, "std is .*positive"),
        ({"size": True}, "size is True; it must be a whole number"),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be one of torch.float32"),
    ],
    ids=str,
)
def test_bad_arguments_of_resizing(values: dict[str, Any], sentence: str) -> None:
    given = {"size": 5, "mean": [0.5] * 3, "std": [0.5] * 3, **values}
    with pytest.raises(UsageError, match=sentence):
        ops.resize_to_classifier(maps(1, 3, 4, 4), **given)


def test_a_size_may_be_numpys() -> None:
    x, numbers = maps(1, 3, 4, 4), ([0.5] * 3, [0.5] * 3)
    wanted = ops.resize_to_classifier(x, 5, *numbers)
    assert torch.equal(ops.resize_to_classifier(x, np.int64(5), *numbers), wanted)  # type: ignore[arg-type]


def _tuple(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)
