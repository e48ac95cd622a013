"""What all commands share: arguments, errors of use, exit codes, messages."""

from __future__ import annotations

import ast
import contextlib
import datetime
import functools
import hashlib
import io
import itertools
import logging
import platform
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from gru_jax.config import KeyExplanation, explain_keys, explain_options, keys_below, split_spec
from gru_jax.errors import ArgumentError, UsageError, closest, in_one_line, listing
from gru_jax.runtime.devices import use_all_cores
from gru_jax.runtime.processes import is_main_process, join_processes
from gru_jax.training.decoding import Search
from gru_jax.user_code import import_file
from gru_jax.values import Text, scalar_of, split_list

EXIT_USAGE, EXIT_NON_FINITE, EXIT_PREEMPTED, EXIT_INTERRUPTED = 2, 3, 75, 130  # 75: EX_TEMPFAIL, try again
MOST_EXIT = 255
SIGTERM_EXIT = "sigterm-exit"
OUT_OF_MEMORY = (
    "out of memory; try a larger train.accumulate, by which a batch is computed in parts, or a smaller "
    "train.eval_batch_size, with which the same directory goes on, or a smaller train.batch_size in a new one"
)
GREATEST = 10**18  # whole number on the command line
PROCESSES = ("coordinator", "processes", "process")
"""Flags that join several processes."""
CODE = "code"
SEARCH_FLAGS = ("beam_size", "length_penalty")
HELP = ("--help", "-h")
SHORT = 80  # characters of a list of names that is shown beside a key


def parse(argv: Sequence[str], flags: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The named flags, and the overrides `--config.a.b=value`; see `parse_all`."""
    values, keyed = parse_all(argv, flags, ("config",) if "config" in flags else ())
    return values, keyed.get("config", {})


def parse_all(
    argv: Sequence[str], flags: Sequence[str], prefixes: Sequence[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Split arguments into the named flags and, by prefix, the values by key `--prefix.a.b=value`.

    Args:
        argv: arguments, as `--name=value` or `--name value`.
        flags: names that are allowed.
        prefixes: of keys that are allowed.

    Every command takes `--code FILE.py[,FILE.py]` too, see `load_code`.

    Raises:
        UsageError: a stray, unknown, repeated or empty argument.
    """
    values: dict[str, str] = {}
    keyed: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    allowed = listing([f"--{flag}" for flag in flags] + [f"--{prefix}.KEY=VALUE" for prefix in prefixes])
    flags, waiting = (*flags, CODE), list(argv)
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("--"):
            hint = f"; did you mean '--{argument}'?" if "=" in argument else ""
            raise UsageError(f"{argument!r}: stray argument; allowed are {allowed}{hint}")
        name, equals, value = argument[2:].partition("=")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise UsageError(f"--{name}: a value is needed, --{name}=VALUE")
            value = waiting.pop(0)
        prefix, dot, key = name.partition(".")
        if name not in flags and not (dot and prefix in prefixes):
            raise UsageError(f"--{name}: no such flag; allowed are {allowed}{closest(name, flags)}")
        if not value:
            raise UsageError(f"--{name}=: a value is needed")
        target, key = (values, name) if name in flags else (keyed[prefix], key)
        if key in target:
            raise UsageError(f"--{name}={value}: given twice")
        target[key] = value
    return values, keyed


def parse_directories(argv: Sequence[str], flags: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Directories, which come first, and the named flags.

    Raises:
        UsageError: there is no such directory, or as of `parse_all`.
    """
    directories = list(itertools.takewhile(lambda argument: not argument.startswith("--"), argv))
    values, _ = parse(argv[len(directories) :], flags)
    for name in directories:
        if not Path(name).is_dir():
            raise UsageError(f"{name}: no such directory")
    return directories, values


def names_flags(command: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """A command whose errors name flags where those of the library name arguments."""

    @functools.wraps(command)
    def named(argv: Sequence[str]) -> int:
        try:
            return command(argv)
        except ArgumentError as error:
            raise UsageError(f"--{error}") from error

    return named


def main(command: Callable[[Sequence[str]], int], usage: Callable[[], str]) -> None:
    """Run a command with the arguments of this process, and exit as the design says."""
    argv = sys.argv[1:]
    if any(argument in HELP for argument in argv):
        sys.exit(help_on(argv, usage))
    keep_compiled_programs()
    use_all_cores()
    for stream in (sys.stdout, sys.stderr):  # paths need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.unraisablehook = _unraisable
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        with printed_messages():
            code = command(argv)
    except UsageError as error:
        code = fail(error, EXIT_USAGE)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        code = fail(f"{OUT_OF_MEMORY} ({error})", EXIT_USAGE)
    except OSError as error:
        code = fail(f"{error.filename or 'input/output'}: {error.strerror or error}", EXIT_USAGE)
    except (MemoryError, RecursionError) as error:
        code = fail(f"too much for this machine: {type(error).__name__} {error}", EXIT_USAGE)
    except KeyboardInterrupt:
        code = fail("interrupted; the same command with the same --workdir goes on", EXIT_INTERRUPTED)
    sys.exit(code)


def help_on(argv: Sequence[str], usage: Callable[[], str]) -> int:
    """Print what a command is for or, where `--help` is followed by a section of the config, what is in that."""
    following = [argument for flag, argument in itertools.pairwise(argv) if flag in HELP]
    section = following[0].removeprefix("--").removeprefix("config.") if following else ""
    try:
        print(describe_section(section) if section and "=" not in section else usage())
    except UsageError as error:
        return fail(f"--help {error}", EXIT_USAGE)
    return 0


class _Printer(logging.Handler):
    """Prints messages as they are, to whatever standard output is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), flush=True)


