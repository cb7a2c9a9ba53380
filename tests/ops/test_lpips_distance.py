"""lpips_distance against float64, forward and backward, whichever implementation serves.

tests/test_kernels.py runs it again on every other implementation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from amfast.errors import UsageError
from amfast.ops import lpips_all_pairs, lpips_distance, lpips_distance_ref
from amfast.ops.lpips_distance import lpips_all_pairs_ref
from tests.ops import maps

OP = torch.ops.amfast.lpips_distance.default
BACKWARD_OP = torch.ops.amfast.lpips_distance_backward.default
Inputs = tuple[Tensor, Tensor, Tensor, Tensor]


def make_inputs(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    channels_last: bool = True,
) -> Inputs:
    """fx and fy [N, C, H, W], weights [C] and the gradient of the result [N].

    Rounding leaves a gradient off by a share of weight * gradient / length, however small it comes
    out itself (of one channel it is next to 0): so the first two are at most 1, the last at least.
    """
    draw = maps.Draw(dtype, seed)
    fx, fy = (draw.map(*shape, channels_last=channels_last) for _ in range(2))
    w, ddistances = draw.factor(1, shape[1])[0], draw.factor(1, shape[0])[0]
    return fx + fx.sign(), fy + fy.sign(), w.abs().clamp(max=1), ddistances.clamp(-1, 1)


def run(
    function: Callable[[Tensor, Tensor, Tensor], Tensor],
    fx: Tensor,
    fy: Tensor,
    w: Tensor,
    ddistances: Tensor,
) -> list[Tensor]:
    """The distances and the gradients of fx and fy."""
    leaves = [f.detach().requires_grad_() for f in (fx, fy)]
    distances = function(*leaves, w)
    return [
        distances.detach(),
        *torch.autograd.grad(distances, leaves, ddistances.to(distances.dtype)),
    ]


def pytorch(fx: Tensor, fy: Tensor, w: Tensor) -> Tensor:
    """Equation 1 as it is written, in the dtype of the maps."""
    a, b = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (fx, fy))
    return (w.to(fx.dtype)[:, None, None] * (a - b).square()).sum(1).mean((1, 2))


def expected(inputs: Inputs) -> list[Tensor]:
    """The same inputs, values exactly as given, worked out by PyTorch in float64."""
    fx, fy, w, ddistances = (x.double() for x in inputs)
    return run(pytorch, fx, fy, w, ddistances)


def test_the_implementation_under_test_is_the_one_meant() -> None:
    assert maps.served("lpips_distance", "lpips_distance_backward") == maps.meant()


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", maps.SHAPES, ids=str)
def test_values_and_gradients_match_float64(
    shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    inputs = make_inputs(shape, dtype)
    found = run(functools.partial(lpips_distance, impl=impl), *inputs)
    maps.assert_near(found, expected(inputs))
    assert found[0].dtype == maps.accumulator(dtype)
    for gradient in found[1:]:
        assert gradient.dtype == dtype
        if impl == "auto":
            maps.assert_channels_last(gradient)


def test_many_positions_and_channels() -> None:
    """More than one thread's share of either."""
    for shape in ((2, 5, 90, 80), (1, 2100, 3, 3)):
        inputs = make_inputs(shape)
        maps.assert_near(run(lpips_distance, *inputs), expected(inputs))


@pytest.mark.parametrize("dtype", maps.HALF_DTYPES, ids=str)
def test_half_types_err_at_most_twice_as_much_as_pytorch(dtype: torch.dtype) -> None:
    inputs = make_inputs((4, 24, 8, 8), dtype)
    maps.assert_half_error_is_pytorchs(
        run(lpips_distance, *inputs), run(pytorch, *inputs), expected(inputs)
    )


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5)),
    channels_last=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=maps.examples(60), deadline=None, derandomize=True)
def test_any_shape_and_layout(shape: tuple[int, ...], channels_last: bool, seed: int) -> None:
    inputs = make_inputs(shape, seed=seed, channels_last=channels_last)
    maps.assert_near(run(lpips_distance, *inputs), expected(inputs))


