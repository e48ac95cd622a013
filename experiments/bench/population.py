"""Members trained side by side against runs one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gru_jax.config import Config, load
from gru_jax.config.hyperparameters import numbers_of
from gru_jax.data.feed import batch_indices, load_splits
from gru_jax.training.population import Population, Programs
from gru_jax.training.step import Trainer

SOLO, STEPS = "solo", 10
RATES, BIASES = (3e-4, 1e-3, 3e-3, 1e-2), ("zeros", "chrono")
CONFIG = '''"""Adding over 200 steps, for the bench."""
def get_config():
    return {"task": {"name": "adding", "length": 200}, "model": {"hidden": (32,)},
            "train": {"batch_size": 32, "steps": %d}}
'''


def config_of(member: int) -> Config:
    """A member: adding T=200, 32 units, batches of 32, 500 steps."""
    return load({
        "seed": member, "task": {"name": "adding", "length": 200},
        "model": {"hidden": (32,), "init": {"gate_bias": BIASES[member % 2]}},
        "optimizer": {"lr": RATES[member // 2 % 4]}, "train": {"batch_size": 32, "steps": 500, "call_steps": STEPS},
    })  # fmt: skip


class Worker:
    """A process of its own that trains for a while whenever it is asked, and says how long a step took once it was
    warm: whoever else worked before has had the caches.

    Args:
        members: of the population; 0 for a run by itself, with JAX's default of one CPU device.
    """

    def __init__(self, members: int) -> None:
        command = [sys.executable, "-m", "experiments.bench.population", str(members)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds()  # compiles

    def seconds(self) -> float:
        """Seconds of one step of one member."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate(timeout=60)


def throughput(sizes: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """A member's training step inside populations of these sizes and alone: medians of turns in one run."""
    rows = []
    alone = Worker(0)
    for size in sizes:
        together = Worker(size)
        turns = [(alone.seconds(), together.seconds()) for _ in range(repeats)]
        together.close()
        one, many = (float(np.median(of)) for of in zip(*turns, strict=True))
        rows.append({"members": size, "solo_ms": 1e3 * one, "member_ms": 1e3 * many, "ratio": one / many})
        print(f"R={size}: a member's step {1e3 * many:.2f} ms, alone {1e3 * one:.2f} ms: {one / many:.2f}x", flush=True)
    alone.close()
    return rows


def ablation(members: int, runs: int, steps: int = 500) -> dict[str, Any]:
    """Wall time of one ablation of so many members, and of some of its members as separate runs, scaled to all."""
    seeds = members // (len(RATES) * len(BIASES))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.py"
        base.write_text(CONFIG % steps)
        study = Path(folder) / "study"
        began = time.perf_counter()
        axes = [f"--axis.optimizer.lr={','.join(map(str, RATES))}", f"--axis.model.init.gate_bias={','.join(BIASES)}",
                f"--axis.seed=0..{seeds - 1}"]  # fmt: skip
        _run("ablate", f"--config={base}", f"--workdir={study}", *axes)
        together = time.perf_counter() - began
        seconds = []
        for i in range(runs):
            settings = [f"--config.optimizer.lr={RATES[i // 2 % 4]}", f"--config.model.init.gate_bias={BIASES[i % 2]}",
                        f"--config.seed={i // 8}"]  # fmt: skip
            began = time.perf_counter()
            _run("train", f"--config={base}", f"--workdir={Path(folder) / str(i)}", *settings)
            seconds.append(time.perf_counter() - began)
    apart = sum(seconds) * seeds * len(RATES) * len(BIASES) / runs
    row = {"members": seeds * len(RATES) * len(BIASES), "ablate_seconds": together, "runs": runs,
           "run_seconds": float(np.median(seconds)), "separate_seconds": apart, "ratio": apart / together}  # fmt: skip
    print(f"{row['members']} members: {together:.0f} s as an ablation; as separate runs {apart:.0f} s "
          f"({runs} of them measured): {row['ratio']:.1f}x", flush=True)  # fmt: skip
    return row


def measure(sizes: Sequence[int], repeats: int, runs: int) -> list[dict[str, Any]]:
    """Both, the ablation with as many members as the largest population."""
    rows = throughput(sizes, repeats)
    return [*rows, ablation(max(sizes), runs)] if runs else rows


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A member's throughput over that of a run alone, against the number of members."""
    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    steps = [row for row in rows if "member_ms" in row]
    ax.plot([row["members"] for row in steps], [row["ratio"] for row in steps], marker="o")
    ax.axhline(1.0, color="black", lw=1, ls="--", label="a run alone")
    ax.set(xlabel="members", ylabel="throughput of a member", xscale="log", ylim=(0, None))
    ax.set_xticks([row["members"] for row in steps], [str(row["members"]) for row in steps])
    ax.legend(frameon=False)
    figure.savefig(path, facecolor="white", dpi=150)


def _run(command: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", f"experiments.{command}", *arguments], check=True, stdout=subprocess.DEVNULL)


def _work(members: int) -> None:
    """What a `Worker` runs."""
    if members:
        jax.config.update("jax_num_cpu_devices", os.cpu_count())
    configs = [config_of(member) for member in range(members or 1)]
    lead = configs[0]
    programs = Programs(lead, load_splits(lead), jax.devices())
    step = _together(programs, configs) if members else _alone(programs, lead)
    for _ in sys.stdin:
        seconds: list[float] = []
        while len(seconds) < 2 or sum(seconds) < 1.0:
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        print(float(np.median(seconds[1:])) / STEPS / max(members, 1), flush=True)


def _together(programs: Programs, configs: Sequence[Config]) -> Callable[[], None]:
    population = Population(programs, configs)
    state, first = population.initial(), 0

    def step() -> None:
        nonlocal state, first
        state, first = population.run(state, first, np.full(len(configs), STEPS)).state, first + STEPS

    return step


def _alone(programs: Programs, config: Config) -> Callable[[], None]:
    trainer, numbers = Trainer(config, programs.plan, programs.model), numbers_of(config)
    state, first = trainer.init(0, numbers), 0
    indices = batch_indices(config.task, config.train.batch_size, 0)

    def step() -> None:
        nonlocal state, first
        done = trainer.run(state, 0, numbers, {}, indices(first, STEPS), np.int32(STEPS))
        jax.device_get(done.metrics)
        state, first = done.state, first + STEPS

    return step


if __name__ == "__main__":
    _work(int(sys.argv[1]))
