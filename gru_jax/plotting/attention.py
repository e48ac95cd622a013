"""Where a decoder looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib import font_manager
from matplotlib.figure import Figure

from gru_jax.plotting.style import figure, house_style

HIDDEN = "\N{WHITE SQUARE}"
"""For signs that the font does not have."""
MOST_UPRIGHT = 3
"""Signs of the longest label up to which those along an axis stand upright."""

MOST_NAMED = 40
"""Tokens along an axis up to which each is named; of more of them every second, third, … one."""


class Alignment(NamedTuple):
    """Where a decoder looked for each token that it wrote.

    Attributes:
        weights: of each token of the target (rows), how much each of the source's had (columns).
        source: its tokens.
        target: the tokens that were written.
    """

    weights: Float[np.ndarray, "N T"]
    source: Sequence[str]
    target: Sequence[str]


def plot_attention(alignments: Sequence[Alignment]) -> Figure:
    """Source against target of some examples, a row for each token that was written.

    Args:
        alignments: of the examples.
    """
    with house_style():
        picture, axes = figure(len(alignments), columns=2)
        picture.set_figheight(5.2 * -(-len(alignments) // 2))
        image, greatest = None, max((float(weights.max()) for weights, _, _ in alignments), default=1.0)
        for ax, (weights, source, target) in zip(axes, alignments, strict=True):
            image = ax.imshow(weights, cmap="Blues", vmin=0.0, vmax=greatest, aspect="auto", interpolation="nearest")
            shown = [_drawable(label) for label in source]
            rotation = 0 if max(map(len, shown)) <= MOST_UPRIGHT else 90
            size = 8 if max(len(source), len(target)) <= 25 else 6
            of_source, of_target = (range(0, len(tokens), -(-len(tokens) // MOST_NAMED)) for tokens in (source, target))
            labels = [_drawable(target[i]) for i in of_target]
            ax.set_xticks(of_source, [shown[i] for i in of_source], rotation=rotation, fontsize=size, parse_math=False)
            ax.set_yticks(of_target, labels, fontsize=size, parse_math=False)
            ax.set(xlabel="source", ylabel="written")
        if image is not None:
            picture.colorbar(image, ax=axes, label="attention, each row adds up to 1", shrink=0.6)
        picture.suptitle("A row is a token that was written: dark where the decoder looked for it.", fontsize=8)
    return picture


def _drawable(label: str) -> str:
    """A label of signs that the font has."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=mpl.rcParams["font.family"])))
    known = font.get_charmap()
    return "".join(sign if ord(sign) in known else HIDDEN for sign in label)
