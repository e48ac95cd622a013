"""The content of `summary.json`: what a run came to."""

from __future__ import annotations

import json
from typing import Any

from gru_jax.config import Config
from gru_jax.runs.early_stopping import EarlyStopping
from gru_jax.runtime.files import Json
from gru_jax.tasks.base import MEMORYLESS


def summarise(
    config: Config,
    progress: EarlyStopping,
    final: Json,
    best: Json,
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
        "baselines": {name: dict(metrics) for name, metrics in config.task.baselines.items()},
        "final": {"step": progress.steps, **final},
        "best": {"step": progress.best_step, **best},
        "steps": progress.steps,
        "stopped": progress.end_message,
        "end_reason": progress.end_reason,
        "seconds": round(seconds, 3),
        "steps_per_second": round(progress.steps / max(seconds, 1e-9), 3),
        **({"skipped": progress.num_skipped} if config.train.skip_nonfinite else {}),
        "parameters": parameters,
        **more,
    }
    # JSON has no number that is not finite.
    return json.loads(json.dumps(summary), parse_constant=lambda name: None)


def named_baselines(summary: Json) -> dict[str, dict[str, float | None]]:
    """The test metrics of what answers without a network, by names."""
    return summary.get("baselines") or {MEMORYLESS: summary["baseline"]}  # of a run of an earlier version


def baselines_of(summary: Json, metric: str) -> dict[str, float]:
    """What answers without a network score in test by a metric, by their names.

    Examples:
        >>> from gru_jax.runs.summary import baselines_of
        >>> baselines_of({"baselines": {"persistence": {"loss": 0.03}, "chance": {"accuracy": 0.5}}}, "loss")
        {'persistence': 0.03}
    """
    scores = {name: metrics.get(metric) for name, metrics in named_baselines(summary).items()}
    return {name: score for name, score in scores.items() if score is not None}


def worse_than(summary: Json, metric: str, value: float | None) -> list[str]:
    """The answers without a network that a test score is worse than, by their names.

    Of metrics other than the loss and the goal it is not known which way is better.

    Examples:
        >>> from gru_jax.runs.summary import worse_than
        >>> summary = {"goal": ["loss", "min"], "baselines": {"persistence": {"loss": 0.03}, "mean": {"loss": 1.9}}}
        >>> worse_than(summary, "loss", 0.15)
        ['persistence']
    """
    directions = {"loss": "min", summary["goal"][0]: summary["goal"][1]}
    if metric not in directions or value is None:
        return []
    sign = 1 if directions[metric] == "min" else -1
    return [name for name, score in baselines_of(summary, metric).items() if sign * value > sign * score]


def find_damage(content: Json) -> str | None:
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
            is_unscored = split == "test" and metrics == {}  # without targets
            if not isinstance(metrics, dict) or len(goal) != 2 or (goal[0] not in metrics and not is_unscored):
                return f"{part} has no {split} score"
            tables.append(metrics)
    named = content.get("baselines", {})
    if not isinstance(named, dict) or not all(isinstance(metrics, dict) for metrics in named.values()):
        return "its baselines are none"
    tables += named.values()
    numbers = (value for table in tables for value in table.values())
    if goal[1] not in ("min", "max") or not all(isinstance(value, int | float | None) for value in numbers):
        return "a score is no number"
    return None
