"""The multiplications of a pass, layer by layer, from the architectures alone.

Nothing is run here: ``bench.flops`` holds these figures against torch's counter. Pointwise work,
pooling and resizing are left out, as the counter leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from amfast.embedded.shapenet import STRIDES, WIDTHS
from amfast.generators.reference import BigGANConfig
from amfast.generators.reference_deep import BigGANDeepConfig

#: Latents of a trial, which share one embedding (paper, section 2).
LATENTS = 20


@dataclass(frozen=True)
class Product:
    """One convolution, linear layer or product of two activations, per image.

    ``macs`` are its multiply-accumulates. Its backward takes as many again for each of its
    ``gradients`` towards the embedding: one through a layer, two where both factors depend on the
    embedding, none where its input does not. ``weights`` says that there are weights in it, which a
    loop that did not freeze them would work out a gradient of, and ``is_map`` that it makes the
    attention map, which most implementations work out again in the backward.
    """

    macs: float
    gradients: int = 1
    weights: bool = True
    is_map: bool = False


@dataclass(frozen=True)
class Gflop:
    """GFLOP per image, a multiply-accumulate being two."""

    forward: float
    input_gradient: float
    weight_gradient: float
    map_again: float

    @property
    def needed(self) -> float:
        """Forward and input gradient with the attention map kept: what has to be done."""
        return self.forward + self.input_gradient

    @property
    def run(self) -> float:
        """The same with the attention map worked out twice, as fused attention does."""
        return self.needed + self.map_again

    @property
    def unfrozen(self) -> float:
        """Forward and backward of a loop that works out the gradient of every weight as well.

        But for half a per cent at most: spectral norms, and the first skip's input gradient.
        """
        return self.needed + self.weight_gradient


def total(products: Iterable[Product]) -> Gflop:
    of = list(products)
    return Gflop(
        forward=2e-9 * sum(p.macs for p in of),
        input_gradient=2e-9 * sum(p.gradients * p.macs for p in of),
        weight_gradient=2e-9 * sum(p.macs for p in of if p.weights),
        map_again=2e-9 * sum(p.macs for p in of if p.is_map),
    )


def biggan_as_written(config: BigGANConfig) -> list[Product]:
    """Every layer as published, spectral norms folded; each image has its own cond vector."""
    cond_dim = config.embedding_dim + config.chunk_dim
    products = [Product(config.chunk_dim * config.widths[0] * 16, gradients=0)]  # from z alone
    for i, (fan_in, fan_out, size) in enumerate(_blocks(config)):
        area = size**2
        products += [Product(cond_dim * width) for width in 2 * (fan_in, fan_out)]  # gains, biases
        products += [
            Product(9 * fan_in * fan_out * area),  # conv1, behind the upsampling
            Product(9 * fan_out**2 * area),  # conv2
            Product(fan_in * fan_out * area, gradients=_first_has_none(i)),  # conv_sc, likewise
        ]
        if i == config.attention_block:
            products += _attention(fan_out, area)
    return [*products, Product(9 * config.widths[-1] * 3 * config.resolution**2)]


def biggan_reduced(config: BigGANConfig) -> list[Product]:
    """The same images from fewer products: what ``FrozenBigGAN`` runs in a step.

    Four taps per pixel where upsampling meets a 3x3 convolution, the skip before its upsampling,
    one product per trial for every gain and bias, nothing for what depends on latents alone.
    """
    # A scale and a shift per channel of both norms of every block.
    affine = sum(2 * (fan_in + fan_out) for fan_in, fan_out, _ in _blocks(config))
    products = [Product(config.embedding_dim * affine / LATENTS)]
    for i, (fan_in, fan_out, size) in enumerate(_blocks(config)):
        area = size**2
        products += [
            Product(4 * fan_in * fan_out * area),
            Product(9 * fan_out**2 * area),
            Product(fan_in * fan_out * area / 4, gradients=_first_has_none(i)),
        ]
        if i == config.attention_block:
            products += _attention(fan_out, area)
    return [*products, Product(9 * config.widths[-1] * 3 * config.resolution**2)]


def _first_has_none(block: int) -> int:
    """Gradients of a block's skip: the first block's input depends on the latents alone."""
    return 0 if block == 0 else 1


def _blocks(config: BigGANConfig) -> list[tuple[int, int, int]]:
    """Fan in, fan out and output side of every block."""
    pairs = zip(config.widths, config.widths[1:], strict=False)
    return [(fan_in, fan_out, 8 << i) for i, (fan_in, fan_out) in enumerate(pairs)]


def biggan_deep_as_written(config: BigGANDeepConfig) -> list[Product]:
    """Every layer as published, spectral norms folded; each image has its own cond vector."""
    affine = _deep_affine(config)
    statistics = affine + 2 * config.widths[-1]  # as many, and the output norm's
    return [
        Product(config.cond_dim * (affine + 16 * config.widths[0])),
        # Their rows' weighted sum, once per pass.
        Product(config.statistics * statistics / LATENTS, gradients=0, weights=False),
        *_deep_convolutions(config, taps=9, colours=config.widths[-1]),
    ]


def biggan_deep_reduced(config: BigGANDeepConfig) -> list[Product]:
    """The same images from fewer products: what ``FrozenBigGANDeep`` runs in a step.

    As ``biggan_reduced``; the embedding has a part in the first map too, once per trial, and of the
    last convolution three channels are worked out.
    """
    of_embedding = _deep_affine(config) + 16 * config.widths[0]
    return [
        Product(config.embedding_dim * of_embedding / LATENTS),
        *_deep_convolutions(config, taps=4, colours=3),
    ]


def _deep_affine(config: BigGANDeepConfig) -> int:
    """Gains and biases of the four norms of every block, of which two make a stage."""
    return sum(4 * (fan_in + 3 * (fan_in // 4)) for fan_in in config.widths[:-1])


def _deep_convolutions(config: BigGANDeepConfig, taps: int, colours: int) -> list[Product]:
    """The maps' way; ``taps`` per pixel where upsampling meets a 3x3 convolution."""
    products = []
    for stage, (fan_in, fan_out) in enumerate(pairwise(config.widths)):
        small, large, middle = (4 << stage) ** 2, (8 << stage) ** 2, fan_in // 4
        products += [
            Product(fan_in * middle * small),  # the block that keeps the side
            Product(9 * middle**2 * small),
            Product(9 * middle**2 * small),
            Product(middle * fan_in * small),
            Product(fan_in * middle * small),  # the block that doubles it, from conv_1 on
            Product(taps * middle**2 * large),
            Product(9 * middle**2 * large),
            Product(middle * fan_out * large),
        ]
        if stage == config.attention_stage:
            products += _attention(fan_out, large)
    return [*products, Product(9 * config.widths[-1] * colours * config.resolution**2)]


