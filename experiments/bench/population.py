"""Members of a population trained side by side, against runs one after the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.bench.measure import AskedProcess, Row, answer_when_asked
from gru_jax.config import Config, load
from gru_jax.tasks.loading import load_splits
from gru_jax.training.population import CompiledPopulation, Population

STEPS = 10  # in one call
RATES, BIASES = (3e-4, 1e-3, 3e-3, 1e-2), ("zeros", "chrono")
CONFIG = '''"""Adding over 200 steps, for the bench."""
def get_config():
    return {"task": {"name": "adding", "length": 200}, "model": {"hidden": (32,)},
            "train": {"batch_size": 32, "steps": %d}}
'''


def member_config(member: int) -> Config:
    """The config of a member: adding over 200 steps, 32 units, batches of 32, 500 training steps."""
    return load({
        "seed": member, "task": {"name": "adding", "length": 200},
        "model": {"hidden": (32,), "init": {"gate_bias": BIASES[member % 2]}},
        "optimizer": {"lr": RATES[member // 2 % 4]}, "train": {"batch_size": 32, "steps": 500, "call_steps": STEPS},
    })  # fmt: skip


def measure_population(members: Sequence[int], repeats: int, runs: int) -> Iterator[Row]:
    """Measure populations of these sizes, and an ablation with as many members as the largest of them.

    Args:
        members: sizes of populations.
        repeats: how many times each population, and a run alone, is timed.
        runs: how many members of the ablation are run separately; 0 for no ablation.
    """
    yield from measure_throughput(members, repeats)
    if runs:
        yield measure_ablation(max(members), runs)


def measure_throughput(sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    """Measure a member's training step inside populations of these sizes and alone: medians of turns in one run."""
    module = "experiments.bench.population"
    with contextlib.closing(AskedProcess(module, "0")) as alone:  # on JAX's default of one CPU device
        for size in sizes:
            with contextlib.closing(AskedProcess(module, str(size))) as together:
                turns = [(alone.seconds(), together.seconds()) for _ in range(repeats)]
            solo, member = (float(np.median(times)) for times in zip(*turns, strict=True))
            yield {"members": size, "solo_ms": 1e3 * solo, "member_ms": 1e3 * member, "ratio": solo / member}


def measure_ablation(members: int, runs: int, steps: int = 500) -> Row:
    """Measure one ablation of so many members, and some of its members as separate runs, scaled to all."""
    seeds = members // (len(RATES) * len(BIASES))
    members = seeds * len(RATES) * len(BIASES)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.py"
        base.write_text(CONFIG % steps)
        together = _command_seconds(
            "ablate", f"--config={base}", f"--workdir={Path(folder) / 'study'}",
            f"--axis.optimizer.lr={','.join(map(str, RATES))}", f"--axis.model.init.gate_bias={','.join(BIASES)}",
            f"--axis.seed=0..{seeds - 1}",
        )  # fmt: skip
        seconds = [
            _command_seconds(
                "train", f"--config={base}", f"--workdir={Path(folder) / str(i)}",
                f"--config.optimizer.lr={RATES[i // 2 % 4]}", f"--config.model.init.gate_bias={BIASES[i % 2]}",
                f"--config.seed={i // 8}",
            )
            for i in range(runs)
        ]  # fmt: skip
    separate = sum(seconds) * members / runs
    return {"members": members, "ablate_seconds": together, "runs": runs, "run_seconds": float(np.median(seconds)),
            "separate_seconds": separate, "ratio": separate / together}  # fmt: skip


def describe_population(row: Row) -> str:
    """A population's size and what it brings, or the same of an ablation, in a line."""
    if "member_ms" in row:
        return (
            f"R={row['members']}: a member's step {row['member_ms']:.2f} ms, alone {row['solo_ms']:.2f} ms: "
            f"{row['ratio']:.2f}x"
        )
    return (
        f"{row['members']} members: {row['ablate_seconds']:.0f} s as an ablation; as separate runs "
        f"{row['separate_seconds']:.0f} s ({row['runs']} of them measured): {row['ratio']:.1f}x"
    )


def _command_seconds(command: str, *arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"experiments.{command}", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _train_when_asked(members: int) -> None:
    """Train whenever asked, a population of so many members or a run by itself; see `AskedProcess`."""
    if members:
        jax.config.update("jax_num_cpu_devices", os.cpu_count())
    configs = [member_config(member) for member in range(members or 1)]
    splits = load_splits(configs[0].task, configs[0].resident_mb)
    compiled = CompiledPopulation(configs[0], splits, jax.devices(), single=not members)
    answer_when_asked(training_calls(Population(compiled, configs), STEPS), STEPS * max(members, 1))


def training_calls(population: Population, steps: int) -> Callable[[], None]:
    """A function that takes the next so many steps of a population, in one call of its compiled program."""
    feed, state, first = population.feed(), population.initial(), 0

    def call() -> None:
        nonlocal state, first
        data, indices = feed.next(first, steps)
        state = population.train(state, data, indices, np.full(population.count, steps)).state
        first += steps

    return call


if __name__ == "__main__":
    _train_when_asked(int(sys.argv[1]))
