"""The axes of a study as Optuna's parameters, and as the unit cube of CMA-ES."""

from __future__ import annotations

import importlib
import math
import re
from typing import Any

from gru_jax.errors import UsageError, listing
from gru_jax.studies.axes import CMAES, REPEATS, Axis, Value
from gru_jax.studies.study import Study

FEWEST = 4  # samples of a generation of CMA-ES
_WHOLE = re.compile(r"0|-?[1-9]\d*")


def check_search(study: Study) -> None:
    """Check that a search has what it needs.

    Raises:
        UsageError: it has not.
    """
    sampling, searched = study.sampling, [axis for axis in study.axes if axis.name not in REPEATS]
    if sampling.count < 1:
        raise UsageError(f"sampling.count={sampling.count}: allowed are whole numbers from 1, for {sampling.method}")
    if not searched:
        raise UsageError(f"sampling.method={sampling.method}: an axis other than {listing(REPEATS)} is needed")
    if sampling.method != CMAES:
        return
    for axis in searched:
        if axis.span is None and even_numbers(axis) is None:
            raise UsageError(
                f"axes.{axis.name}: cmaes takes ranges, such as log(1e-4,1e-1), and whole numbers at even distances; "
                "tpe takes names too"
            )
        if axis.name in study.where:
            raise UsageError(f"where.{axis.name}: cmaes takes axes that every member has; tpe takes conditions too")
    if len(searched) < 2:
        raise UsageError("sampling.method=cmaes: two axes at least are needed; tpe takes one")
    if sampling.batch < FEWEST:
        raise UsageError(f"sampling.batch={sampling.batch}: a generation of cmaes has {FEWEST} samples at least")


def even_numbers(axis: Axis) -> range | None:
    """The values of an axis as a range, where they are whole numbers at even distances.

    Examples:
        >>> from gru_jax.studies.axes import parse_axis
        >>> from gru_jax.studies.search_space import even_numbers
        >>> even_numbers(parse_axis("model.hidden", "16,32,48")), even_numbers(parse_axis("model.hidden", "16,32,64"))
        (range(16, 64, 16), None)
    """
    labels = [value.label for value in axis.values]
    if len(labels) < 2 or not all(_WHOLE.fullmatch(label) and len(label) < 16 for label in labels):
        return None
    numbers = [int(label) for label in labels]
    step = numbers[1] - numbers[0]
    whole = range(numbers[0], numbers[-1] + step, step) if step > 0 else range(0)
    return whole if list(whole) == numbers else None


def distribution_of(axis: Axis) -> Any:
    """Optuna's distribution over an axis."""
    distributions = importlib.import_module("optuna.distributions")
    if axis.span is not None:
        scale, low, high = axis.span
        return distributions.FloatDistribution(low, high, log=scale == "log")
    if (whole := even_numbers(axis)) is not None:
        return distributions.IntDistribution(whole[0], whole[-1], step=whole.step)
    return distributions.CategoricalDistribution([value.label for value in axis.values])


def value_of(axis: Axis, param: Any) -> Value:
    """The value that Optuna's parameter stands for."""
    if axis.span is not None:
        return axis.of_number(float(param))
    return next(value for value in axis.values if value.label == str(param))


def param_at(axis: Axis, unit: float) -> Any:
    """Optuna's parameter at a fraction of the way, of an axis of numbers.

    Examples:
        >>> from gru_jax.studies.axes import parse_axis
        >>> from gru_jax.studies.search_space import param_at, unit_of
        >>> rate = parse_axis("optimizer.lr", "log(1e-4,1e-2)")
        >>> round(param_at(rate, 0.5), 9), round(unit_of(rate, 1e-3), 9)
        (0.001, 0.5)
        >>> param_at(parse_axis("model.hidden", "8,16,24,32"), 0.6)
        24
    """
    if axis.span is None:
        return int(axis.at(min(unit, math.nextafter(1.0, 0.0))).label)
    scale, low, high = axis.span
    number = low + unit * (high - low) if scale == "lin" else low * (high / low) ** unit
    return min(max(number, low), high)


def unit_of(axis: Axis, param: Any) -> float:
    """The fraction of the way at which a parameter is; of a whole number, the middle of its share."""
    if axis.span is None:
        return ([value.label for value in axis.values].index(str(param)) + 0.5) / len(axis.values)
    scale, low, high = axis.span
    return (param - low) / (high - low) if scale == "lin" else math.log(param / low) / math.log(high / low)


def suggest(trial: Any, axis: Axis) -> Any:
    """Have one of Optuna's trials take a value on an axis."""
    if axis.span is not None:
        scale, low, high = axis.span
        return trial.suggest_float(axis.name, low, high, log=scale == "log")
    if (whole := even_numbers(axis)) is not None:
        return trial.suggest_int(axis.name, whole[0], whole[-1], step=whole.step)
    return trial.suggest_categorical(axis.name, [value.label for value in axis.values])
