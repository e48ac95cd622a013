"""What a picture must be: not blank."""

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
