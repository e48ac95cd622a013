"""The files of a run, written so that a kill at any moment leaves them whole."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru_jax.config import GROWING_KEYS, changed_sources, differences, say_what_differs, unknown_sources
from gru_jax.config.checkpoint_names import CHECKPOINTS
from gru_jax.errors import ArgumentError, UsageError
from gru_jax.runs.summary import find_damage
from gru_jax.runtime.files import Json, naming_file, read_json, refuse_links, replace_file, write_json
from gru_jax.runtime.locks import LOCK, lock_directory
from gru_jax.training.instruments import LIVE, LIVE_STEP, RECORD_AXES, SOURCE

OTHER_SOURCE = "code or weights of your own are others than {0} made with; results may differ: {1}"
UNKNOWN_SOURCE = "whether code of your own is still what {0} made with is not known: {1}"

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
                "config.json", "env.json", "metrics.jsonl", "flow.npz", CHECKPOINTS, "plots", "summary.json",
            )
        )  # fmt: skip
        self.written_scores = self.path / "written_scores.json"
        """How good what the best network of a run with a decoder writes for the test sources is."""
        self.lines = 0
        """Lines of `metrics.jsonl`, as far as this process knows."""
        self.check: Callable[[], None] = lambda: None
        """Raises `UsageError` where the directory, while it is held, is no longer this process's."""

    def inspect(self, config: Json, grown: Collection[str] = ()) -> str:
        """`"new"`, `"started"` or `"done"`, for a run of this config; changes nothing.

        Args:
            config: as a dict.
            grown: keys of it by which the run is to last longer than it was; with any of them it is not done.

        Raises:
            UsageError: the directory belongs to another config or to something else, or cannot be used.
        """
        try:
            if not self.path.exists():
                return "new"
            if not self.path.is_dir():
                raise ArgumentError(f"workdir={self.path}: not a directory")
            if not self.config.exists():
                others = sorted(p.name for p in self.path.iterdir() if not p.name.endswith(".tmp") and p.name != LOCK)
                if others:
                    raise ArgumentError(
                        f"workdir={self.path}: not a run directory, it holds {others[0]} and no config.json; "
                        "allowed is a new or empty directory, or one of an earlier run"
                    )
                return "new"
            changed = differences(read_json(self.config), config, grown)
        except OSError as error:
            raise ArgumentError(f"workdir={self.path}: cannot be used ({error.strerror})") from error
        if changed:
            may_grow = any(text.split(" ")[0] in GROWING_KEYS for text in changed)
            hint = "; allowed are later ends alone" if may_grow else "; it goes into another directory"
            what = say_what_differs(changed, "a run of another config")
            raise ArgumentError(f"workdir={self.path}: belongs to {what}{hint}")
        return "done" if self.summary.exists() and not grown else "started"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out while this lasts; see `gru_jax.runtime.locks`.

        Raises:
            UsageError: another process is in it, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArgumentError(f"workdir={self.path}: cannot be written ({error.strerror})") from error
        refuse_links(self.path)
        with lock_directory(self.path) as self.check:
            yield

    def start(self, config: Json, env: Mapping[str, Any]) -> list[str]:
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
            raise ArgumentError(f"workdir={self.path}: cannot be written ({error.strerror})") from error
        old, new = ({key: side.get(key, {}) for key in ENVIRONMENT} for side in (before, env))
        return differences(old, new)

    def changed_sources(self, config: Json) -> str | None:
        """That the source of classes or functions of a user's own is another than when the run began, if it is so.

        Of some it cannot be known, which is said as well.
        """
        stored = read_json(self.config) if self.config.exists() else {}
        if changed := changed_sources(stored, config):
            return OTHER_SOURCE.format("this run was", ", ".join(changed))
        if unknown := unknown_sources(stored, config):
            return UNKNOWN_SOURCE.format("this run was", ", ".join(unknown))
        return None

    def read_summary(self) -> Json:
        """The summary of a finished run.

        Raises:
            UsageError: it is damaged.
        """
        content = read_json(self.summary)
        damage = find_damage(content)
        if damage:
            raise UsageError(f"{self.summary}: damaged, {damage}")
        return content

    def read_metrics(self) -> list[Json]:
        """All lines of `metrics.jsonl`; a kill may have cut the last one short.

        Raises:
            UsageError: another one is damaged.
        """
        lines: list[Json] = []
        *whole, _ = self.metrics.read_bytes().split(b"\n") if self.metrics.exists() else [b""]
        for text in whole:
            line = _record(text)
            if line is None:
                raise UsageError(f"{self.metrics}: damaged, line {len(lines) + 1} is no record of a step; {_REMEDY}")
            lines.append(line)
        return lines

    def rewind(self, step: int, lines: int | None = None) -> None:
        """Forget all that was recorded after the checkpoint at `step` (-1: everything).

        Args:
            step: of the checkpoint.
            lines: of metrics that there were then, if that is known.

        Raises:
            UsageError: there are fewer, or a file is damaged.
        """
        kept = [line for line in self.read_metrics() if line["step"] <= step and line["split"] != "test"]
        if lines is not None and len(kept) != lines:
            raise UsageError(
                f"{self.metrics}: damaged, it has {len(kept)} of {lines} lines up to step {step}; {_REMEDY}"
            )
        replace_file(self.metrics, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self.lines = len(kept)
        records = self.read_flow()
        if records:
            rows = {"step": records["step"] <= step} if "step" in records else {}
            if LIVE_STEP in records:  # of the step that comes next, measured when it is made
                rows[LIVE_STEP] = records[LIVE_STEP] < step
            kept_rows = {k: v if k in RECORD_AXES else v[rows[_steps_of(k)]] for k, v in records.items()}
            self.write_flow(kept_rows)

    def append_metrics(self, lines: Iterable[Json]) -> None:
        """Add lines to `metrics.jsonl`, on disk when this returns.

        Raises:
            UsageError: they cannot be written.
        """
        self.check()
        texts = [json.dumps(line) + "\n" for line in lines]
        with naming_file(self.metrics), self.metrics.open("a") as stream:
            stream.writelines(texts)
            stream.flush()
            os.fsync(stream.fileno())
        self.lines += len(texts)

    def read_flow(self) -> dict[str, np.ndarray]:
        """The arrays of `flow.npz`; empty if there is none."""
        if not self.flow.exists():
            return {}
        try:
            with np.load(io.BytesIO(self.flow.read_bytes()), allow_pickle=False) as stored:
                records = dict(stored)
        except Exception as error:  # whatever NumPy, zip and zlib make of damage
            raise UsageError(f"{self.flow}: damaged ({_short(error)}); {_WITHOUT}") from error
        wrong = _wrong_in_flow(records)
        if wrong:
            raise UsageError(f"{self.flow}: damaged, {wrong}; {_WITHOUT}")
        return records

    def write_flow(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace `flow.npz`."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        replace_file(self.flow, content.getvalue())


_REMEDY = "put it back from a copy, or move it and the checkpoints away to train anew"
_WITHOUT = "remove it to go on without what it recorded"


def _record(text: bytes) -> Json | None:
    """A line of metrics, or None where it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fine = isinstance(line, dict) and type(line.get("step")) is int and isinstance(line.get("split"), str)
    return line if fine else None


def _steps_of(name: str) -> str:
    return LIVE_STEP if name.startswith(LIVE) else "step"


def _wrong_in_flow(records: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with the arrays of `flow.npz`."""
    for name, values in records.items():
        if values.dtype.kind not in ("U" if name == SOURCE else "biuf"):
            return f"{name} holds {values.dtype}"
        if name in RECORD_AXES:
            continue
        steps = records.get(_steps_of(name))
        if steps is None or steps.dtype.kind != "i" or steps.ndim != 1:
            return f"it has no whole numbers {_steps_of(name)}"
        if values.ndim < 1 or len(values) != len(steps):
            return f"{name} has not a row for each of {len(steps)} steps"
    return None


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:100]
