"""How long a newcomer waits: for imports, and for the first training step of the quick start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from experiments.bench.measure import Row

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


def measure_start(repeats: int) -> Iterator[Row]:
    """Measure imports and first steps, each in new processes; medians, once all are measured.

    Those are the seconds to import jax, and what comes after it beyond that; and from the start of a process to the end
    of the first training step, without compiled programs and with those of the run before.
    """
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for module in ("gru_jax", PEER):
                jax_seconds, further_seconds = import_seconds(module)
                seconds.setdefault("import jax", []).append(jax_seconds)
                seconds.setdefault(f"import {module}, beyond jax", []).append(further_seconds)
            shutil.rmtree(Path(folder) / "cache", ignore_errors=True)
            for name in ("first step, nothing compiled yet", "first step, programs kept"):
                seconds.setdefault(name, []).append(first_step_seconds(Path(folder)))
    for name, times in sorted(seconds.items()):
        yield {"what": name, "seconds": sorted(times)[len(times) // 2]}


def describe_start(row: Row) -> str:
    """What was waited for and how long, in a line."""
    return f"{row['what']:<36} {row['seconds']:6.2f} s"


def import_seconds(module: str) -> tuple[float, float]:
    """Seconds that a new process takes to import jax, and after it a module that stands on it."""
    output = subprocess.run(
        [sys.executable, "-c", IMPORTS.format(module)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    jax_seconds, further_seconds = map(float, output.split())
    return jax_seconds, further_seconds


def first_step_seconds(folder: Path) -> float:
    """Seconds from the start of a process to the first line of training metrics.

    Args:
        folder: for the run, and for its compiled programs in `cache`, which stay.
    """
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
