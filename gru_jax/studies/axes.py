"""What a study varies: axes, their grammar, and the members they span."""

from __future__ import annotations

import ast
import functools
import itertools
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from scipy.stats import qmc

from gru_jax.config import Config
from gru_jax.errors import UsageError, check_choice, closest
from gru_jax.settings import flatten
from gru_jax.user_code import reference
from gru_jax.values import literal
from gru_jax.with_arguments import as_section

GRAMMAR = "a,b,c; a|b|c where values have commas; 0..9; log(LOW,HIGH,COUNT); lin(LOW,HIGH,COUNT) or LOW:HIGH:COUNT"
SamplingMethod = Literal["grid", "random", "sobol", "tpe", "cmaes"]
METHODS = get_args(SamplingMethod)
GRID, RANDOM, SOBOL, TPE, CMAES = METHODS
SEARCHES = (TPE, CMAES)  # which learn from scores, see `gru_jax.studies.search`
REPEATS = ("seed", "task.fold", "task.test_fold")  # sampled members are repeated over all their values
COLUMNS = ("member", "study", "status", "stopped", "steps", "best_step", "parameters", "horizon_source")
COLUMN_KINDS = ("init_", "final_", "best_", "censored/")
"""Of a study's table, beside those of its axes: their names, and what the names of others begin with."""
MOST = 100_000  # values of an axis, and members
_SPAN = re.compile(r"(log|lin)\(([^,()]+),([^,()]+)(?:,([^,()]+))?\)")
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(\d{1,18}))?")


class Value(NamedTuple):
    """One value of an axis: how it is called, and the settings it stands for, as typed."""

    label: str
    settings: Mapping[str, str]


class Axis(NamedTuple):
    """Something that varies.

    Attributes:
        name: the key of a setting, or a name for values that stand for several.
        values: in order; empty for a continuous axis.
        span: scale (log or lin), low and high of a continuous axis, from which samples are drawn.
    """

    name: str
    values: tuple[Value, ...]
    span: tuple[str, float, float] | None = None

    def at(self, u: float) -> Value:
        """The value at a fraction of the way, 0 up to below 1."""
        if self.span is None:
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        scale, low, high = self.span
        return self.of_number(
            low + u * (high - low) if scale == "lin" else math.exp(math.log(low) + u * math.log(high / low))
        )

    def of_number(self, number: float) -> Value:
        """The value of a number, of a continuous axis."""
        text = f"{number:.6g}"
        return Value(text, {self.name: text})


class Point(NamedTuple):
    """A point that axes span: the label of its value on every axis that it has, and its settings."""

    labels: dict[str, str]
    settings: dict[str, str]


def parse_axis(name: str, written: object) -> Axis:
    """An axis from what a user wrote: a text in the grammar, a list of values, or named sets of settings.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(written, Mapping):
        if not written or not all(isinstance(settings, Mapping) for settings in written.values()):
            raise UsageError(
                f"axes.{name}: a name for each value is needed, and its settings, e.g. {{'a': {{KEY: 1}}}}"
            )
        return Axis(name, tuple(Value(str(label), _settings_of(settings)) for label, settings in written.items()))
    if isinstance(written, np.ndarray):
        written = written.tolist()
    if isinstance(written, Sequence) and not isinstance(written, str):
        written = [as_section(item) for item in written]
        if any(isinstance(item, Mapping) for item in written):
            return _axis_of_sections(name, [item if isinstance(item, Mapping) else {"name": item} for item in written])
        texts = [as_typed(item) for item in written]
    else:
        texts = _texts(name, as_typed(written).strip())
        if isinstance(texts, tuple):
            return Axis(name, (), texts)
    if not texts or len(texts) > MOST or any(not text for text in texts):
        raise _wrong(name, written)
    doubled = [text for i, text in enumerate(texts) if text in texts[:i]]
    if doubled:
        raise UsageError(f"axes.{name}={written}: {doubled[0]} is there twice")
    return Axis(name, tuple(Value(text, {name: text}) for text in texts))


def _axis_of_sections(name: str, sections: Sequence[Mapping[str, object]]) -> Axis:
    """An axis whose values are whole sections, such as cells, called by what tells them apart."""
    typed = [{key: as_typed(value) for key, value in section.items()} for section in sections]
    names = [section.get("name", "").rpartition(":")[2] for section in typed]
    values = []
    for section, called in zip(typed, names, strict=True):
        namesakes = [other for other, its_name in zip(typed, names, strict=True) if its_name == called]
        differing = [f"{k}={v}" for k, v in section.items() if any(other.get(k) != v for other in namesakes)]
        values.append(Value(" ".join([*([called] if called else []), *differing]), {name: _typed_section(section)}))
    doubled = [value.label for i, value in enumerate(values) if value in values[:i]]
    if doubled:
        raise UsageError(f"axes.{name}: {doubled[0]} is there twice")
    return Axis(name, tuple(values))


def _settings_of(written: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Settings by dotted name, as typed; a section with a name of its own, such as a cell, is one of them, and so is
    what is no section, such as the overrides of gates.
    """
    settings: dict[str, str] = {}
    for key, value in written.items():
        path = f"{prefix}{key}"
        if not isinstance(value, Mapping):
            settings[path] = as_typed(value)
        elif "name" not in value and path in _sections():
            settings |= _settings_of(value, f"{path}.")
        else:
            settings[path] = _typed_section({k: as_typed(v) for k, v in value.items()})
    return settings


