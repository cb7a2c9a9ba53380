"""ms_ssim against float64, forward and backward, whichever implementation serves.

The other runs of this file are those of tests/ops/test_other_implementations.py and, on the
reference alone, of tests/test_build.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import ms_ssim
from amfast.ops.ms_ssim import SCALE_WEIGHTS, gaussian_window
from tests.ops import maps
from tests.tolerances import TOLERANCES

OP = torch.ops.amfast.ms_ssim_scale.default
BACKWARD_OP = torch.ops.amfast.ms_ssim_scale_backward.default
OPS = ("ms_ssim_scale", "ms_ssim_scale_backward")
#: Empty, a single pixel, a line, windows that shrink at once or at a later scale, odd sides, and
#: more than one tile of the kernels along either axis.
SHAPES = [
    (0, 3, 12, 12),
    (1, 1, 1, 1),
    (2, 3, 1, 5),
    (1, 2, 9, 2),
    (1, 2, 11, 11),
    (2, 3, 17, 33),
    (1, 1, 32, 12),
    (1, 1, 141, 23),
    (1, 1, 12, 139),
]
ref = functools.partial(ms_ssim, data_range=1.0, impl="ref")
op = functools.partial(ms_ssim, data_range=1.0)


def make_inputs(
    shape: Sequence[int], dtype: torch.dtype = torch.float32, seed: int = 0, alike: float = 0.7
) -> list[Tensor]:
    """Pairs of images in [0, 1], alike enough for every scale's terms to be positive."""
    random = torch.Generator().manual_seed(seed)
    x, noise = (torch.rand(list(shape), generator=random, dtype=torch.float64) for _ in range(2))
    return [x.to(dtype), (alike * x + (1 - alike) * noise).to(dtype)]


