"""What people are told of their data before a training begins."""

from __future__ import annotations

import numpy as np

from gru_jax.data.arrays import LENGTHS, WEIGHTS, XS
from gru_jax.tasks.array_files import TRAIN, ArrayFiles

SHOWN = 20  # classes


def describe_sequences(files: ArrayFiles) -> list[str]:
    """A line for each split, and one for the targets: the classes that occur, how often, or the range of numbers."""
    facts, lines, counts = files.facts(), [], {}
    for split in files.splits:
        count, time, features = files.rows(split, XS).shape
        steps = f"{time} steps"
        if files.has(split, LENGTHS):
            lengths = files.rows(split, LENGTHS).all()
            steps = f"{lengths.min()} to {lengths.max()} steps"
        missing = files.count_missing(split) if files.missing != "error" else 0
        absent = f", {missing:,} inputs missing (task.missing={files.missing})" if missing else ""
        if files.has(split, WEIGHTS):
            weights = files.rows(split, WEIGHTS).all()
            absent += f", of weights {weights.min():.4g} to {weights.max():.4g}"
        unscored = "" if split in files.labelled else f", without targets: there will be no {split} score"
        lines.append(
            f"{split}: {count:,} sequences of {steps}, {features} feature{'s' * (features > 1)}{absent}{unscored}"
        )
        if facts.codes and not unscored:
            counts[split] = np.bincount(files.weighted_targets(split)[0], minlength=len(facts.codes))
    if not facts.codes:
        values, weights = files.stored_targets(TRAIN)
        if facts.are_labels:
            shares = zip(facts.targets, (values * weights[:, None]).sum(axis=0), strict=True)
            shown = [f"{name} ({share:.1%})" for name, share in shares]
            return [*lines, f"labels, with how often they hold in training: {_few(shown)}"]
        ranges = zip(facts.targets, values.min(axis=0), values.max(axis=0), strict=True)
        shown = [f"{name} {low:.5g} to {high:.5g}" for name, low, high in ranges]
        return [*lines, f"targets in training: {_few(shown)}"]
    classes = [
        f"{name} ({', '.join(f'{of_split[i]:,}' for of_split in counts.values())})"
        for i, name in enumerate(facts.classes[:SHOWN])
    ]
    more = f", … of {len(facts.classes)}" if len(facts.classes) > SHOWN else ""
    each = "targets" if facts.per_step else "sequences"
    lines.append(f"classes, with their {each} in {', '.join(counts)}: {', '.join(classes)}{more}")
    unseen = [name for i, name in enumerate(facts.classes) if not counts[TRAIN][i]]
    if unseen:
        lines.append(f"never in training, so that no network can learn them: {', '.join(unseen[:SHOWN])}")
    return lines


def _few(texts: list[str]) -> str:
    return f"{', '.join(texts[:SHOWN])}{', …' * (len(texts) > SHOWN)}"
