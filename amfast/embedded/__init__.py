"""The pair that ships with the package: a small BigGAN and two classifiers.

It is a stand-in for real pretrained weights, honest about it (MODEL_CARD.md), and made by
``python -m amfast.embedded.train`` from pictures that ``render`` draws.
"""

from __future__ import annotations

from pathlib import Path

#: Where the files of the generator and its classifiers are.
EMBEDDED = Path(__file__).parent