def test_by_hand() -> None:
    fx = torch.tensor([[3.0, 0.0], [0.0, 0.5]]).reshape(1, 2, 1, 2)  # along channel 0, then 1
    fy = torch.tensor([[0.0, 0.0], [7.0, 2.0]]).reshape(1, 2, 1, 2)  # along channel 1 twice
    distance = lpips_distance(fx, fy, torch.tensor([5.0, 0.25]))
    torch.testing.assert_close(distance, torch.tensor([(5.25 + 0.0) / 2]))


def test_strided_expanded_and_mixed_inputs() -> None:
    inputs = make_inputs((3, 17, 4, 5))
    wanted = run(lpips_distance, *inputs)
    fx, fy, w, ddistances = inputs
    spread = [torch.stack([x, x + 1], dim=-1)[..., 0] for x in inputs]
    mixed = [fx.contiguous(), fy, w, ddistances]
    for layout in (spread, mixed):
        maps.assert_near(run(lpips_distance, *layout), wanted)
    row = lpips_distance(fx[:1].expand(3, 17, 4, 5), fy, w[:1].expand(17))
    maps.assert_near([row], [lpips_distance(fx[:1].repeat(3, 1, 1, 1), fy, w[:1].repeat(17))])


def test_images_do_not_depend_on_their_neighbours() -> None:
    inputs = make_inputs((5, 20, 7, 6))
    together = run(lpips_distance, *inputs)
    fx, fy, w, ddistances = inputs
    for i in (0, 3, 4):
        pick = slice(i, i + 1)
        alone = run(lpips_distance, fx[pick], fy[pick], w, ddistances[pick])
        for a, b in zip(alone, together, strict=True):
            assert torch.equal(a, b[pick])


def test_nan_stays_in_its_image() -> None:
    inputs = make_inputs((3, 5, 4, 4))
    clean = run(lpips_distance, *inputs)
    poisoned = inputs[0].clone()
    poisoned[1, 2, 0, 3] = torch.nan
    found = run(lpips_distance, poisoned, *inputs[1:])
    for a, b in zip(found, clean, strict=True):
        assert torch.equal(a[[0, 2]], b[[0, 2]])
        assert a[1].isnan().any()


@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
def test_equal_maps_are_at_0(dtype: torch.dtype) -> None:
    fx, _, w, ddistances = make_inputs((3, 33, 5, 4), dtype)
    distances, dfx, dfy = run(lpips_distance, fx, fx.clone(), w, ddistances)
    assert (distances == 0).all() and (dfx == 0).all() and (dfy == 0).all()


def test_nearly_equal_maps_keep_their_digits() -> None:
    """At 1e-6 a sum of squares less twice the products would be off by a tenth."""
    fx, noise, w, ddistances = make_inputs((2, 64, 9, 9))
    inputs = (fx, fx + 1e-3 * noise, w, ddistances)
    wanted = expected(inputs)[0]
    assert (wanted < 1e-5).all()
    torch.testing.assert_close(lpips_distance(*inputs[:3]).double(), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
def test_positions_without_features(dtype: torch.dtype, impl: str) -> None:
    fx, fy, w, ddistances = make_inputs((2, 18, 2, 2), dtype)
    fx[0, :, 0, 0] = 0
    fx[1] = 0
    fy[0, :, 0] = 0  # at (0, 0) neither has any
    found = run(functools.partial(lpips_distance, impl=impl), fx, fy, w, ddistances)
    maps.assert_near(found[:1], [pytorch(fx.double(), fy.double(), w.double())])
    distances, dfx, dfy = found
    assert distances[0] > 0 and dfx.isfinite().all() and dfy.isfinite().all()
    assert (dfx[0, :, 0, 0] == 0).all() and (dfx[1] == 0).all() and (dfy[0, :, 0] == 0).all()
    assert (dfx[0, :, 1] != 0).any()
    clean = expected((fx + (fx == 0), fy + (fy == 0), w, ddistances))
    maps.assert_near([dfx[0, :, 1], dfy[0, :, 1]], [clean[1][0, :, 1], clean[2][0, :, 1]])


@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_features_too_large_to_square_give_nan(impl: str) -> None:
    fx, fy, w, ddistances = make_inputs((2, 3, 2, 2))
    fx[0] *= 1e25
    distances, dfx, _ = run(functools.partial(lpips_distance, impl=impl), fx, fy, w, ddistances)
    assert distances[0].isnan() and dfx[0].isnan().all()
    assert distances[1].isfinite() and dfx[1].isfinite().all()


def test_tiny_features_have_a_direction() -> None:
    fx, fy, w, ddistances = make_inputs((2, 7, 3, 3))
    inputs = (fx * 1e-9, fy * 1e-12, w, ddistances)
    wanted = expected(inputs)
    found = run(lpips_distance, *inputs)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-6 * float(b.abs().max()))


