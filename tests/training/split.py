"""Steps of small runs on one device and on eight, in a process that has so many; what they gave goes out as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys

import jax
import numpy as np

from gru_jax.tasks.loading import load_splits
from gru_jax.training.population import CompiledPopulation, Population
from tests.programs import collectives
from tests.training.small import Faulty, small

CASES = {
    "plain": {},
    "stack": {"model": {"hidden": (4, 3), "dropout": 0.5, "bidirectional": True}, "flow": {"live": 1}},
    "reference": {"gradient": {"detach": 0.3, "adjoint_clip": 0.5, "truncate": 3}},
    "penalties": {
        "gradient": {"omega": 0.5, "floss": 2, "floss_every": 1, "floss_time": 5, "floss_sequences": 3},
    },
    "text": {
        "task": {
            "name": "text",
            "data_dir": ".",
            "train": "README.md",
            "valid_fraction": 0.1,
            "test_fraction": 0.1,
            "length": 7,
            "eval_streams": 3,
        },
        "model": {"hidden": (4, 3), "dropout": 0.5, "input_dropout": 0.2, "output_dropout": 0.2},
        "regularization": {
            "label_smoothing": 0.1,
            "activation": 0.5,
            "temporal_activation": 0.5,
            "weight_noise": 0.1,
            "dropconnect": 0.3,
            "recurrent_dropout": 0.3,
            "recurrent_dropout_per": "step",
            "orthogonality": 0.01,
            "max_norm": 1.0,
            "ema": 0.9,
        },
        "flow": {"live": 1},
    },
    "decoder": {
        "task": {"name": "reverse", "length": 5, "symbols": 4, "valid_size": 20, "test_size": 30},
        "model": {"hidden": (4, 3), "dropout": 0.5, "input_dropout": 0.2, "output_dropout": 0.2, "bidirectional": True},
        "gradient": {"omega": 0.5},
        "flow": {"live": 1},
    },
    "every step": {"model": {"cell": {"name": "lstm"}}, "task": {"name": "copy_memory", "length": 5}},
    "in parts": {"train": {"batch_size": 16, "accumulate": 2}, "model": {"hidden": (4, 3), "dropout": 0.5}},
    "parts": {
        "model": {"hidden": (4, 3)},
        "flow": {"live": 1},
        "gradient": {"omega": 0.5},
        "transfer": {"frozen": ("layer_0",), "thaw_steps": (2,), "rates": {"head": 0.5}},
    },
    "skipping": {"train": {"skip_nonfinite": 1}, "flow": {"live": 1}},
}


def outcome(config, devices):
    """Four steps, twice; the validation, what the instruments read, and where the compiled programs' devices meet."""
    compiled = CompiledPopulation(config, load_splits(config.task, 100), devices, single=True)
    run = Population(compiled, [config])
    indices = config.task.train_indices(config.train.batch_size, 0)(0, 4)[None]
    first, second = (run.train(run.initial(), compiled.data["train"], indices, np.array([4])) for _ in range(2))
    (valid,) = run.evaluate(first.state.params, "valid", np.array([True]))
    readings = {f"measured {k}": v for k, v in run.measure(first.state.params).items()}
    numbers = {**first.metrics, **first.live, **readings}
    pairs = list(zip(*map(jax.tree.leaves, (first, second)), strict=True))
    return {
        "numbers": {**{name: value[0].tolist() for name, value in numbers.items()}, **valid},
        "repeats": all(np.array_equal(*pair, equal_nan=True) for pair in pairs),  # NaN at lags that none reaches
        "collectives": {name: collectives(compiled.compile(name, 1)) for name in ("train", "valid", "measure")},
    }


if __name__ == "__main__":
    outcomes = {}
    for name in sys.argv[1:]:
        changes = {"flow": {}, **CASES[name]}
        changes["flow"] = {"instruments": ("adjoint", "lyapunov", "parameters"), "batch_size": 8, **changes["flow"]}
        config = small(**changes)
        if config.train.skip_nonfinite:
            config = dataclasses.replace(config, task=Faulty(8, bad=(13,), valid_size=20, test_size=30))
        outcomes[name] = [outcome(config, jax.devices()[:count]) for count in (1, 8)]
    print(json.dumps(outcomes))
