"""What all pictures share: they are as tall as their legends."""

from __future__ import annotations

import pytest

from gru_jax.plotting.style import OUTSIDE, figure, save_figures
from tests.pictures import assert_legends_fit


@pytest.mark.parametrize(("panels", "lines"), [(1, 3), (1, 40), (4, 30), (7, 20)])
def test_a_picture_is_as_tall_as_its_legends(panels, lines, tmp_path):
    picture, axes = figure(panels)
    height = picture.get_figheight()
    for ax in axes:
        for i in range(lines):
            ax.plot([0, 1], [i, i], label=f"run {i}")
        ax.set(title="a title", xlabel="training step")
    axes[-1].legend(**OUTSIDE)
    save_figures({"runs": picture}, tmp_path)
    assert_legends_fit(picture)
    assert (picture.get_figheight() > height) == (lines > 3)