@contextlib.contextmanager
def printed_messages() -> Iterator[None]:
    """Print what the library says, while this lasts; inside another one nothing more is done."""
    logger = logging.getLogger("gru_jax")
    if any(isinstance(handler, _Printer) for handler in logger.handlers):
        yield
        return
    printer, level, propagate = _Printer(), logger.level, logger.propagate
    logger.addHandler(printer)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(printer)
        logger.setLevel(level)
        logger.propagate = propagate


def print_once(line: str) -> None:
    """Print a line, in the main process alone."""
    if is_main_process():
        print(line, flush=True)


def _unraisable(what: Any) -> None:
    """Where a save fails, threads of Orbax' store still speak to a loop that is gone; the failure itself is told."""
    if not (isinstance(what.exc_value, RuntimeError) and str(what.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(what)


def load_code(flags: Mapping[str, str]) -> None:
    """Load the files of `--code`, whose classes and functions configs may then name; after JAX is set up."""
    for path in paths_of(flags[CODE]) if CODE in flags else ():
        import_file(Path(path))


def join(flags: Mapping[str, str]) -> None:
    """Join several processes, if the flags say so, which must come before JAX is used.

    Raises:
        UsageError: flags that do not go together, or nobody answers.
    """
    present = [name for name in PROCESSES if name in flags]
    if not present:
        return
    if len(present) < len(PROCESSES):
        raise UsageError(f"--{present[0]}: allowed together with {listing([f'--{name}' for name in PROCESSES])}")
    processes, process = whole_number(flags, "processes", 1), whole_number(flags, "process", 0)
    if process >= processes:
        raise UsageError(f"--process={process}: allowed are 0 to {processes - 1}, below --processes")
    join_processes(flags["coordinator"], processes, process)


def whole_number(flags: Mapping[str, str], name: str, default: int) -> int:
    """A flag that is a whole number.

    Raises:
        UsageError: it is none.
    """
    text = flags.get(name, str(default))
    try:
        number = scalar_of(name, Text(text), int)
    except UsageError:
        number = -1
    if not 0 <= number < GREATEST:
        raise UsageError(f"--{name}={text[:50]}: a whole number is needed here")
    return number


def parse_search(flags: Mapping[str, str]) -> Search | None:
    """How a decoder looks for what it writes; None where no flag says anything."""
    if not any(name in flags for name in SEARCH_FLAGS):
        return None
    beam_size, text = whole_number(flags, "beam_size", 5), flags.get("length_penalty", "1")
    try:
        return Search(beam_size, float(text))
    except ValueError:
        raise ArgumentError(f"length_penalty={text}: allowed are numbers from 0") from None


def paths_of(text: str) -> list[str]:
    """The paths of a flag that takes several, with commas; what exists under the whole text is one."""
    return [text] if Path(text).exists() else split_list(text)


def keep_compiled_programs() -> None:
    """Keep compiled programs in `~/.cache/gru_jax/xla`, or where `JAX_COMPILATION_CACHE_DIR` says.

    Programs for a CPU may use all that it can do: each kind of CPU has a folder of its own.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    cpuinfo = Path("/proc/cpuinfo")
    flags = (
        {line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features", "model name"))}
        if (cpuinfo.exists())
        else {platform.processor()}
    )
    kind = hashlib.sha256(" ".join([platform.machine(), *sorted(flags)]).encode()).hexdigest()[:12]
    folder = Path("~/.cache/gru_jax/xla").expanduser() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written: programs are compiled anew, as without a cache
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def sigterm_exit(flags: Mapping[str, str]) -> int:
    """The exit code of a command that was asked to end and has more to do.

    Raises:
        UsageError: the flag for it is no exit code.
    """
    code = whole_number(flags, SIGTERM_EXIT, EXIT_PREEMPTED)
    if code > MOST_EXIT:
        raise UsageError(f"--{SIGTERM_EXIT}={code}: allowed are exit codes, 0 to {MOST_EXIT}")
    return code


def workdir_of(flags: Mapping[str, str]) -> str:
    """The directory that `--workdir` names; else one below `runs/`, called by the config file and the time."""
    stem = Path(split_spec(flags["config"])[0]).stem
    return flags.get("workdir") or f"runs/{stem}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def goes_on(why: object, name: str, argv: Sequence[str], workdir: str) -> str:
    """What is said by a command that was asked to end."""
    words = ["python", "-m", f"experiments.{name}", *argv]
    if not any(word.partition("=")[0] == "--workdir" for word in argv):
        words += ["--workdir", workdir]
    return f"{why}; this goes on from there:\n  {shlex.join(words)}"


def fail(message: object, code: int) -> int:
    """Print one `error:` line and return the exit code."""
    print(f"error: {in_one_line(message)}", file=sys.stderr, flush=True)
    return code


def describe_configs(folder: Path) -> str:
    """A line for each config file of a folder: its path and the first line of its docstring."""
    lines = []
    for path in sorted(folder.glob("*.py")):
        try:
            summary = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
        except SyntaxError as error:
            summary = f"(not valid Python, line {error.lineno})"
        lines.append(f"  {folder.name}/{path.name:<20} {summary}")
    return "\n".join(lines)


def describe_keys() -> str:
    """Every key of the config with its default and what it means, a line each."""
    lines = [_in_a_line(explained) for explained in explain_keys().values()]
    lines.append("\nkeys of each task and cell:")
    for section, options in explain_options().items():
        for option in options:
            shown = ", ".join(f"{key.rpartition('.')[2]}={_typed(one.default)}" for key, one in option.keys.items())
            lines.append(f"  --config.{section}.name={option.name}: {shown or 'none'}")
    lines.append("\n--help SECTION, as --help model.init or --help task, tells more of each key")
    return "\n".join(lines)


def describe_section(prefix: str) -> str:
    """All that is known of the keys of a section, or of one key.

    Raises:
        UsageError: there is no such section.
    """
    parts = [_in_full(explained) for explained in keys_below(prefix).values() if not _is_of_option(explained.key)]
    for section, options in explain_options().items():
        if section == prefix or section.startswith(f"{prefix}."):
            for option in options:
                parts.append(f"--config.{section}.name={option.name}\n    {option.text}")
                parts += [textwrap.indent(_in_full(explained), "  ") for explained in option.keys.values()]
    return "\n".join(parts or [_in_full(explained) for explained in keys_below(prefix).values()])


def _is_of_option(key: str) -> bool:
    """Whether a key is one of a task's or a cell's own."""
    section, _, name = key.rpartition(".")
    return section in explain_options() and name != "name"


def _typed(value: object) -> str:
    """A value as it is typed on a command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _in_a_line(explained: KeyExplanation) -> str:
    setting = f"  --config.{explained.key}={_typed(explained.default)}"
    names = f" ({explained.allowed})" * (explained.is_named and len(explained.allowed) < SHORT)
    return f"{setting:<46}  {explained.line}{names}".rstrip()


def _in_full(explained: KeyExplanation) -> str:
    allowed = explained.allowed + ", or none" * explained.is_optional
    texts = [*textwrap.wrap(explained.text, 112), *textwrap.wrap(f"allowed: {allowed}", 112)]
    return "\n    ".join([f"--config.{explained.key}={_typed(explained.default)}", *texts])
