"""The content of `summary.json`: what a run came to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gru_jax.config import Config
from gru_jax.runs.early_stopping import EarlyStopping


def summarise(
    config: Config,
    progress: EarlyStopping,
    final: Mapping[str, Any],
    best: Mapping[str, Any],
    *,
    seconds: float,
    parameters: int,
    **more: Any,
) -> dict[str, Any]:
    """What a run came to, fit for JSON.

    Args:
        config: of the run.
        progress: how far it came.
        final, best: metrics of the last and of the best network, by split.
        seconds: spent training.
        parameters: trained numbers in the network.
        more: other entries, which come last.
    """
    summary = {
        "goal": list(config.goal),
        "baseline": dict(config.task.baseline),
        "final": {"step": progress.steps, **final},
        "best": {"step": progress.best_step, **best},
        "steps": progress.steps,
        "stopped": progress.end_message,
        "end_reason": progress.end_reason,
        "seconds": round(seconds, 3),
        "steps_per_second": round(progress.steps / max(seconds, 1e-9), 3),
        "parameters": parameters,
        **more,
    }
    # JSON has no number that is not finite.
    return json.loads(json.dumps(summary), parse_constant=lambda name: None)


def find_damage(content: Mapping[str, Any]) -> str | None:
    """What is wrong with a summary that would be read."""
    kinds = {"goal": list, "baseline": dict, "final": dict, "best": dict, "steps": int, "parameters": int}
    kinds |= {"seconds": (int, float), "steps_per_second": (int, float)}
    kinds |= {"stopped": (str, type(None)), "end_reason": (str, type(None))}
    for key, kind in kinds.items():
        if key not in content or not isinstance(content[key], kind):
            return f"it has no {key}"
    goal, tables = content["goal"], [content["baseline"]]
    for part in ("final", "best"):
        if type(content[part].get("step")) is not int:
            return f"{part} has no step"
        for split in ("valid", "test"):
            metrics = content[part].get(split)
            if not isinstance(metrics, dict) or len(goal) != 2 or goal[0] not in metrics:
                return f"{part} has no {split} score"
            tables.append(metrics)
    numbers = (value for table in tables for value in table.values())
    if goal[1] not in ("min", "max") or not all(isinstance(value, int | float | None) for value in numbers):
        return "a score is no number"
    return None
