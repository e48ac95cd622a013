"""What runs came to, as the rows of one page, beside what is published."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gru_jax.config import NEUTRAL_KEYS, SOURCES
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.early_stopping import EndReason
from gru_jax.runs.evaluation import read_written_scores
from gru_jax.runs.summary import baselines_of
from gru_jax.runtime.files import Json, read_json
from gru_jax.settings import flatten
from gru_jax.studies.directory import MEMBERS, STUDY_FILE
from gru_jax.studies.study import read_study_file

SEED, FOLD = "seed", "test_fold"
REPEATED = (SEED, f"task.{FOLD}")
"""Keys in which runs differ that are one row."""
TellCommand = Callable[[str, Sequence[str]], tuple[str, str]]
HEAD = """# Results

Test scores of the network that is best in validation, mean and standard deviation over seeds, or over the parts of the
data that were tested on in turn (folds), where there are several.
This page is written by `python -m experiments.results DIR …` from the directories of runs and studies; nothing in it
is typed. Minutes are those of one run, the median over several; members of a study that train side by side share their
time. What is published is of the sources named below, for the network that is said.

| | task | test | seeds or folds | without a network | published | parameters | minutes |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


@dataclasses.dataclass(frozen=True)
class Result:
    """What runs that differ in their seeds, or in the folds of the data that they are tested on, alone came to.

    Attributes:
        known_by: what they are known by, which follows from their config but for seed and fold.
        name: what a reader calls them.
        command: that trains them, but for the directory, and for the seed of a single run.
        task: the section of the config.
        varied: what sets them apart from other members of their study, by axis.
        goal: the metric by which the network is chosen.
        scores: test metrics of that network, by seed, and fold where there are any, as 0 or 0/3; with what
            `experiments.evaluate` had it write, scores of that.
        baselines: how answers without a network score by the goal, by their names.
        parameters: trained numbers in the network.
        minutes: of training, the median over runs.
        device: that it trained on.
        halved: runs beside these that were halved, and left out: those that were not have been chosen by their scores.

    Examples:
        >>> from gru_jax.studies.results import Result
        >>> scores = {"0": {"loss": 8.5}, "1": {"loss": 8.4}}
        >>> Result("a0", "jsb", "…", {"name": "music", "collection": "jsb"}, {}, "loss", scores, {}, 1, 2.0, "cpu").test
        {'loss': '8.45 ± 0.0707'}
    """

    known_by: str
    name: str
    command: str
    task: dict[str, Any]
    varied: dict[str, str]
    goal: str
    scores: dict[str, dict[str, float | None]]
    baselines: dict[str, float]
    parameters: int
    minutes: float
    device: str
    halved: int = 0

    @property
    def label(self) -> str:
        """The run's name, and what was varied."""
        return " ".join([self.name, *(f"{axis}={value}" for axis, value in self.varied.items())])

    @property
    def test(self) -> dict[str, str]:
        """The mean of each test metric over seeds, with the standard deviation where there are several."""
        names = dict.fromkeys(name for metrics in self.scores.values() for name in metrics)
        return {name: self._mean(name) for name in names}

    def _mean(self, name: str) -> str:
        """Of a metric over the runs that have it; None stands in summaries for what is not finite."""
        scores = [metrics[name] for metrics in self.scores.values() if name in metrics]
        values = [score for score in scores if score is not None and math.isfinite(score)]
        if len(values) < len(scores):
            return f"not finite in {len(scores) - len(values)} of {len(scores)}"
        text = f"{statistics.fmean(values):.4g}"
        text += f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
        return text if len(scores) == len(self.scores) else f"{text} ({len(scores)} of {len(self.scores)})"


def read_results(path: Path, tell_command: TellCommand) -> list[Result]:
    """What the runs of a directory came to: those of a study in groups that differ in their seeds alone.

    Args:
        path: of a run that is done, or of a study, of which members count that are done and were not halved.
        tell_command: a name, and the command as one types it, of a task and the arguments of the process that ran it.

    Raises:
        UsageError: it is neither, or damaged.
    """
    if not (path / STUDY_FILE).is_file():
        return [_result([path], {}, tell_command)]
    groups: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    halved: collections.Counter[tuple[tuple[str, str], ...]] = collections.Counter()
    for name, member in read_study_file(path / STUDY_FILE)["members"].items():
        rundir = RunDir(path / MEMBERS / name)
        if not rundir.summary.is_file():
            continue
        varied = tuple((axis, text) for axis, text in member["labels"].items() if axis not in REPEATED)
        if rundir.read_summary()["end_reason"] == EndReason.HALVED:
            halved[varied] += 1
        else:
            groups.setdefault(varied, []).append(rundir.path)
    if not groups:
        raise UsageError(f"{path}: no member is done yet; experiments.ablate goes on with it")
    made = {varied: _result(members, dict(varied), tell_command) for varied, members in groups.items()}
    return [dataclasses.replace(result, halved=halved[varied]) for varied, result in made.items()]


