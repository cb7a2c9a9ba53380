"""The frozen network is the trained one, rewritten: equal in float64, forward and gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from amfast.embedded.shapenet import FrozenHalvingConv, ShapeNet


def trained_like() -> ShapeNet:
    """A network whose batch norms are far from their neutral values."""
    torch.manual_seed(0)
    model = ShapeNet(5).double().eval().requires_grad_(False)
    for norm in model.norms:
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_(0, 0.3)
    return model


@pytest.mark.parametrize("subpixel_gradients", [False, True])
def test_freezing_changes_no_number(subpixel_gradients: bool) -> None:
    plain = trained_like()
    frozen = copy.deepcopy(plain)
    frozen.freeze(subpixel_gradients=subpixel_gradients)
    kinds = [isinstance(conv, FrozenHalvingConv) for conv in frozen.convs]
    assert kinds == [subpixel_gradients, subpixel_gradients, False, False, False, False]

    inputs = torch.randn(3, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    wanted, found = plain(inputs), frozen(inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(wanted)
    (d_wanted,) = torch.autograd.grad((wanted * weight).sum(), inputs)
    (d_found,) = torch.autograd.grad((found * weight).sum(), inputs)
    assert (d_found - d_wanted).abs().max() < 1e-12 * d_wanted.abs().max()


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 2, 2), (3, 6, 10), (5, 8, 4)])
def test_the_gradient_of_a_halving_convolution(channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 7, 3, stride=2, padding=1).double()
    frozen = FrozenHalvingConv(conv)
    x = torch.randn(2, channels, height, width, dtype=torch.float64, requires_grad=True)
    assert torch.equal(frozen(x), conv(x))
    assert torch.autograd.gradcheck(frozen, x)


def test_a_second_derivative_is_refused() -> None:
    frozen = FrozenHalvingConv(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(frozen(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()