def test_gradcheck_in_float64() -> None:
    fx, fy, w, _ = make_inputs((2, 3, 2, 2), torch.float64)
    leaves = (fx.requires_grad_(), fy.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: lpips_distance(x, y, w), leaves)
    assert torch.autograd.gradcheck(lambda x, y: lpips_distance_ref(x, y, w), leaves)


def test_a_second_derivative_is_refused_and_the_reference_has_one() -> None:
    fx, fy, w, _ = make_inputs((2, 3, 2, 2), torch.float64)
    leaves = (fx.requires_grad_(), fy.requires_grad_())
    first = torch.autograd.grad(lpips_distance(fx, fy, w).sum(), leaves, create_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice.*impl='ref'"):
        first[-1].square().sum().backward()
    assert torch.autograd.gradgradcheck(lambda x, y: lpips_distance_ref(x, y, w), leaves)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (2, 17, 3, 2), (1, 4, 1, 1)], ids=str)
def test_opcheck(shape: tuple[int, ...], channels_last: bool) -> None:
    fx, fy, w, ddistances = make_inputs(shape, channels_last=channels_last)
    torch.library.opcheck(BACKWARD_OP, (ddistances, fx, fy, w))
    torch.library.opcheck(OP, (fx.requires_grad_(), fy.requires_grad_(), w))


def test_compiles_without_a_graph_break() -> None:
    inputs = make_inputs((2, 5, 3, 4))
    compiled = torch.compile(lpips_distance, backend="aot_eager", fullgraph=True)
    for a, b in zip(run(compiled, *inputs), run(lpips_distance, *inputs), strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_the_backward() -> None:
    fx, fy, w, _ = make_inputs((2, 5, 3, 4))
    kept = maps.saved(lambda x, y: lpips_distance(x, y, w), [fx, fy])
    assert [tuple(x.shape) for x in kept] == [(2, 5, 3, 4), (2, 5, 3, 4), (5,)]


GOOD = make_inputs((2, 3, 2, 2))[:3]


@pytest.mark.parametrize(
    ("index", "bad", "sentence"),
    [
        (0, torch.zeros(2, 3, 2, 2, dtype=torch.int64), "fx is int64.*float32.*float16"),
        (0, torch.zeros(2, 3, 2), r"fx has shape \[2, 3, 2\].*\[N, C, H, W\]"),
        (1, torch.zeros(2, 3, 2, 1), r"fy has shape \[2, 3, 2, 1\].*\[2, 3, 2, 2\]"),
        (1, GOOD[1].double(), "fy is float64.*must be float32"),
        (1, GOOD[1].to("meta"), "fy is on meta and fx on cpu"),
        (2, torch.zeros(4), r"w has shape \[4\].*\[3\], a weight for every channel"),
        (2, torch.zeros(3, 1), r"w has shape \[3, 1\].*\[3\]"),
        (2, GOOD[2].double(), "w is float64.*float32 maps.*float32"),
        (2, GOOD[2].to("meta"), "w is on meta and fx on cpu"),
        (2, torch.tensor([1.0, -0.5, 0.0]), "w holds the weight -0.5; none may be negative"),
        (2, torch.ones(3, requires_grad=True), r"w requires a gradient.*w\.detach\(\)"),
    ],
)
@pytest.mark.parametrize("impl", ["auto", "ref"])
def test_bad_arguments_get_a_sentence(index: int, bad: Tensor, sentence: str, impl: str) -> None:
    inputs = [*GOOD[:index], bad, *GOOD[index + 1 :]]
    with pytest.raises(UsageError, match=sentence):
        lpips_distance(*inputs, impl=impl)


def test_a_mean_over_no_positions_is_refused() -> None:
    fx, fy, w, _ = make_inputs((2, 3, 0, 2))
    with pytest.raises(UsageError, match=r"fx has shape \[2, 3, 0, 2\]; H and W must be at least"):
        lpips_distance(fx, fy, w)


def test_a_parameter_is_taken_where_no_gradient_is_wanted() -> None:
    fx, fy, w = GOOD
    with torch.no_grad():
        assert torch.equal(lpips_distance(fx, fy, torch.nn.Parameter(w)), lpips_distance(fx, fy, w))


def test_an_unknown_impl_is_refused() -> None:
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        lpips_distance(*GOOD, impl="fast")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="impl is 'fast'.*'auto' or 'ref'"):
        lpips_all_pairs(GOOD[0], GOOD[2], impl="fast")  # type: ignore[arg-type]


