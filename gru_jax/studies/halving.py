"""Who goes on at a rung: successive halving, hyperband and the median rule."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from gru_jax.errors import UsageError
from gru_jax.settings import setting

Curve = Mapping[int, float]
"""The validation scores of a member by step, lower being better."""


@dataclasses.dataclass(frozen=True)
class Halving:
    """At rungs, only the best members go on.

    Attributes:
        first: steps of the first rung, at which there is a validation; 0 for no halving.
        eta: of so many members one goes on, and the next rung is so many times as far.
        rule: `halving`, successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943); or `median`, by which
            members go on whose best score so far is no worse than the median of all members' best by then, at every
            multiple of the first rung (Golovin et al. 2017, Google Vizier, section 3.2; of members that ended before,
            the best they had).
        brackets: of hyperband (Li et al. 2018, arXiv:1603.06560): members are divided among so many, by what their ids
            are; those of the second have their first rung `eta` times as far, and so on. 1 is successive halving.
    """

    first: int = setting(0, low=0, high=10**9)
    eta: int = setting(3, low=2, high=10**6)
    rule: Literal["halving", "median"] = "halving"
    brackets: int = setting(1, low=1, high=20)

    def __post_init__(self) -> None:
        if self.rule == "median" and self.brackets > 1:
            raise UsageError(f"halving.brackets={self.brackets}: the median rule has none; allowed is 1")

    def rungs(self, steps: int) -> list[int]:
        """The steps of all rungs before the end."""
        if not self.first:
            return []
        if self.rule == "median":
            return list(range(self.first, steps, self.first))
        rungs, rung = [], self.first
        while rung < steps:
            rungs.append(rung)
            rung *= self.eta
        return rungs

    def bracket(self, member: str) -> int:
        """The bracket of a member, whose first rung is at `first` times `eta` to this power.

        Of S + 1 brackets, b has a share in proportion to eta^(S-b) / (S-b+1), as hyperband has them. Ids are hashes,
        and serve as the draw: a member stays in its bracket whatever else there is in the study.
        """
        shares = [self.eta ** (self.brackets - 1 - b) / (self.brackets - b) for b in range(self.brackets)]
        place = int(member, 16) / 16 ** len(member) * sum(shares)
        return sum(place >= upto for upto in itertools.accumulate(shares[:-1]))

    def decide(self, rung: int, curves: Mapping[str, Curve]) -> dict[str, str]:
        """The members that end at a rung, and why.

        Args:
            rung: its steps.
            curves: by member, its validations up to the rung; of members that ended before it too.

        Examples:
            >>> from gru_jax.studies.halving import Halving
            >>> curves = {"a1": {100: 0.3}, "b2": {100: 0.5}, "c3": {100: 0.4}}
            >>> Halving(first=100, eta=3).decide(100, curves)
            {'c3': 'halved at step 100: 2 of 3', 'b2': 'halved at step 100: 3 of 3'}
            >>> Halving(first=100, rule="median").decide(100, curves)
            {'b2': 'halved at step 100: worse than the median of 3 members'}
        """
        reached = {member: curve[rung] for member, curve in curves.items() if rung in curve}
        if self.rule == "median":
            return self._worse_than_median(rung, reached, curves)
        ended = {}
        for bracket in range(self.brackets):
            if rung < self.first * self.eta**bracket:
                continue
            of_bracket = [member for member in reached if self.bracket(member) == bracket]
            ranked = sorted(of_bracket, key=lambda member: (_ordered(reached[member]), member))
            for i in range(-(-len(ranked) // self.eta), len(ranked)):
                ended[ranked[i]] = f"halved at step {rung}: {i + 1} of {len(ranked)}"
                ended[ranked[i]] += f" in bracket {bracket + 1}" * (self.brackets > 1)
        return ended

    def _worse_than_median(
        self, rung: int, reached: Mapping[str, float], curves: Mapping[str, Curve]
    ) -> dict[str, str]:
        bests = {
            member: min(_ordered(score) for step, score in curve.items() if step <= rung)
            for member, curve in curves.items()
            if any(step <= rung for step in curve)
        }
        median = float(np.median(list(bests.values()))) if bests else math.inf
        why = f"halved at step {rung}: worse than the median of {len(bests)} members"
        return {member: why for member in reached if bests[member] > median}


def _ordered(score: float) -> float:
    """A score by which all can be ordered: one that is no number is worse than all."""
    return math.inf if math.isnan(score) else score
