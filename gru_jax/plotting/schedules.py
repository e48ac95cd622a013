"""How the learning rate goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gru_jax.plotting.style import cycle, figure, house_style


def plot_learning_rates(rates: Mapping[str, np.ndarray], *, logarithmic: bool = False) -> Figure:
    """Learning rates against the number of the update, a line for each label.

    Args:
        rates: by label those of all updates, see `gru_jax.training.schedules.learning_rates`.
        logarithmic: whether the axis of rates is.
    """
    with house_style():
        picture, (ax,) = figure(1, width=6.6)
        for (label, values), colour in zip(rates.items(), cycle(len(rates)), strict=True):
            ax.plot(np.arange(1, len(values) + 1), values, color=colour, lw=1.5, label=label)
        ax.set(xlabel="update", ylabel="learning rate", yscale="log" if logarithmic else "linear")
        picture.legend(frameon=False, loc="outside right upper")
    return picture
