"""The counter of dispatched operators, and the plain step that the engine's is held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torchvision.models import alexnet

from amfast.classifiers import ClassifierSpec
from amfast.ops import cond_norm_relu
from bench.baseline import classifier_input
from bench.flops import rows
from bench.models import fold_spectral_norms
from tests.operators import count_dispatched


def test_forward_and_backward_are_counted_and_views_are_not() -> None:
    x = torch.ones(2, 3, requires_grad=True)

    def step() -> None:
        x.view(3, 2).t().tanh().sum().backward()

    count = count_dispatched(step)
    assert count["aten::tanh"] == count["aten::tanh_backward"] == count["aten::sum"] == 1
    assert not {"aten::view", "aten::t", "aten::detach", "aten::expand"} & set(count)


def test_an_op_of_ours_is_one_operator() -> None:
    x = torch.ones(1, 3, 2, 2, requires_grad=True)
    factor = torch.ones(1, 3)
    count = count_dispatched(lambda: cond_norm_relu(x, factor, factor).sum().backward())
    assert count["amfast::cond_norm_relu"] == count["amfast::cond_norm_relu_backward"] == 1
    assert not {"aten::mul", "aten::add", "aten::addcmul", "aten::relu"} & set(count)


def test_the_plain_step_of_biggan_256_with_alexnet() -> None:
    """Frozen, spectral norms folded, forward and backward: some 380, of which the engine may
    dispatch half at most.
    """
    row = next(row for row in rows() if row.name == "BigGAN-256")
    spec = ClassifierSpec("alexnet", 224, (0.5,) * 3, (0.5,) * 3, (), "")
    with torch.device("meta"):
        generator = row.reference(row.config).eval().requires_grad_(False)
        fold_spectral_norms(generator)
        classifier = alexnet(weights=None).eval().requires_grad_(False)
        embedding = torch.zeros(1, row.config.embedding_dim, requires_grad=True)
        latents = torch.zeros(20, row.config.latent_dim)

    def step() -> None:
        images = generator(embedding.expand(20, -1), latents)
        logits = classifier(classifier_input(images, spec))
        (-F.log_softmax(logits, dim=1)[:, 0].mean()).backward()

    count = count_dispatched(step)
    assert 360 <= count.total() <= 400
    assert count["aten::convolution"] == 28