def _attention(width: int, area: int) -> list[Product]:
    """Queries at every pixel, keys and values at a quarter of them."""
    layers = [Product(width * fan_out * area) for fan_out in (width // 8, width // 8, width // 2)]
    return [
        *layers,
        Product(area * area // 4 * (width // 8), gradients=2, weights=False, is_map=True),
        Product(area * area // 4 * (width // 2), gradients=2, weights=False),
        Product(width // 2 * width * area),
    ]


def _convolutions(layers: Sequence[tuple[int, int, int, int]]) -> list[Product]:
    """Of fan in, fan out, kernel side and output side each."""
    return [Product(i * o * kernel**2 * side**2) for i, o, kernel, side in layers]


def alexnet() -> list[Product]:
    """torchvision's AlexNet (Krizhevsky, "One weird trick", 2014) at 224 pixels."""
    convolutions = [
        (3, 64, 11, 55),
        (64, 192, 5, 27),
        (192, 384, 3, 13),
        (384, 256, 3, 13),
        (256, 256, 3, 13),
    ]
    linear = [9216 * 4096, 4096 * 4096, 4096 * 1000]
    return [*_convolutions(convolutions), *map(Product, linear)]


def shapenet(classes: int) -> list[Product]:
    """The embedded classifier at 64 pixels."""
    layers, fan_in, side = [], 3, 64
    for width, stride in zip(WIDTHS, STRIDES, strict=True):
        side //= stride
        layers.append((fan_in, width, 3, side))
        fan_in = width
    return [*_convolutions(layers), Product(fan_in * classes)]
