"""Kill, damage and resume a training and a study at random, for a given time, and count.

usage: python -m tests.soak.soak [--minutes 10] [--kills N] [--seed 0]

Every run is held against one that nobody disturbed: metrics and table must be equal to the bit. Prints the counts and
exits with 1 at the first difference. Not part of the tests: it takes as long as it is told to.
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.cli import EXIT_PREEMPTED
from tests.training.small import timeless

ROOT = Path(__file__).parent.parent.parent
CONFIG = '''"""For the soak."""
def get_config():
    return {"task": {"name": "adding", "length": 20, "valid_size": 64, "test_size": 64}, "model": {"hidden": (16,)},
            "train": {"batch_size": 16, "steps": %d, "eval_steps": 20, "keep": 3}, "flow": {"batch_size": 8}}
'''
STEPS = {"train": 3000, "ablate": 2000}
SECONDS = 2.0, 12.0  # of a process before it is struck; the first few go by before it trains
AXES = ["--axis.optimizer.lr=0.001,0.01", "--axis.seed=0..1"]
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}


class Soak:
    """One kind of work, disturbed again and again.

    Args:
        kind: `train` or `ablate`.
        folder: where its files go.
        draw: random numbers.
    """

    def __init__(self, kind: str, folder: Path, draw: random.Random) -> None:
        self.kind, self.folder, self.draw = kind, folder, draw
        self.counts: collections.Counter[str] = collections.Counter()
        config = folder / f"{kind}.py"
        config.write_text(CONFIG % STEPS[kind])
        axes = AXES if kind == "ablate" else []
        self.command = [sys.executable, "-m", f"experiments.{kind}", f"--config={config}", *axes]
        self.whole = folder / f"{kind}-whole"
        self._start(self.whole).communicate()
        self.workdir = folder / f"{kind}-0"

    def disturb(self) -> bool:
        """Start or go on, strike at a random moment, and damage something now and then; whether all is as it was."""
        process = self._start(self.workdir)
        try:
            out, _ = process.communicate(timeout=self.draw.uniform(*SECONDS))
        except subprocess.TimeoutExpired:
            name = self.draw.choice(["SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM"])
            process.send_signal(SIGNALS[name])
            out, _ = process.communicate()
            self.counts[name] += 1
        self.counts["set aside"] += out.count("kept as")
        if process.returncode not in (0, EXIT_PREEMPTED, -signal.SIGKILL, -signal.SIGTERM):
            print(out)
            return False
        if self._done():
            self.counts["finished"] += 1
            if not self._equal():
                return False
            shutil.rmtree(self.workdir)
            self.workdir = self.folder / f"{self.kind}-{self.counts['finished']}"
        elif self.draw.random() < 0.25:
            self._damage()
        return True

    def complete(self) -> bool:
        """Go on to the end, undisturbed; whether all is as it was."""
        out, _ = self._start(self.workdir).communicate()
        if not self._done():
            print(out)
            return False
        self.counts["finished"] += 1
        return self._equal()

    def _start(self, workdir: Path) -> subprocess.Popen[str]:
        command = [*self.command, f"--workdir={workdir}"]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def _done(self) -> bool:
        return (self.workdir / ("summary.json" if self.kind == "train" else "report.html")).exists()

    def _equal(self) -> bool:
        if self.kind == "train":
            equal = timeless(self.workdir) == timeless(self.whole)
        else:
            equal = (self.workdir / "table.csv").read_bytes() == (self.whole / "table.csv").read_bytes()
        if not equal:
            print(f"{self.workdir} differs from {self.whole}")
        return equal

    def _damage(self) -> None:
        """Of the newest latest checkpoint."""
        found = [path for path in self.workdir.rglob("checkpoints/latest/*") if path.name.isdigit()]
        files = sorted(p for p in max(found, key=lambda p: int(p.name)).rglob("*") if p.is_file()) if found else []
        if not files:
            return
        file, kind = self.draw.choice(files), self.draw.choice(["removed", "cut", "flipped"])
        content = bytearray(file.read_bytes())
        if kind == "removed" or not content:
            file.unlink()
        elif kind == "cut":
            file.write_bytes(content[: len(content) // 2])
        else:
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
            file.write_bytes(content)
        self.counts[kind] += 1


def told(soaks: list[Soak]) -> str:
    """The counts."""
    return "; ".join(f"{soak.kind}: {dict(soak.counts)}" for soak in soaks)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=10**9, help="end after so many SIGKILLs")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    ends = time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory(prefix="soak_") as folder:
        soaks = [Soak(kind, Path(folder), draw) for kind in STEPS]
        while time.monotonic() < ends and sum(s.counts["SIGKILL"] for s in soaks) < asked.kills:
            fine = draw.choice(soaks).disturb()
            print(told(soaks), flush=True)
            if not fine:
                return 1
        fine = all(soak.complete() for soak in soaks)
        print(told(soaks), flush=True)
        if not fine:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
