"""Pictures of music."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure

from gru_jax.plotting.style import GREY, ORANGE, figure, house_style

OCTAVE = 12


def plot_piano_roll(roll: Shaped[np.ndarray, "T 88"], lowest: int, primed: int = 0) -> Figure:
    """Which notes sound in which frame.

    Args:
        roll: whether each key is down in each frame.
        lowest: MIDI number of the first key.
        primed: how many frames at the beginning were not made by the network; a line stands behind them.
    """
    sounding = np.flatnonzero(np.asarray(roll).any(axis=0))
    low, high = (int(sounding.min()), int(sounding.max())) if sounding.size else (0, roll.shape[1] - 1)
    with house_style():
        picture, (ax,) = figure(1, width=11.0)
        ax.imshow(np.asarray(roll, float).T, origin="lower", aspect="auto", cmap="Greys", interpolation="nearest")
        if primed:
            ax.axvline(primed - 0.5, color=ORANGE, lw=1.2, label="from here on drawn by the network")
            ax.legend(frameon=False, fontsize=8, loc="upper right")
        tonics = [key for key in range(roll.shape[1]) if (key + lowest) % OCTAVE == 0]
        ax.set_yticks(tonics, [f"C{(key + lowest) // OCTAVE - 1}" for key in tonics])
        for key in tonics:
            ax.axhline(key - 0.5, color=GREY, lw=0.4)
        ax.set(xlabel="frame", ylabel="note", ylim=(low - 2.5, high + 5.5))
    return picture
