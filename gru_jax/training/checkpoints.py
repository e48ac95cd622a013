"""Checkpoints of a run; every call to Orbax is in this file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from gru_jax.errors import UsageError, listing
from gru_jax.training.environment import Device
from gru_jax.training.step import TrainState

LATEST, BEST = "latest", "best"


class Checkpoints:
    """The latest few states of a run under `latest/<step>`, and the best under `best/<step>`.

    A checkpoint holds the train state, and beside it a small dict of what the host needs to go on. It appears under
    its name only when it is complete.

    Args:
        directory: of the run's checkpoints.
        device: where states are restored to.
        keep: latest checkpoints kept.
        read_only: for evaluation.
    """

    def __init__(self, directory: Path, device: Device, keep: int = 1, *, read_only: bool = False) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every save
        self.directory, self.device = directory.absolute(), device
        self._managers = {
            LATEST: self._manager(LATEST, keep, read_only),
            BEST: self._manager(BEST, 1, read_only),
        }

    def _manager(self, name: str, keep: int, read_only: bool) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=False,
            read_only=read_only,
        )
        return ocp.CheckpointManager(self.directory / name, options=options, item_names=("state", "host"))

    def step(self, which: str = LATEST) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._managers[which].latest_step()

    def save(self, which: str, state: TrainState, host: dict[str, Any]) -> None:
        """Save a state under its step; complete when this returns."""
        manager, step = self._managers[which], int(state.step)
        # A best checkpoint newer than the latest one is there after a kill between the two saves: write it again.
        for newer in [s for s in manager.all_steps() if s >= step]:
            manager.delete(newer)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), host=ocp.args.JsonSave(host))
        if not manager.save(step, args=items, force=True):
            raise RuntimeError(f"the checkpoint of step {step} in {self.directory / which} was not saved")

    def holding(self, step: int) -> str:
        """Which of `LATEST` and `BEST` has a checkpoint of this step.

        Raises:
            UsageError: neither.
        """
        steps = {which: manager.all_steps() for which, manager in self._managers.items()}
        for which, present in steps.items():
            if step in present:
                return which
        present = listing(sorted({s for some in steps.values() for s in some})) or "none"
        raise UsageError(f"--step={step}: {self.directory} has checkpoints of steps {present}")

    def restore(self, which: str, like: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """The checkpoint of a step, or the newest, with the shapes and types of `like` (values or shapes).

        Raises:
            UsageError: there is none.
        """
        manager = self._managers[which]
        step = manager.latest_step() if step is None else step
        if step is None:
            raise UsageError(f"{self.directory / which}: holds no checkpoint")
        device = jax.sharding.SingleDeviceSharding(self.device)
        target = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), like._asdict())
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), host=ocp.args.JsonRestore())
        restored = manager.restore(step, args=items)
        return TrainState(**restored["state"]), dict(restored["host"])

    def close(self) -> None:
        """Release Orbax' threads."""
        for manager in self._managers.values():
            manager.close()