def merge_results(old: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """Results by task: what is the same but for its seeds is one, with the newer score of each seed."""
    merged = {result.known_by: result for result in old}
    for result in new:
        known = merged.get(result.known_by)
        scores = {**(known.scores if known else {}), **result.scores}
        ordered = dict(sorted(scores.items(), key=lambda pair: [int(number) for number in pair[0].split("/")]))
        merged[result.known_by] = dataclasses.replace(result, scores=ordered)
    return sorted(merged.values(), key=lambda result: (result.label, result.command))


def results_page(results: Sequence[Result], published: Sequence[Json]) -> str:
    """The page in Markdown.

    Args:
        results: its rows.
        published: what others report: a dict each, with `task` (settings that a row's must equal), `metric`, `value`,
            `network`, `source` and `url`.
    """
    lines = [_row(number, result, published) for number, result in enumerate(results, 1)]
    commands = [f"{n}. `{result.command}` on {result.device}" for n, result in enumerate(results, 1)]
    cited = [entry for result in results for entry in _published_of(result, published)]
    sources = dict.fromkeys(f"- [{entry['source']}]({entry['url']})" for entry in cited)
    return "\n".join([HEAD + "\n".join(lines), "\n## Commands\n", *commands, "\n## Sources\n", *sources, ""])


def _published_of(result: Result, published: Sequence[Json]) -> list[Json]:
    return [entry for entry in published if all(result.task.get(key) == value for key, value in entry["task"].items())]


def _row(number: int, result: Result, published: Sequence[Json]) -> str:
    baselines = [f"{value:.4g} ({name})" for name, value in result.baselines.items()]
    said = [
        f"{entry['metric']} {entry['value']} ({entry['network']}; {entry['source']})"
        for entry in _published_of(result, published)
    ]
    seeds = str(len(result.scores)) + f", {result.halved} more halved" * bool(result.halved)
    cells = [
        str(number), result.label, "<br>".join(f"{name} {text}" for name, text in result.test.items()), seeds,
        "<br>".join([f"{result.goal}: {', '.join(baselines)}"] if baselines else ["—"]),
        "<br>".join(said) or "—", f"{result.parameters:,}", f"{result.minutes:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _result(paths: Sequence[Path], varied: dict[str, str], tell_command: TellCommand) -> Result:
    for path in paths:
        if not RunDir(path).summary.is_file():
            raise UsageError(f"{path}: not done yet, or no run's directory")
    configs, environments, summaries = (
        [read_json(getattr(RunDir(path), name)) for path in paths] for name in ("config", "env", "summary")
    )
    goal, environment = summaries[0]["goal"][0], environments[0]
    device = environment["device"]
    return Result(
        _digest(configs[0]),
        *tell_command(str(configs[0]["task"]["name"]), environment["command"]),
        {key: value for key, value in configs[0]["task"].items() if key not in ("data_dir", FOLD)},
        varied,
        goal,
        {
            _repetition(config): _scores(RunDir(path), summary)
            for path, config, summary in zip(paths, configs, summaries, strict=True)
        },
        baselines_of(summaries[0], goal),
        summaries[0]["parameters"],
        statistics.median(summary["seconds"] for summary in summaries) / 60,
        f"{device['used']} of {device['count']} {device['kind']} devices, {environment['cpu_count']} cores",
    )


def _scores(rundir: RunDir, summary: Json) -> dict[str, float | None]:
    """The test metrics of a run, not finite where it diverged: its best network is one from before it learnt."""
    scores = {**summary["best"]["test"], **read_written_scores(rundir)}
    return dict.fromkeys(scores) if summary["end_reason"] == EndReason.DIVERGED else scores


def _repetition(config: Json) -> str:
    """Which seed a run has, and on which fold it was tested, if on any."""
    fold = config["task"].get(FOLD)
    return str(config[SEED]) if fold is None else f"{config[SEED]}/{fold}"


def _digest(config: Json) -> str:
    plain = {key: value for key, value in config.items() if key != SOURCES}
    kept = {key: value for key, value in flatten(plain).items() if key not in (*NEUTRAL_KEYS, *REPEATED)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]