@functools.cache
def _sections() -> frozenset[str]:
    """The sections of a config, by dotted name."""
    keys = [key.split(".") for key in flatten(Config().to_dict())]
    return frozenset(".".join(parts[:i]) for parts in keys for i in range(1, len(parts)))


def _typed_section(section: Mapping[str, str]) -> str:
    """A whole section as on a command line."""
    return repr({key: value if key == "name" else literal(value, value) for key, value in section.items()})


def zip_axes(axes: Sequence[Axis], names: Sequence[str]) -> list[Axis]:
    """The axes with those of these names made one, that goes through their values side by side.

    Raises:
        UsageError: there is no such axis, one is of repeats, or their lengths differ.
    """
    by_name = {axis.name: axis for axis in axes}
    for name in names:
        check_choice("zip", name, by_name)
        if name in REPEATS:
            raise UsageError(f"zip={','.join(names)}: {name} is repeated, not varied; allowed are other axes")
    joined = [by_name[name] for name in names]
    lengths = {axis.name: len(axis.values) for axis in joined}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise UsageError(f"zip={','.join(names)}: allowed are axes of one length, these have {lengths}")
    values = tuple(
        Value(" & ".join(v.label for v in combined), {k: s for v in combined for k, s in v.settings.items()})
        for combined in zip(*(axis.values for axis in joined), strict=True)
    )
    one = Axis(" & ".join(names), values)
    first = min(i for i, axis in enumerate(axes) if axis.name in names)
    rest = [axis for axis in axes if axis.name not in names]
    return [*rest[:first], one, *rest[first:]]


def span_axes(
    axes: Sequence[Axis],
    base: Mapping[str, object],
    where: Mapping[str, str],
    method: str = GRID,
    count: int = 0,
    seed: int = 0,
) -> list[Point]:
    """The points that axes span, each of them a member of a study.

    Args:
        axes: what varies. An axis whose condition does not hold for a member is not there for it.
        base: settings of the base config by dotted name, which conditions may refer to.
        where: by axis, a condition on the settings of axes before it and of the base; under `"*"` one that members
            must fulfil.
        method: `"grid"`, or `"random"` or `"sobol"` samples, of which there are `count`, repeated over seeds and folds.
            What a search asks for, it asks for by itself.
        count, seed: of the samples.

    Raises:
        UsageError: an axis or a condition is not usable.
    """
    check_choice("sampling.method", method, [name for name in METHODS if name not in SEARCHES])
    base = with_axes(axes, base, where)
    sampled = [axis for axis in axes if method != GRID and axis.name not in REPEATS]
    for axis in axes:
        if axis.span is not None and axis not in sampled:
            raise UsageError(f"axes.{axis.name}: without a count there is no grid; allowed are {GRAMMAR}")
    distinct: dict[tuple[tuple[str, str], ...], Point] = {}
    fractions = _fractions(method, len(sampled), count, seed) if sampled else np.zeros((1, 0))
    for sample in fractions:
        chosen = {axis.name: axis.at(u) for axis, u in zip(sampled, sample, strict=True)}
        for point in points_of(axes, chosen, base, where):
            distinct.setdefault(tuple(sorted(point.settings.items())), point)
    return list(distinct.values())


def with_axes(axes: Sequence[Axis], base: Mapping[str, object], where: Mapping[str, str]) -> dict[str, Any]:
    """The settings that conditions may refer to: those of the base, and None for axes that a member does not have.

    Raises:
        UsageError: a condition is of an axis that there is not.
    """
    names = [axis.name for axis in axes]
    for name in where:
        if name != "*":
            check_choice("where", name, names)
    return {**dict.fromkeys(names), **base}


def points_of(
    axes: Sequence[Axis], chosen: Mapping[str, Value], base: Mapping[str, object], where: Mapping[str, str]
) -> list[Point]:
    """The points of one sample: the chosen value of some axes, and all values of the others.

    Args:
        axes, where: as of `span_axes`.
        chosen: by axis.
        base: as `with_axes` gives it.

    Raises:
        UsageError: they are too many, or a condition is not usable.
    """
    points = [Point({}, {})]
    for axis in axes:
        values = [chosen[axis.name]] if axis.name in chosen else list(axis.values)
        points = [new for point in points for new in _extended(point, axis.name, values, base, where)]
        if len(points) > MOST:
            raise UsageError(f"axes: they span more than {MOST} members")
    if "*" not in where:
        return points
    return [point for point in points if holds(where["*"], {**base, **point.labels, **point.settings})]


