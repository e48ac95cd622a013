"""How long it takes until something happens: imports, and the first training step of the quick start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent.parent
PEER = "flax.nnx"  # the library that our layers stand on
IMPORTS = """
import time
began = time.perf_counter()
import jax
between = time.perf_counter()
import {}
print(between - began, time.perf_counter() - between)
"""


def measure(repeats: int) -> list[dict[str, Any]]:
    """Median seconds: to import jax, and what comes after it beyond that; from the start of a process to the end of the
    first training step, without compiled programs and with those of the run before.
    """
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for module in ("gru_jax", PEER):
                told = subprocess.run(
                    [sys.executable, "-c", IMPORTS.format(module)], cwd=ROOT, capture_output=True, text=True, check=True
                ).stdout.split()
                seconds.setdefault("import jax", []).append(float(told[0]))
                seconds.setdefault(f"import {module}, beyond jax", []).append(float(told[1]))
            shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
            for name in ("first step, nothing compiled yet", "first step, programs kept"):
                seconds.setdefault(name, []).append(first_step(Path(folder)))
    rows = [{"what": name, "seconds": sorted(of)[len(of) // 2]} for name, of in sorted(seconds.items())]
    for row in rows:
        print(f"{row['what']:<36} {row['seconds']:6.2f} s", flush=True)
    return rows


def first_step(folder: Path) -> float:
    """Seconds from the start of a process to the first line of training metrics."""
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "experiments.train", "--config=configs/quickstart.py"]
    command += ["--config.train.log_steps=1", f"--workdir={run}"]
    began = time.time()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
    )  # fmt: skip
    try:
        while True:
            lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
            for line in lines[1:2]:  # the first is the validation before training
                return json.loads(line)["time"] - began
            if process.poll() is not None:
                raise RuntimeError(f"experiments.train ended: {process.communicate()[1]}")
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A bar for each."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([row["what"] for row in rows], [row["seconds"] for row in rows])
    axes.bar_label(bars, [f"{row['seconds']:.2f}" for row in rows], padding=3)
    axes.set_xlabel("seconds")
    axes.margins(x=0.1)
    figure.savefig(path, dpi=150)
