"""Make the pictures of a page again: `python -m tests.make_pictures docs/gradient_flow.md [--only NAME]`.

A picture's title says which file it is a copy of: `![…](pictures/biases.png "runs/biases/sweep.png")`. The commands
above it on its page that lead to this file are run in the project's directory, where runs that are done are not done
again. The title may also be

- `runs/flip_flop/inspect.html#points_layer_0`: a figure of an inspection, which its `plot` gives;
- `runs/lm/inspect.html`, or with `?section`: the page in a browser, from that section on, as large as the picture was;
- `schedules`: a function of this file, for what no command draws.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from gru_jax.config import load
from gru_jax.plotting.schedules import plot_learning_rates
from gru_jax.runs.inspection.inspection import inspect_run
from gru_jax.training.schedules import learning_rates
from tests.pages import ROOT, Picture, commands_of, pictures_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def schedules() -> Figure:
    """The schedules of the learning rate over a thousand updates."""
    changes = {
        "linear": {"schedule": "linear"},
        "cosine, warm-up of 100": {"schedule": "cosine", "warmup_steps": 100},
        "exponential": {"schedule": "exponential"},
        "step": {"schedule": "step", "drop_steps": (500, 750), "drop": 0.3},
        "one_cycle": {"schedule": "one_cycle"},
    }
    configs = {
        name: load({"optimizer": {"lr": 0.01, **more}, "train": {"steps": 1000}}) for name, more in changes.items()
    }
    return plot_learning_rates({name: learning_rates(config, np.arange(1000)) for name, config in configs.items()})


DRAWN: dict[str, Callable[[], Figure]] = {"schedules": schedules}


def make_picture(picture: Picture) -> None:
    """Write a picture's file from what it is a copy of, which its commands have made."""
    run, is_inspection, name = picture.origin.partition("/inspect.html")
    if picture.origin in DRAWN:
        DRAWN[picture.origin]().savefig(picture.path, facecolor="white", dpi=150)
    elif name.startswith("#"):
        flags = dict(itertools.pairwise(inspecting(picture, run)))
        inspection = inspect_run(ROOT / run, resting=flags.get("--input", "median"))
        inspection.plot(name[1:]).savefig(picture.path, facecolor="white")
    elif is_inspection:
        photograph(ROOT / run / "inspect.html", name[1:], picture.path)
    else:
        shutil.copyfile(ROOT / picture.origin, picture.path)


def inspecting(picture: Picture, run: str) -> list[str]:
    """The words of the command above a picture that looks into a run."""
    commands = [words for block in picture.needed() for words in commands_of(block)]
    return next(words for words in commands if words[0] == "experiments.inspect" and run in words)


def photograph(html: Path, section: str, path: Path) -> None:
    """Take a picture of a page in a browser, from a section on, as large as the file is that it replaces."""
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    height, width = imread(path).shape[:2]
    flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={width},{height}"]
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder, html.name)
        shown.write_text(f"{html.read_text()}<style>:has(~ #{section or 'none'}) {{ display: none }}</style>")
        subprocess.run([browser, *flags, f"--screenshot={path.absolute()}", shown.as_uri()], check=True)


def main(page: str, only: str = "") -> None:
    """Run the commands above the pictures of a page, or above one of them, and make it again."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for picture in pictures_of(ROOT / page):
        if only in ("", picture.path.stem):
            subprocess.run(["bash", "-euc", "\n".join(picture.needed())], cwd=ROOT, env=environment, check=True)
            make_picture(picture)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[3] if sys.argv[2:3] == ["--only"] else "")
