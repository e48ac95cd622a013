"""The class of the training sequence that is nearest: what archives of sequences are compared with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from gru_jax.data.checks import usable_deviation

MOST_PRODUCTS = 4 * 10**9
"""Of the numbers of training and test sequences, beyond which nobody waits for an answer without a network."""


def nearest_classes(
    train: Float[np.ndarray, "N T D"], classes: Shaped[np.ndarray, " N"], test: Float[np.ndarray, "M T D"]
) -> Shaped[np.ndarray, " M"]:
    """The class of the training sequence at the least Euclidean distance, of equal ones that of the first.

    Args:
        train: training sequences.
        classes: of each of them.
        test: sequences.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.nearest_neighbour import nearest_classes
        >>> train, test = (np.array(numbers)[:, None, None] for numbers in ([0.0, 5.0], [1.0, 4.0, 9.0]))
        >>> nearest_classes(train, np.array([7, 8]), test).tolist()
        [7, 8, 8]
    """
    mean = train.reshape(len(train), -1).mean(axis=0)  # without it, the squares below may be large beside distances
    a, b = (np.reshape(xs, (len(xs), -1)).astype(np.float64) - mean for xs in (train, test))
    distances = np.square(a).sum(axis=1)[None] - 2 * b @ a.T  # squared, but for what a test sequence adds to all
    return classes[distances.argmin(axis=1)]


def standardised_each(xs: Float[np.ndarray, "N T D"]) -> Float[np.ndarray, "N T D"]:
    """Sequences whose every feature has mean 0 and standard deviation 1 over the steps; 0 where it does not change.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.nearest_neighbour import standardised_each
        >>> standardised_each(np.array([[[1.0, 4.0], [3.0, 4.0]]])).tolist()
        [[[-1.0, 0.0], [1.0, 0.0]]]
    """
    xs = xs.astype(np.float64)
    mean, deviation = (measure(axis=1, keepdims=True) for measure in (xs.mean, xs.std))
    return (xs - mean) / usable_deviation(deviation, mean)
