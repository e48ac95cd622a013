"""What all commands share: arguments, config files, errors of use, exit codes."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import io
import logging
import platform
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from gru_jax.cells import CELLS
from gru_jax.config import REGISTRIES, Config, load
from gru_jax.errors import UsageError, closest, listing
from gru_jax.settings import Text, describe, flatten
from gru_jax.tasks import TASKS

EXIT_USAGE, EXIT_NON_FINITE, EXIT_INTERRUPTED = 2, 3, 130
DIGITS = 18  # of whole numbers on the command line
PROCESSES = ("coordinator", "processes", "process")
"""Flags that join several processes."""


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

    Raises:
        UsageError: a stray, unknown, repeated or empty argument.
    """
    values: dict[str, str] = {}
    keyed: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    allowed = listing([f"--{flag}" for flag in flags] + [f"--{prefix}.KEY=VALUE" for prefix in prefixes])
    waiting = list(argv)
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


def load_config(spec: str, overrides: Mapping[str, str] | None = None) -> Config:
    """The checked config of a file `path.py` or `path.py:arg`, with overrides by dotted name.

    Raises:
        UsageError: whatever is wrong with the file or with a key, in one line.
    """
    return override(read_config_file(spec), overrides or {})


def override(values: dict[str, Any], overrides: Mapping[str, str]) -> Config:
    """The checked config of nested dicts, with overrides by dotted name.

    Raises:
        UsageError: whatever is wrong with a key, in one line.
    """
    known = [*flatten(Config().to_dict()), *flatten(values)]
    for key, text in overrides.items():
        _override(values, key, text, overrides, known)
    return load(values)


def read_config_file(spec: str) -> dict[str, Any]:
    """What `get_config` of a config file returns, as nested dicts."""
    name, colon, argument = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        folder = path.parent
        present = sorted(str(p) for p in folder.glob("*.py")) if folder.is_dir() else []
        allowed = f"; there are {listing(present)}{closest(name, present)}" if present else ""
        raise UsageError(f"--config={name}: no such file{allowed}")
    arguments = [argument] if colon else []
    try:
        get_config = _import(path).get_config
        inspect.signature(get_config).bind(*arguments)
        config = get_config(*arguments)
    except UsageError:
        raise
    except Exception as error:  # whatever a user's file may raise
        raise UsageError(f"--config={spec}: {_where(error, path)}{type(error).__name__}: {_one_line(error)}") from error
    if not isinstance(config, ConfigDict | Mapping):
        raise UsageError(f"--config={spec}: get_config returned a {type(config).__name__}; allowed is a ConfigDict")
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def main(command: Callable[[Sequence[str]], int], usage: Callable[[], str]) -> None:
    """Run a command with the arguments of this process, and exit as the design says."""
    argv = sys.argv[1:]
    if any(argument in ("--help", "-h") for argument in argv):
        print(usage())
        sys.exit(0)
    remember_compilations()
    for stream in (sys.stdout, sys.stderr):  # paths need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.unraisablehook = _unraisable
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        code = command(argv)
    except UsageError as error:
        code = fail(error, EXIT_USAGE)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        code = fail(f"out of memory; try a smaller train.batch_size or train.eval_batch_size ({error})", EXIT_USAGE)
    except OSError as error:
        code = fail(f"{error.filename or 'input/output'}: {error.strerror or error}", EXIT_USAGE)
    except (MemoryError, RecursionError) as error:
        code = fail(f"too much for this machine: {type(error).__name__} {error}", EXIT_USAGE)
    except KeyboardInterrupt:
        code = fail("interrupted; the same command with the same --workdir goes on", EXIT_INTERRUPTED)
    sys.exit(code)


def _unraisable(what: Any) -> None:
    """Where a save fails, threads of Orbax' store still speak to a loop that is gone; the failure itself is told."""
    if not (isinstance(what.exc_value, RuntimeError) and str(what.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(what)


def join(flags: Mapping[str, str]) -> None:
    """Join several processes, if the flags say so, which must come before JAX is used.

    Raises:
        UsageError: flags that do not go together, or nobody answers.
    """
    together = [name for name in PROCESSES if name in flags]
    if not together:
        return
    if len(together) < len(PROCESSES):
        raise UsageError(f"--{together[0]}: allowed together with {listing([f'--{name}' for name in PROCESSES])}")
    processes, process = whole(flags, "processes", 1), whole(flags, "process", 0)
    if process >= processes:
        raise UsageError(f"--process={process}: allowed are 0 to {processes - 1}, below --processes")
    try:
        jax.distributed.initialize(flags["coordinator"], processes, process)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"--coordinator={flags['coordinator']}: {_one_line(error)}") from error


def whole(flags: Mapping[str, str], name: str, default: int) -> int:
    """A flag that is a whole number.

    Raises:
        UsageError: it is none.
    """
    text = flags.get(name, str(default))
    if not text.isdecimal() or len(text) > DIGITS:
        raise UsageError(f"--{name}={text[:50]}: a whole number is needed here")
    return int(text)


def remember_compilations() -> None:
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


def goes_on(why: object, name: str, argv: Sequence[str], workdir: str) -> str:
    """What is said by a command that was asked to end."""
    words = ["python", "-m", f"experiments.{name}", *argv]
    if not any(word.partition("=")[0] == "--workdir" for word in argv):
        words += ["--workdir", workdir]
    return f"{why}; this goes on from there:\n  {shlex.join(words)}"


def fail(message: object, code: int) -> int:
    """Print one `error:` line and return the exit code."""
    print(f"error: {_one_line(message)}", file=sys.stderr, flush=True)
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
    """Every key of the config with its default and, where it takes a name, the names, a line each."""
    lines = []
    for key, (value, allowed) in describe(Config(), REGISTRIES).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        setting = f"  --config.{key}={shown}"
        lines.append(f"{setting:<46}  {allowed}".rstrip())
    lines.append("\nkeys of each task and cell:")
    for section, options in (("task", TASKS), ("model.cell", CELLS)):
        for name, cls in options.items():
            keys = describe(cls(), {}).items()
            shown = ", ".join(f"{key}={value}" + (f" ({names})" if names else "") for key, (value, names) in keys)
            lines.append(f"  --config.{section}.name={name}: {shown or 'none'}")
    return "\n".join(lines)


def _override(values: dict[str, Any], key: str, text: str, overrides: Mapping[str, str], known: Sequence[str]) -> None:
    *sections, last = key.split(".")
    where: Any = values
    for section in sections:
        where = where.setdefault(section, {})
        if not isinstance(where, dict):
            raise UsageError(f"--config.{key}={text}: {section} is no section{closest(key, known)}")
    if not sections and last not in {k.split(".")[0] for k in known}:
        same = [k for k in known if k.split(".")[-1] == last]
        hint = f"; did you mean {same[0]!r}?" if same else closest(key, known)
        raise UsageError(f"--config.{key}={text}: no such key{hint}")
    where[last] = Text(text)
    # A duration in the other unit that the file gave is replaced, one that the command line gave is a contradiction.
    twin = last.replace("steps", "epochs") if "steps" in last else last.replace("epochs", "steps")
    both = {".".join([*sections, name]) for name in (last, twin)}
    if twin != last and both <= set(known) and not both <= set(overrides) and text.lower() != "none":
        where.pop(twin, None)


def _import(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config={path}: allowed is a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _where(error: Exception, path: Path) -> str:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path.absolute()]
    lines += [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"line {lines[-1]}: " if lines else ""


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
