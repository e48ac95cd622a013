"""What to say of a study in which every member diverged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason


class Unusable(NamedTuple):
    """A study without a usable member.

    Attributes:
        sentence: says so, and why.
        furthest: the run directory of the member that came furthest.
    """

    sentence: str
    furthest: Path


def find_unusable(members: Mapping[str, Path]) -> Unusable | None:
    """What there is to say where every one of these members diverged; None where one did not.

    Args:
        members: their run directories by id.
    """
    summaries = {name: RunDir(path).read_summary() for name, path in members.items()}
    if not summaries or any(summary["end_reason"] != EndReason.DIVERGED for summary in summaries.values()):
        return None
    by_steps = sorted(summaries, key=lambda name: summaries[name]["steps"])
    ends = [
        f"{which} after {summaries[name]['steps']} steps ({summaries[name]['stopped']})"
        for which, name in zip(("first", "last"), dict.fromkeys((by_steps[0], by_steps[-1])), strict=False)
    ]
    count = len(summaries)
    return Unusable(
        f"no member is usable: {f'all {count}' if count > 1 else 'the only one'} diverged, {', '.join(ends)}",
        members[by_steps[-1]],
    )