def textbook(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of images in [0, 1] as published, five moments by two-dimensional convolutions."""
    n, c = x.shape[:2]
    x, y = x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None]
    value = torch.ones(n * c, dtype=x.dtype)
    for level, weight in enumerate(SCALE_WEIGHTS):
        size = min(11, *x.shape[2:])
        at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        bell = torch.exp(-at.square() / (2 * (1.5 * size / 11) ** 2))
        window = torch.outer(bell, bell) / bell.sum() ** 2
        window = window.to(x.dtype)[None, None]
        mean_x, mean_y, xx, yy, xy = (F.conv2d(m, window) for m in (x, y, x * x, y * y, x * y))
        var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
        term = (2 * cov + 0.03**2) / (var_x + var_y + 0.03**2)
        if level == len(SCALE_WEIGHTS) - 1:
            term = term * (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        value = value * term.mean((1, 2, 3)).relu() ** weight
        odd = (x.shape[2] % 2, x.shape[3] % 2)
        x, y = F.avg_pool2d(x, 2, padding=odd), F.avg_pool2d(y, 2, padding=odd)
    return value.reshape(n, c).mean(1)


def assert_near(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
    """Values within their dtype's tolerance; gradients, which are small, relative to the largest.

    Theirs is ten times as much: a variance loses digits to the square of the mean.
    """
    maps.assert_near(found, wanted)
    for i, (a, w) in enumerate(zip(found, wanted, strict=True)):
        if w.numel():
            tolerance = TOLERANCES[a.dtype].rtol * (1 if i == 0 else 10)
            assert float((a.double() - w).abs().max()) <= tolerance * float(w.abs().max())


def test_the_implementation_under_test_is_the_one_meant() -> None:
    assert maps.served(*OPS) == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_match_float64(
    shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    inputs = make_inputs(shape, dtype)
    found = maps.run(functools.partial(op, impl=impl), inputs)
    assert_near(found, maps.exact(ref, inputs))
    assert found[0].shape == shape[:1] and found[0].dtype == maps.accumulator(dtype)
    assert all(d.dtype == dtype and d.is_contiguous() for d in found[1:])


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_the_reference_is_the_textbook(shape: tuple[int, ...]) -> None:
    inputs = make_inputs(shape, torch.float64)
    assert_near(maps.run(ref, inputs), maps.exact(textbook, inputs))


@pytest.mark.parametrize("shape", [(1, 2, 161, 162), (2, 1, 164, 161)], ids=str)
def test_above_160_pixels_it_is_pytorch_msssim(shape: tuple[int, ...]) -> None:
    inputs = make_inputs(shape)
    for data_range in (1.0, 255.0):
        scaled = [x * data_range for x in inputs]
        theirs = functools.partial(
            pytorch_msssim.ms_ssim, data_range=data_range, size_average=False
        )
        value, *gradients = maps.run(functools.partial(ms_ssim, data_range=data_range), scaled)
        torch.testing.assert_close(value, theirs(*scaled), rtol=0, atol=1e-5)
        # Its own window is rounded to float32.
        window = torch.tensor(gaussian_window(11), dtype=torch.float64).expand(shape[1], 1, 1, 11)
        wanted = maps.exact(functools.partial(theirs, win=window), scaled)
        assert_near([value, *gradients], wanted)


@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
def test_half_types_err_at_most_twice_as_much_as_pytorch(dtype: torch.dtype) -> None:
    inputs = make_inputs((2, 2, 24, 33), dtype)
    wanted = maps.exact(ref, inputs)
    maps.assert_half_error_is_pytorchs(maps.run(op, inputs), maps.run(textbook, inputs), wanted)


@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 24), st.integers(1, 24)),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=maps.examples(20), deadline=None, derandomize=True)
def test_any_shape_and_layout(shape: tuple[int, ...], channels_last: bool, seed: int) -> None:
    inputs = make_inputs(shape, seed=seed)
    if channels_last:
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    maps.assert_near(maps.run(op, inputs), maps.exact(ref, inputs))


def test_strided_and_expanded_inputs() -> None:
    inputs = make_inputs((3, 2, 13, 14))
    wanted = maps.exact(ref, inputs)
    spread = [torch.stack([x, x + 1], dim=-1)[..., 0] for x in inputs]
    assert_near(maps.run(op, spread), wanted)
    x, y = inputs
    assert_near([op(x[:1].expand(x.shape), y)[:1]], [wanted[0][:1]])


def test_a_pair_depends_on_neither_its_batch_nor_the_threads() -> None:
    inputs = make_inputs((3, 2, 80, 17))
    together = maps.run(op, inputs)
    alone = maps.run(op, [x[:1] for x in inputs])
    torch.testing.assert_close(alone[0], together[0][:1], rtol=1e-6, atol=0)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for a, b in zip(maps.run(op, inputs), together, strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_nan_and_infinity_stay_in_their_pair(bad: float, impl: str) -> None:
    inputs = make_inputs((3, 2, 14, 13))
    function = functools.partial(op, impl=impl)
    clean = maps.run(function, inputs)
    inputs[1][1, 0, 3, 3] = bad
    found = maps.run(function, inputs)
    for a, b in zip(found, clean, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert found[0][1].isnan() and found[1][1].isnan().any() and found[2][1].isnan().any()


def test_constant_images_by_hand() -> None:
    x, y = torch.full((1, 2, 32, 48), 0.2), torch.full((1, 2, 32, 48), 0.7)
    luminance = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    torch.testing.assert_close(op(x, y), torch.tensor([luminance**0.1333]), rtol=1e-5, atol=0)


def test_a_single_pixel_by_hand() -> None:
    # Halving an odd side puts zeros beside it: a quarter of the pixel is left at each scale.
    x, y = 0.9 / 4**4, 0.3 / 4**4
    luminance = (2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)
    found = op(torch.full((1, 3, 1, 1), 0.9), torch.full((1, 3, 1, 1), 0.3))
    torch.testing.assert_close(found, torch.tensor([luminance**0.1333]), rtol=1e-5, atol=0)


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(64, 64), (15, 3)])
def test_identical_images_give_one_and_no_gradient(
    size: tuple[int, int], dtype: torch.dtype, impl: str
) -> None:
    x = make_inputs((2, 1, *size), dtype)[0]
    value, dx, dy = maps.run(functools.partial(op, impl=impl), [x, x.clone()])
    assert torch.equal(value, torch.ones(2))
    assert dx.abs().max() <= 1e-8 and dy.abs().max() <= 1e-8


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("data_range", [1.0, 255.0, 65535.0])
def test_degenerate_images_have_finite_values_and_gradients(data_range: float, impl: str) -> None:
    x = make_inputs((1, 1, 20, 26))[0]
    checks = ((torch.arange(20)[:, None] + torch.arange(26)) % 2).float().expand(1, 1, 20, 26)
    images = torch.cat([x, 1 - x, checks, 1 - checks, x * 0, x * 0 + 1, x * 0 + 0.7, x > 0.99])
    first = (images * data_range).repeat_interleave(8, 0).round()
    second = (images * data_range).repeat(8, 1, 1, 1).round()
    function = functools.partial(ms_ssim, data_range=data_range, impl=impl)
    value, dx, dy = maps.run(function, [first, second])
    assert value.min() >= 0 and value.max() <= 1
    assert dx.isfinite().all() and dy.isfinite().all()
    table = value.reshape(8, 8)
    assert torch.equal(table.diagonal(), torch.ones(8))
    assert table[0, 1] == table[2, 3] == 0  # inverted: no scale's term is above 0
    assert not dx.reshape(8, 8, 20, 26)[2, 3].any()


def test_a_data_range_that_is_too_small_gives_no_nan() -> None:
    found = maps.run(op, [65535 * x for x in make_inputs((2, 1, 20, 26), alike=0.1)])
    assert found[0].min() >= 0 and found[0].max() <= 1
    assert found[1].isfinite().all() and found[2].isfinite().all()


def test_variances_survive_a_large_mean() -> None:
    inputs = [x / 8 + 100 for x in make_inputs((2, 2, 40, 30))]
    assert_near(maps.run(op, inputs)[:1], maps.exact(ref, inputs)[:1])


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_gradcheck_in_float64(impl: str) -> None:
    inputs = [x.requires_grad_() for x in make_inputs((2, 2, 13, 15), torch.float64)]
    assert torch.autograd.gradcheck(functools.partial(op, impl=impl), inputs, fast_mode=True)


def test_a_second_derivative_is_refused_and_the_reference_has_one() -> None:
    inputs = [x.requires_grad_() for x in make_inputs((1, 1, 5, 4), torch.float64)]
    first = torch.autograd.grad(op(*inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"ms_ssim cannot be.*twice.*impl='ref'"):
        first[-1].square().sum().backward()
    assert torch.autograd.gradgradcheck(ref, inputs, fast_mode=True)


@pytest.mark.parametrize("shape", [(0, 2, 12, 12), (2, 3, 13, 12), (1, 1, 1, 1)], ids=str)
def test_opcheck(shape: tuple[int, ...]) -> None:
    x, y = make_inputs(shape)
    constants = (gaussian_window(min(11, *shape[2:])), 1e-4, 9e-4)
    gradients = [torch.rand_like(r) for r in OP(x, y, *constants)]
    torch.library.opcheck(BACKWARD_OP, (*gradients, x, y, *constants))
    torch.library.opcheck(OP, (x.requires_grad_(), y.requires_grad_(), *constants))


def test_compiles_without_a_graph_break() -> None:
    inputs = make_inputs((2, 1, 17, 12))
    compiled = torch.compile(op, backend="aot_eager", fullgraph=True)
    for a, b in zip(maps.run(compiled, inputs), maps.run(op, inputs), strict=True):
        assert torch.equal(a, b)


def test_maps_kept_for_the_backward_are_the_images_of_each_scale() -> None:
    kept = [tuple(x.shape[2:]) for x in maps.saved(op, make_inputs((2, 3, 33, 16)))]
    sides = [(33, 16), (17, 8), (9, 4), (5, 2), (3, 1)]
    assert [side for side in kept if side] == [side for side in sides for _ in range(2)]


def test_window_sums_to_one_and_shrinks_in_proportion() -> None:
    for size in range(1, 12):
        window = gaussian_window(size)
        assert math.isclose(math.fsum(window), 1, rel_tol=1e-15) and window == window[::-1]
    ratio = gaussian_window(5)[2] / gaussian_window(5)[1]
    assert math.isclose(ratio, math.exp(1 / (2 * (1.5 * 5 / 11) ** 2)))


GOOD = make_inputs((2, 3, 12, 12))


@pytest.mark.parametrize(
    ("index", "bad", "sentence"),
    [
        (0, torch.zeros(2, 3, 12, 12, dtype=torch.uint8), "x is uint8.*float32.*float16"),
        (0, torch.zeros(3, 12, 12), r"x has shape \[3, 12, 12\].*\[N, C, H, W\]"),
        (0, torch.zeros(2, 0, 12, 12), r"x has shape \[2, 0, 12, 12\].*at least one channel"),
        (0, torch.zeros(2, 3, 12, 0), r"x has shape \[2, 3, 12, 0\].*one pixel"),
        (1, torch.zeros(2, 3, 12, 13), r"y has shape \[2, 3, 12, 13\].*\[2, 3, 12, 12\]"),
        (1, torch.zeros(2, 3, 12, 12).half(), "y is float16.*float32, as x is"),
        (1, GOOD[1].to("meta"), "y is on meta and x on cpu"),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_bad_images_get_a_sentence(index: int, bad: Tensor, sentence: str, impl: str) -> None:
    inputs = [bad if i == index else good for i, good in enumerate(GOOD)]
    if index == 0:
        inputs[1] = bad
    with pytest.raises(UsageError, match=sentence):
        op(*inputs, impl=impl)


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.nan, torch.inf, 1e-30, True, "1", torch.ones(1)])
def test_a_bad_data_range_gets_a_sentence(bad: float) -> None:
    with pytest.raises(UsageError, match=r"data_range is .*from 1e-09 to 1e\+09.*255 for"):
        ms_ssim(*GOOD, data_range=bad)


def test_an_unknown_impl_is_refused() -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        op(*GOOD, impl="fast")


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(GOOD[0][0], GOOD[1][0], gaussian_window(11), 1e-4, 9e-4)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(*(x[:, :, :9] for x in GOOD), gaussian_window(11), 1e-4, 9e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, (2, 3, 256, 256)], ids=str)
def test_cuda_matches_float64(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = [x.cuda() for x in make_inputs(shape, dtype)]
    assert_near(maps.run(op, inputs), maps.exact(ref, inputs))


@pytest.mark.gpu
def test_cuda_gives_no_more_than_one_for_identical_images() -> None:
    x = make_inputs((2, 3, 256, 256), torch.float32)[0].cuda()
    value = op(x, x)  # torch's own mean of ones may be just below one there
    assert value.max() <= 1 and value.min() >= 1 - TOLERANCES[torch.float32].rtol
