"""Write the stored values of other libraries that tests compare with where those are not installed.

pip install -e '.[test,parity]' && python -m tests.golden.make_golden
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from tests.golden.peers import PEERS, random_problem

FOLDER = Path(__file__).parent
SIZES = {"batch": 3, "time": 7, "input_size": 4, "hidden_size": 5}
DTYPES = ("float32", "float64")


def flat(params, xs, h0, weight):
    """A problem as flat arrays."""
    arrays = {f"{group}/{gate}": a for group, gates in params.items() for gate, a in gates.items()}
    parts = h0 if isinstance(h0, tuple) else (h0,)
    return {**arrays, "xs": xs, "weight": weight, **dict(zip(("h0", "c0"), parts, strict=False))}


def main() -> None:
    """Compute and write every case."""
    jax.config.update("jax_enable_x64", True)
    for seed, (name, (_, cell, peer)) in enumerate(PEERS.items()):
        stored = {}
        for dtype in DTYPES:
            problem = random_problem(cell, **SIZES, dtype=dtype, seed=seed)
            stored |= {f"{dtype}/in/{k}": v for k, v in flat(*problem).items()}
            stored |= {f"{dtype}/out/{k}": v for k, v in peer(*problem).items()}
        np.savez_compressed(FOLDER / f"{name}.npz", **stored)
        print(FOLDER / f"{name}.npz")


if __name__ == "__main__":
    main()
