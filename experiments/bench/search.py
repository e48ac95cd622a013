"""Searches that learn from scores against random samples, on equal budgets."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.bench.measure import Row
from gru_jax.studies.report.paired import pair_up
from gru_jax.studies.result import StudyResult
from gru_jax.studies.runner import RunnerOptions
from gru_jax.studies.search import runner_of
from gru_jax.studies.study import load_study

TASKS: Mapping[str, dict[str, Any]] = {
    "adding": {"name": "adding", "length": 20},
    "delayed_xor": {"name": "delayed_xor", "length": 20, "shortest": 20, "delay": 3},
    "flip_flop": {"name": "flip_flop", "length": 25, "bits": 2},
}
AXES = {"optimizer.lr": "log(1e-4,1)", "model.init.recurrent_scale": "log(0.1,4)", "optimizer.b1": "lin(0,0.99)"}
BATCH = 8
METHODS = ("random", "tpe", "cmaes")


def compare_searches(trials: int, repeats: int) -> Iterator[Row]:
    """Of each task and method the best validation loss that so many trainings find; then each method against random
    samples, by paired differences of the log10 of that, over repeats.

    Args:
        trials: of each search.
        repeats: searches of each kind, with seeds of their own.
    """
    jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="bench_search_"))  # one program a task
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    for name, task in TASKS.items():
        bests: dict[str, list[float]] = {method: [] for method in METHODS}
        for seed in range(repeats):
            for method in METHODS:
                start = time.perf_counter()
                bests[method].append(best_loss(task, method, trials, seed))
                yield {"task": name, "method": method, "seed": seed, "best_loss": bests[method][-1],
                       "seconds": time.perf_counter() - start}  # fmt: skip
        at_random = np.log10(bests["random"])
        for method in METHODS[1:]:
            pairs = pair_up(at_random, np.log10(bests[method]))
            yield {"task": name, "method": method, "against": "random", **pairs._asdict()}


def best_loss(task: Mapping[str, object], method: str, trials: int, seed: int) -> float:
    """The best validation loss of a search: trainings of 150 steps, 16 units."""
    base = {
        "task": {**task, "valid_size": 256, "test_size": 64},
        "model": {"hidden": (16,)},
        "train": {"batch_size": 16, "steps": 150, "eval_steps": 50, "monitor": "loss"},
    }
    sampling = {"method": method, "count": trials, "batch": BATCH, "seed": seed}
    study = load_study({"base": base, "axes": AXES, "sampling": sampling, "networks": False})
    with tempfile.TemporaryDirectory() as folder:
        runner_of(study, Path(folder) / "study", RunnerOptions()).run()
        table = StudyResult(Path(folder) / "study").table
    alive = table.filter(table["status"] == "done")["best_valid_loss"].drop_nulls()
    return float(np.min(alive.to_numpy())) if len(alive) else float("inf")


def describe_search(row: Row) -> str:
    """A row as text."""
    if "against" not in row:
        return f"{row['task']}, {row['method']}, seed {row['seed']}: {row['best_loss']:.4g} in {row['seconds']:.0f} s"
    return (
        f"{row['task']}, {row['method']} against random: log10 of the best loss {row['mean']:+.3f} "
        f"({row['low']:+.3f} to {row['high']:+.3f}, paired t over {row['pairs']}), p = {row['p']:.2g}"
    )


def best_by_method(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """By task and method, the best losses of the searches."""
    bests: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if "best_loss" in row:
            bests.setdefault(row["task"], {}).setdefault(row["method"], []).append(row["best_loss"])
    return bests
