"""Write what runs and studies came to, beside what is published, into one page.

usage: python -m experiments.results [DIR ...] [--output docs/results.md]

  DIR ...          directories of runs (experiments.train) or of studies (experiments.ablate) that are done
  --output FILE    the page (default docs/results.md); FILE with the ending .json keeps its rows, so that new runs are
                   added to what is there, and a row whose command is run again is replaced

What others report stands in published.json beside the page, with its sources.

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.results runs/jsb runs/shakespeare
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from experiments import cli
from gru_jax.errors import UsageError
from gru_jax.runtime.files import read_json, replace_file, write_json
from gru_jax.studies.results import Result, merge_results, read_results, results_page

PAGE = Path("docs/results.md")
PUBLISHED = "published.json"
HOST_FLAGS = ("workdir", "config.task.data_dir", "config.devices", "devices", "config.seed", "code", "processes")
"""Flags that say where a command runs, or what is told elsewhere."""


def run(directories: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str] = PAGE) -> list[Result]:
    """Add what runs came to to a page of results, and return its rows; for notebooks.

    Args:
        directories: of runs and studies, or what `train.run` and `ablate.run` gave.
        output: the page.

    Raises:
        UsageError: a directory is neither, or not done, or a file of the page is damaged.
    """
    page = Path(output)
    kept, published = page.with_suffix(".json"), page.with_name(PUBLISHED)
    try:
        old = [Result(**row) for row in read_json(kept)["results"]] if kept.is_file() else []
    except (KeyError, TypeError) as error:
        raise UsageError(f"{kept}: damaged, {error}") from error
    others = (read_json(published) if published.is_file() else {"published": []}).get("published")
    if others is None:
        raise UsageError(f"{published}: has no list 'published'; see gru_jax.studies.results.results_page")
    results = merge_results(old, [result for path in directories for result in read_results(Path(path), tell_command)])
    write_json(kept, {"results": [dataclasses.asdict(result) for result in results]})
    replace_file(page, results_page(results, others).encode())
    return results


def tell_command(task: str, arguments: Sequence[str]) -> tuple[str, str]:
    """A name and the command of a run, from the arguments of its process, without what belongs to a machine.

    Examples:
        >>> from experiments.results import tell_command
        >>> arguments = ["/home/me/experiments/train.py", "--config", "configs/music.py:jsb", "--workdir=/tmp/a"]
        >>> tell_command("music", arguments)
        ('music:jsb', 'python -m experiments.train --config configs/music.py:jsb')
    """
    program = Path(arguments[0])
    if program.parent.name != "experiments":
        return task, "from Python"
    words, name, waiting = ["python", "-m", f"experiments.{program.stem}"], [task], list(arguments[1:])
    while waiting:
        flag, equals, value = waiting.pop(0).partition("=")
        value = value if equals or not waiting or waiting[0].startswith("--") else waiting.pop(0)
        value = Path(value).name if value.startswith("/") else value
        if flag.removeprefix("--") in HOST_FLAGS:
            continue
        words += [f"{flag}={value}"] if equals else [flag, value]
        if flag == "--config":
            name[0] = value.removeprefix("configs/").replace(".py", "")
        elif flag.startswith("--config."):
            name.append(f"{flag.removeprefix('--config.')}={value}")
    return " ".join(name), shlex.join(words)


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    directories, flags = cli.parse_directories(argv, ("output",))
    output = flags.get("output", PAGE)
    print(f"{len(run(directories, output))} results: {output}")
    return 0


def usage() -> str:
    """The text of --help."""
    return __doc__ or ""


if __name__ == "__main__":
    cli.main(command, usage)
