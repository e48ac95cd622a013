"""The files of a run, written so that a kill at any moment leaves them whole."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.config import differences
from gru_jax.errors import UsageError

ENVIRONMENT = ("packages", "device")
"""Parts of `env.json` on which the bits of a result may depend."""

WALL_CLOCK = ("time", "steps_per_second")
"""Fields of `metrics.jsonl` that two equal runs need not share."""


class RunDir:
    """The directory of a run and the files in it.

    Args:
        path: the directory; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.config, self.env, self.metrics, self.flow, self.checkpoints, self.plots, self.summary = (
            self.path / name
            for name in (
                "config.json", "env.json", "metrics.jsonl", "flow.npz", "checkpoints", "plots", "summary.json",
            )
        )  # fmt: skip

    def inspect(self, config: Mapping[str, Any]) -> str:
        """`"new"`, `"started"` or `"done"`, for a run of this config; changes nothing.

        Raises:
            UsageError: the directory belongs to another config or to something else, or cannot be used.
        """
        try:
            if not self.path.exists():
                return "new"
            if not self.path.is_dir():
                raise UsageError(f"--workdir={self.path}: not a directory")
            if not self.config.exists():
                others = sorted(p.name for p in self.path.iterdir() if not p.name.endswith(".tmp"))
                if others:
                    raise UsageError(
                        f"--workdir={self.path}: not a run directory, it holds {others[0]} and no config.json; "
                        "allowed is a new or empty directory, or one of an earlier run"
                    )
                return "new"
            changed = differences(read_json(self.config), config)
        except OSError as error:
            raise UsageError(f"--workdir={self.path}: cannot be used ({error.strerror})") from error
        if changed:
            raise UsageError(f"--workdir={self.path}: belongs to a run of another config: {'; '.join(changed)}")
        return "done" if self.summary.exists() else "started"

    def start(self, config: Mapping[str, Any], env: Mapping[str, Any]) -> list[str]:
        """Make the directory, write what the run is, and return what changed of versions and device since its start.

        Raises:
            UsageError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
                write_json(self.config, config)  # first: it is what makes this a run directory
            before = read_json(self.env) if self.env.exists() else env
            write_json(self.env, env)
        except OSError as error:
            raise UsageError(f"--workdir={self.path}: cannot be written ({error.strerror})") from error
        old, new = ({key: side.get(key, {}) for key in ENVIRONMENT} for side in (before, env))
        return differences(old, new)

    def read_summary(self) -> dict[str, Any]:
        """The summary of a finished run."""
        return read_json(self.summary)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All whole lines of `metrics.jsonl`."""
        lines = []
        if self.metrics.exists():
            for text in self.metrics.read_bytes().splitlines():
                try:
                    line = json.loads(text)
                except ValueError:  # cut short by a kill
                    break
                if not isinstance(line, dict) or not {"step", "split"} <= line.keys():
                    raise UsageError(f"{self.metrics}: damaged, line {len(lines) + 1} is no record of a step")
                lines.append(line)
        return lines

    def rewind(self, step: int) -> None:
        """Forget all that was recorded after the checkpoint at `step` (-1: everything)."""
        kept = [line for line in self.read_metrics() if line["step"] <= step and line["split"] != "test"]
        replace(self.metrics, "".join(json.dumps(line) + "\n" for line in kept).encode())
        records = self.read_flow()
        if records:
            kept = {"step": records["step"] <= step} if "step" in records else {}
            if LIVE_STEP in records:  # of the step that comes next, measured when it is made
                kept[LIVE_STEP] = records[LIVE_STEP] < step

            def rows(name: str) -> Any:
                return slice(None) if name in FLOW_AXES else kept[LIVE_STEP if name.startswith(LIVE) else "step"]

            self.write_flow({name: values[rows(name)] for name, values in records.items()})

    def append_metrics(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to `metrics.jsonl`, on disk when this returns."""
        with self.metrics.open("a") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)
            stream.flush()
            os.fsync(stream.fileno())

    def read_flow(self) -> dict[str, np.ndarray]:
        """The arrays of `flow.npz`; empty if there is none."""
        if not self.flow.exists():
            return {}
        try:
            with np.load(io.BytesIO(self.flow.read_bytes()), allow_pickle=False) as stored:
                return dict(stored)
        except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise UsageError(f"{self.flow}: damaged ({error}); remove it to go on without what it recorded") from error

    def write_flow(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace `flow.npz`."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        replace(self.flow, content.getvalue())


FLOW_AXES = ("lag", "quantiles", "gate_edges", "jacobian_time")
"""Arrays of `flow.npz` that describe axes; all others have a row for each recorded step, in `step`."""
LIVE = "live/"
"""Prefix of what training steps measured of themselves; its rows belong to the steps in `live/step`."""
LIVE_STEP = f"{LIVE}step"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        UsageError: it is not one.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: damaged, not a JSON object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    replace(path, (json.dumps(content, indent=2) + "\n").encode())


def replace(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(path.name + ".tmp")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