def test_the_kernel_itself_refuses_what_it_cannot_read() -> None:
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        OP(GOOD[0], GOOD[1], torch.zeros(2))


@pytest.mark.parametrize("impl", ["auto", "ref"])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", maps.SHAPES, ids=str)
def test_all_pairs_are_the_pairs_one_by_one(
    shape: tuple[int, ...], dtype: torch.dtype, impl: str
) -> None:
    features, _, w, _ = make_inputs(shape, dtype)
    n = shape[0]
    first, second = torch.cartesian_prod(torch.arange(n), torch.arange(n)).unbind(1)
    exact = features.double()
    wanted = lpips_distance_ref(exact[first], exact[second], w.double()).reshape(n, n)
    found = lpips_all_pairs(features, w, impl=impl)
    assert found.dtype == w.dtype
    maps.assert_near([found], [wanted])


def test_all_pairs_of_nearly_equal_images() -> None:
    """Symmetric, never negative, 0 on the diagonal, and off by no more than is promised."""
    features, _, w, _ = make_inputs((20, 64, 6, 6))
    features[10:] = features[:10]
    features[5:10] += 1e-4 * features[10:15]
    found = lpips_all_pairs(features, w)
    assert torch.equal(found, found.T)
    assert (found >= 0).all() and (found.diagonal() == 0).all()
    error = (found - lpips_all_pairs_ref(features.double(), w.double())).abs().max()
    assert error <= 1e-6 * w.max()


def test_all_pairs_stay_in_fp32_under_autocast() -> None:
    features, _, w, _ = make_inputs((4, 8, 3, 3))
    wanted = lpips_all_pairs(features, w)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lpips_all_pairs(features, w), wanted)


def test_all_pairs_have_a_gradient() -> None:
    features, _, w, _ = make_inputs((3, 4, 2, 2), torch.float64)
    assert torch.autograd.gradcheck(lambda f: lpips_all_pairs(f, w), features.requires_grad_())


@pytest.mark.parametrize(
    ("features", "w", "sentence"),
    [
        (torch.zeros(2, 3), GOOD[2], r"features has shape \[2, 3\].*\[N, C, H, W\]"),
        (torch.zeros(2, 3, 2, 0), GOOD[2], "H and W must be at least 1"),
        (GOOD[0], GOOD[2][:2], r"w has shape \[2\]; beside features .*\[3\]"),
        (GOOD[0], -GOOD[2], "none may be negative"),
    ],
)
def test_all_pairs_refuse_bad_arguments(features: Tensor, w: Tensor, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        lpips_all_pairs(features, w)


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", maps.DTYPES, ids=str)
@pytest.mark.parametrize("shape", maps.SHAPES, ids=str)
def test_cuda_matches_float64(
    shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> None:
    inputs = make_inputs(shape, dtype, channels_last=channels_last)
    there = tuple(x.cuda() for x in inputs)
    maps.assert_near([x.cpu() for x in run(lpips_distance, *there)], expected(inputs))