def holds(condition: str, settings: Mapping[str, object]) -> bool:
    """Whether a condition holds: comparisons of settings with values, joined by and, or, not.

    Raises:
        UsageError: it is none, or names a setting that there is not.
    """
    try:
        return bool(_evaluate(ast.parse(condition.strip(), mode="eval").body, condition, settings))
    except (SyntaxError, TypeError, ValueError, KeyError) as error:
        if isinstance(error, UsageError):
            raise
        example = "model.init.gate_bias == 'chrono' and optimizer.lr < 0.01"
        raise UsageError(f"where={condition!r}: no condition ({error}); allowed are such as {example}") from error


def _extended(
    point: Point, name: str, values: Sequence[Value], base: Mapping[str, object], where: Mapping[str, str]
) -> list[Point]:
    """A point with each of an axis's values in turn; as it is where the axis is not there for it."""
    if name in where and not holds(where[name], {**base, **point.labels, **point.settings}):
        return [point]
    twice = sorted({key for value in values for key in value.settings} & point.settings.keys())
    if twice:
        raise UsageError(
            f"axes.{name}: sets {twice[0]}, as an axis before it does; allowed is one of them, or a condition for "
            "each, in where"
        )
    return [Point({**point.labels, name: v.label}, {**point.settings, **v.settings}) for v in values]


def _fractions(method: str, dimensions: int, count: int, seed: int) -> np.ndarray:
    if not 1 <= count <= MOST:
        raise UsageError(f"sampling.count={count}: allowed are 1 to {MOST}")
    if method == RANDOM:
        return np.random.default_rng(seed).random((count, dimensions))
    sobol: Any = qmc.Sobol  # its seed is called rng in newer versions, which still take it
    return sobol(dimensions, seed=seed).random_base2(math.ceil(math.log2(count)))[:count]


def _texts(name: str, text: str) -> list[str] | tuple[str, float, float]:
    span = _SPAN.fullmatch(text)
    if span is None and text.count(":") == 2:
        span = _SPAN.fullmatch("lin({},{},{})".format(*text.split(":")))
    if span is not None:
        return _span(name, text, *span.groups())
    items = text.split("|") if "|" in text else text.split(",")
    ranges = [(item.strip(), _RANGE.fullmatch(item.strip())) for item in items]
    texts: list[str] = []
    for item, bounds in ranges:
        if bounds is None:
            texts.append(item)
            continue
        low, high, step = int(bounds[1]), int(bounds[2]), int(bounds[3] or 1)
        if step < 1 or not 0 <= (high - low) // step < MOST:
            raise _wrong(name, text)
        texts += [str(number) for number in range(low, high + 1, step)]
    return texts


def _span(name: str, text: str, scale: str, low: str, high: str, count: str | None) -> Any:
    try:
        ends = float(low), float(high)
        number = None if count is None else int(count)
    except ValueError as error:
        raise _wrong(name, text) from error
    if not all(map(math.isfinite, ends)) or ends[0] >= ends[1] or (scale == "log" and ends[0] <= 0):
        raise UsageError(
            f"axes.{name}={text}: allowed are finite ends, the lower first{', above 0' * (scale == 'log')}"
        )
    if number is None:
        return scale, *ends
    if not 2 <= number <= MOST:
        raise UsageError(f"axes.{name}={text}: allowed are counts from 2 to {MOST}")
    values = np.geomspace(*ends, number) if scale == "log" else np.linspace(*ends, number)
    return [f"{value:.6g}" for value in values]


def _wrong(name: str, written: object) -> UsageError:
    return UsageError(f"axes.{name}={written}: allowed are {GRAMMAR}")


def as_typed(value: object) -> str:
    """A value as on a command line; a class or a function by its reference."""
    if callable(value):
        return reference(value)
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip


def _evaluate(node: ast.expr, condition: str, settings: Mapping[str, object]) -> Any:
    if isinstance(node, ast.BoolOp):
        values = (_evaluate(value, condition, settings) for value in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        value = _evaluate(node.operand, condition, settings)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.Compare):
        if isinstance(node.left, ast.Name) and node.left.id not in settings:
            raise UsageError(f"where={condition!r}: no setting {node.left.id!r}{closest(node.left.id, list(settings))}")
        sides = [_evaluate(side, condition, settings) for side in (node.left, *node.comparators)]
        pairs = zip(node.ops, itertools.pairwise(sides), strict=True)
        return all(_OPERATORS[type(op)](a, b) for op, (a, b) in pairs)
    if isinstance(node, ast.Constant):
        return _literal(node.value)
    if isinstance(node, ast.Tuple | ast.List):
        return [_evaluate(item, condition, settings) for item in node.elts]
    if isinstance(node, ast.Name | ast.Attribute):
        key = ast.unparse(node)
        if key in settings:
            return _literal(settings[key])
        if isinstance(node, ast.Name):
            return _literal(key)  # a bare word is a text
        raise UsageError(f"where={condition!r}: no setting {key!r}{closest(key, list(settings))}")
    raise ValueError(f"{ast.unparse(node)} is no comparison")


def _literal(value: object) -> Any:
    """What a setting or a word of a condition is, whichever way it is written."""
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 1 else list(value)
    if not isinstance(value, str):
        return value
    read = literal({"true": "True", "false": "False", "none": "None"}.get(value.lower(), value), value)
    return list(read) if isinstance(read, tuple) else read
