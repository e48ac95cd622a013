"""Pictures of attention: what stands where."""

from __future__ import annotations

import numpy as np
import pytest

from gru_jax.plotting.attention import HIDDEN, Alignment, plot_attention
from gru_jax.plotting.style import save_figures


@pytest.mark.parametrize("count", [1, 3])
def test_tokens_stand_beside_their_weights(count, tmp_path):
    weights = np.array([[0.1, 0.9, 0.0], [0.7, 0.1, 0.2]])
    picture = plot_attention([Alignment(weights, ["a", "猫", "$x_1$"], ["ein", "⏎"])] * count)
    panels = picture.axes[:count]
    assert len(picture.axes) == count + 1  # and the bar of colours
    for ax in panels:
        np.testing.assert_array_equal(ax.images[0].get_array(), weights)
        assert [label.get_text() for label in ax.get_xticklabels()] == ["a", HIDDEN, "$x_1$"]
        assert not ax.get_xticklabels()[2].get_parse_math()
        assert [label.get_text() for label in ax.get_yticklabels()] == ["ein", "⏎"]
    (path,) = save_figures({"attention": picture}, tmp_path)  # which a sign that the font lacks would warn of
    assert path.stat().st_size > 1000


def test_of_many_tokens_some_are_named():
    picture = plot_attention([Alignment(np.full((2, 100), 0.01), [*map(str, range(100))], ["a", "b"])])
    ax = picture.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == [*map(str, range(0, 100, 3))]
    assert ax.get_xticks().tolist() == [*range(0, 100, 3)]
    assert ax.images[0].get_clim() == (0, 0.01)
