"""Checkpoints of a run; every call to Orbax is in this file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gru_jax.errors import UsageError, listing
from gru_jax.training.environment import Device

LATEST, BEST = "latest", "best"


MEETING_SECONDS = 7 * 24 * 3600  # members take as long as they take


def meet(where: str) -> None:
    """Wait until all processes are here, by JAX's coordination service rather than by a collective, which times out."""
    if jax.process_count() > 1:
        wait = ocp.multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        wait(key=where.replace(" ", "_"), timeout_ms=1000 * MEETING_SECONDS)


class Checkpoints:
    """The latest few states of a run under `latest/<step>`, and the best under `best/<step>`.

    A checkpoint holds a train state as nested dicts, and beside it a small dict of what the host needs to go on. It
    appears under its name only when it is complete.

    Args:
        directory: of the run's checkpoints.
        device: where states are restored to.
        keep: latest checkpoints kept.
        read_only: for evaluation.
        kinds: which of the two there are.
    """

    def __init__(
        self,
        directory: Path,
        device: Device,
        keep: int = 1,
        *,
        read_only: bool = False,
        kinds: tuple[str, ...] = (LATEST, BEST),
    ) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every save
        self.directory, self.device = directory.absolute(), device
        self._managers = {kind: self._manager(kind, keep if kind == LATEST else 1, read_only) for kind in kinds}

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
        if not read_only:
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(self.directory / name, options=options, item_names=("state", "host"))

    def step(self, which: str = LATEST) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._managers[which].latest_step()

    def save(self, which: str, step: int, state: dict[str, Any], host: dict[str, Any]) -> None:
        """Save the state after so many steps; complete when this returns."""
        manager = self._managers[which]
        # A best checkpoint newer than the latest one is there after a kill between the two saves: write it again.
        for newer in [s for s in manager.all_steps() if s >= step]:
            manager.delete(newer)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), host=ocp.args.JsonSave(host))
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

    def restore(
        self, which: str, like: dict[str, Any], step: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The checkpoint of a step, or the newest, with the shapes and types of `like`: NumPy arrays where it has
        them, else arrays on the device.

        Raises:
            UsageError: there is none.
        """
        manager = self._managers[which]
        step = manager.latest_step() if step is None else step
        if step is None:
            raise UsageError(f"{self.directory / which}: holds no checkpoint")
        device = jax.sharding.SingleDeviceSharding(self.device)
        target = jax.tree.map(
            lambda a: a if isinstance(a, np.ndarray) else jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), like
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), host=ocp.args.JsonRestore())
        restored = manager.restore(step, args=items)
        return dict(restored["state"]), dict(restored["host"])

    def close(self) -> None:
        """Release Orbax' threads."""
        for manager in self._managers.values():
            manager.close()
