"""Checkpoints of a run; every call to Orbax that reads or writes is in this file."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from gru_jax.config.checkpoint_names import BEST, CHECKSUMS, LATEST
from gru_jax.errors import ArgumentError, UsageError, listing
from gru_jax.runtime.devices import Device
from gru_jax.runtime.files import refuse_links, sha256_of

METADATA = "_CHECKPOINT_METADATA"  # of Orbax
QUARANTINE = "aside"
ARRAYS, FINGERPRINT = "arrays", "fingerprint"  # in the metadata
SPARE_BYTES = 2**20  # that a checkpoint takes beside its arrays

logger = logging.getLogger(__name__)


class DamagedError(UsageError):
    """A checkpoint cannot be read, or is not what was saved."""


class Checkpoints:
    """The latest few states of a run under `latest/<step>`, and the best under `best/<step>`.

    A checkpoint holds a train state as nested dicts, and beside it metadata: what else is needed to go on. It
    appears under its name only when it is complete; then the SHA-256 of its files go to `sha256/<kind>-<step>`, as
    `sha256sum -c` takes them in the checkpoint's directory. The types and shapes of its arrays are in it too, since
    Orbax casts what is of another type without a word.

    Args:
        directory: of the run's checkpoints.
        device: where states are restored to.
        keep, keep_best: latest and best checkpoints kept.
        read_only: for evaluation.
        kinds: which of the two there are.
        fingerprint: whose they are, as JSON, e.g. `gru_jax.config.fingerprint`; another's count as damaged. None for
            anybody's.
    """

    def __init__(
        self,
        directory: Path,
        device: Device,
        keep: int = 1,
        *,
        keep_best: int = 1,
        read_only: bool = False,
        kinds: tuple[str, ...] = (LATEST, BEST),
        fingerprint: Any = None,
    ) -> None:
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax tells of every save, and raises its errors too
        self.directory, self.device, self._fingerprint = directory.absolute(), device, fingerprint
        for folder in (self.directory, *(self.directory / name for name in (*kinds, QUARANTINE, CHECKSUMS))):
            refuse_links(folder)
        self._managers = {kind: self._manager(kind, keep if kind == LATEST else keep_best, read_only) for kind in kinds}

    def _manager(self, name: str, keep: int, read_only: bool) -> ocp.CheckpointManager:
        process = jax.process_index()
        alone = {} if jax.process_count() == 1 else {
            "primary_host": process, "active_processes": {process}, "barrier_sync_key_prefix": f"process_{process}",
        }  # fmt: skip
        options = ocp.CheckpointManagerOptions(
            multiprocessing_options=ocp.options.MultiprocessingOptions(**alone),
            max_to_keep=None if read_only else keep,
            create=False,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=False,
            read_only=read_only,
        )
        folder = self.directory / name
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        for step in folder.glob("[0-9]*"):  # Orbax looks at these before anything else, and takes no damage
            if step.name.isdecimal() and not _has_metadata(step):
                damaged = self._damaged(name, int(step.name), f"{METADATA} is not JSON")
                if read_only:
                    raise damaged
                self._warn(damaged, self._move_to_quarantine(name, int(step.name)))
        return ocp.CheckpointManager(folder, options=options, item_names=("state", "host"))

    def step(self, kind: str = LATEST) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._managers[kind].latest_step()

    def steps(self, kind: str) -> list[int]:
        """The steps of all checkpoints."""
        return sorted(self._managers[kind].all_steps())

    def save(self, kind: str, step: int, state: dict[str, Any], metadata: Mapping[str, object]) -> None:
        """Save the state after so many steps; complete when this returns.

        Raises:
            UsageError: it cannot be written; those from before are as they were.
        """
        manager = self._managers[kind]
        if jax.process_count() > 1:
            state = jax.tree.map(np.asarray, state)
        content = {**metadata, ARRAYS: describe_arrays(state), FINGERPRINT: self._fingerprint}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(content))
        try:
            # Orbax leaves threads and halves of files behind where a disk fills under its hands.
            needed = SPARE_BYTES + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
            free = shutil.disk_usage(self.directory).free
            if free < needed:
                raise OSError(f"no space left on device: it takes {needed:,} bytes and {free:,} are free")
            # One that is newer than the latest is there after a kill between the two saves: write it again.
            for newer in [s for s in manager.all_steps() if s >= step]:
                self._checksums(kind, newer).unlink(missing_ok=True)
                manager.delete(newer)
            if not manager.save(step, args=items, force=True):
                raise OSError("not saved")
            self._write_checksums(kind, step)
        except (OSError, ValueError, jax.errors.JaxRuntimeError) as error:
            remaining = listing(manager.all_steps()) or "none"
            where = self.directory / kind / str(step)
            raise UsageError(
                f"{where}: cannot be written ({_reason(error)}); those of steps {remaining} "
                "are as they were, and the same command goes on from there"
            ) from error

    def holding(self, step: int) -> str:
        """Which of `LATEST` and `BEST` has a checkpoint of this step.

        Raises:
            UsageError: neither.
        """
        steps = {kind: manager.all_steps() for kind, manager in self._managers.items()}
        for kind, present in steps.items():
            if step in present:
                return kind
        present = listing(sorted({s for of_kind in steps.values() for s in of_kind})) or "none"
        raise ArgumentError(f"step={step}: {self.directory} has checkpoints of steps {present}")

    def metadata(self, kind: str) -> dict[str, Any]:
        """What stands beside the newest state, once its checksums are right.

        Raises:
            UsageError: there is none.
            DamagedError: it cannot be read, or is not what was saved.
        """
        step = self._newest_step(kind)
        self._verify_checksums(kind, step)
        try:
            return self._content(kind, step)
        except Exception as error:  # whatever Orbax and its stores make of damage
            raise self._damaged(kind, step, _reason(error)) from error

    def _newest_step(self, kind: str) -> int:
        step = self.step(kind)
        if step is None:
            raise UsageError(f"{self.directory / kind}: holds no checkpoint")
        return step

    def _content(self, kind: str, step: int) -> dict[str, Any]:
        items = ocp.args.Composite(host=ocp.args.JsonRestore())
        return dict(self._managers[kind].restore(step, args=items)["host"])

    def restore(
        self, kind: str, like: dict[str, Any], step: int | None = None, read: Callable[[Any], Any] = dict
    ) -> tuple[dict[str, Any], Any]:
        """The checkpoint of a step, or the newest, with the shapes and types of `like`: NumPy arrays where it has
        them, else arrays on the device.

        Args:
            kind: kind.
            like: as what it was saved.
            step: its step; None for the newest.
            read: makes of the metadata what is returned of them, and may raise anything where they are not right.

        Raises:
            UsageError: there is none.
            DamagedError: it cannot be read, or is not what was saved, or belongs to another network.
        """
        step = self._newest_step(kind) if step is None else step
        self._verify_checksums(kind, step)
        target = jax.tree.map(self._target, like)
        try:
            content = self._content(kind, step)
            stored, wanted = content.pop(ARRAYS, {}), describe_arrays(like)
            saved_by = content.pop(FINGERPRINT, None)
            if None not in (saved_by, self._fingerprint) and saved_by != self._fingerprint:
                raise ValueError("it belongs to another run")
            metadata = read(content)
            for name in sorted(stored.keys() | wanted.keys()):
                if stored.get(name) != wanted.get(name):
                    raise ValueError(f"{name} is {stored.get(name, 'not there')}, needed is {wanted.get(name, 'none')}")
            items = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            state = dict(self._managers[kind].restore(step, args=items)["state"])
        except PermissionError as error:
            raise UsageError(f"{self.directory / kind / str(step)}: cannot be read ({error.strerror})") from error
        except Exception as error:  # whatever Orbax and its stores make of damage
            raise self._damaged(kind, step, _reason(error)) from error
        return state, metadata

    def _target(self, leaf: Any) -> Any:
        """What Orbax makes of an array: with several processes it takes no arrays of one device."""
        if isinstance(leaf, np.ndarray) or jax.process_count() > 1:
            return np.empty(leaf.shape, leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.sharding.SingleDeviceSharding(self.device))

    def newest(
        self, kind: str, like: dict[str, Any], read: Callable[[Any], Any] = dict
    ) -> tuple[int, dict[str, Any], Any] | None:
        """The step of the newest checkpoint that is whole, and what `restore` gives; newer ones that are damaged are
        named and set aside.
        """
        for step in sorted(self._managers[kind].all_steps(), reverse=True):
            try:
                return step, *self.restore(kind, like, step, read)
            except DamagedError as error:
                self._warn(error, self.quarantine(kind, step))
        return None

    def _warn(self, error: DamagedError, kept: Path) -> None:
        logger.warning("%s; kept as %s, the one before it is used", error, kept)

    def quarantine(self, kind: str, step: int) -> Path:
        """Take a checkpoint out of use, and return where it is now."""
        target = self._move_to_quarantine(kind, step)
        self._managers[kind].reload()
        return target

    def _move_to_quarantine(self, kind: str, step: int) -> Path:
        target = self.directory / QUARANTINE / f"{kind}-{step}"
        count = 1
        while target.exists():
            count += 1
            target = target.with_name(f"{kind}-{step}-{count}")
        target.parent.mkdir(exist_ok=True)
        (self.directory / kind / str(step)).rename(target)
        if (sums := self._checksums(kind, step)).exists():
            sums.rename(target.with_name(f"{target.name}.{CHECKSUMS}"))
        return target

    # Sums of files

    def _checksums(self, kind: str, step: int) -> Path:
        return self.directory / CHECKSUMS / f"{kind}-{step}"

    def _write_checksums(self, kind: str, step: int) -> None:
        folder, path = self.directory / kind / str(step), self._checksums(kind, step)
        path.parent.mkdir(exist_ok=True)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        path.write_text("".join(f"{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n" for file in files))
        current = {self._checksums(kind, step) for step in self.steps(kind)}
        for old in path.parent.glob(f"{kind}-*"):
            if old not in current:
                old.unlink()

    def _verify_checksums(self, kind: str, step: int) -> None:
        """Look at the files before Orbax does; a kill may have left a complete checkpoint without its sums."""
        folder, path = self.directory / kind / str(step), self._checksums(kind, step)
        try:
            for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
                wanted, _, name = line.partition("  ")
                file = folder / name
                if not file.is_file():
                    raise self._damaged(kind, step, f"{name} is missing")
                if sha256_of(file) != wanted:
                    raise self._damaged(kind, step, f"{name} is not what was saved")
        except PermissionError:
            raise
        except OSError as error:
            raise self._damaged(kind, step, f"its sums cannot be read, {error.strerror}") from error

    def _damaged(self, kind: str, step: int, why: str) -> DamagedError:
        return DamagedError(f"{self.directory / kind / str(step)}: damaged ({why})")

    def close(self) -> None:
        """Release Orbax' threads."""
        for manager in self._managers.values():
            manager.close()


def remove_checkpoint(directory: Path, kind: str, step: int) -> None:
    """Remove a checkpoint of a directory that nobody has open, if it is there."""
    refuse_links(directory)
    refuse_links(directory / kind)
    (directory / CHECKSUMS / f"{kind}-{step}").unlink(missing_ok=True)
    shutil.rmtree(directory / kind / str(step), ignore_errors=True)


def describe_arrays(tree: PyTree) -> dict[str, str]:
    """The types and shapes of all arrays of a tree, by their place in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _has_metadata(folder: Path) -> bool:
    """Whether the metadata of a checkpoint, if there are any, can be read."""
    path = folder / METADATA
    try:
        return not path.exists() or isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else f"{text[:200]} …"
