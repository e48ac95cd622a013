"""What a picture must be: not blank, and all of its legends in it."""

from __future__ import annotations

import matplotlib.image
import numpy as np

DPI = 150


def assert_shows_something(path, width=None, height=None):
    """The file is a picture on white with more than one colour, of this size in inches if one is given."""
    pixels = matplotlib.image.imread(path)
    if width is not None:
        assert pixels.shape[:2] == (round(DPI * height), round(DPI * width))
    assert len(np.unique(pixels[..., :3].reshape(-1, 3), axis=0)) > 1
    assert pixels[0, 0, :3].tolist() == [1, 1, 1], "drawn on white"


def assert_legends_fit(picture):
    """The legends of a figure's panels are within it."""
    picture.draw_without_rendering()
    legends = [ax.get_legend() for ax in picture.axes if ax.get_legend() is not None]
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        assert picture.bbox.x0 <= box.x0 < box.x1 <= picture.bbox.x1
        assert picture.bbox.y0 <= box.y0 < box.y1 <= picture.bbox.y1
