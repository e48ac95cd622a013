"""Classes and functions of a user's own: what they are called, and how they are found again under that name.

What is in a registry is called by its name there. Everything else is called by where it is defined: a file that was
given on a command line, `my_study.py:Parity`, or a module, `mylab.cells:MinimalGatedUnit`. Such a name stands only for
what the user has given to this process: an object from Python, or what a given file defines or imports; and for the
optimisers and schedules of optax. It never makes the process run code, or call what it was not given.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import sys
import traceback
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from gru_jax.errors import ArgumentError, UsageError, in_one_line
from gru_jax.notebook_code import NOTEBOOK, notebook_source

Name = str | Callable[..., Any]
"""What stands for a function or a class in a config: a registered name, a reference, or the function itself."""
FILE = "file "  # begins the names of modules that were made of files
LIBRARY = "optax"  # whose functions need not be given
UNKNOWN = "unknown"
"""The digest of source that cannot be had."""
_given: dict[str, Any] = {}
_digests: dict[str, str] = {}


def import_file(path: Path, argument: str = "code") -> ModuleType:
    r"""The module of a Python file, run once for each of its contents; what it defines and imports may now be named.

    Args:
        path: of the file.
        argument: that gave it, for messages.

    Raises:
        ArgumentError: there is no such file, or it raises something.

    Examples:
        >>> import pathlib, tempfile
        >>> from gru_jax.user_code import import_file, reference
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "mine.py")
        >>> _ = path.write_text("class Parity:\n    pass\n")
        >>> reference(import_file(path).Parity)
        'mine.py:Parity'
        >>> folder.cleanup()
    """
    if path.suffix == ".ipynb":
        raise ArgumentError(
            f"{argument}={path}: a notebook; needed is a Python file, with the classes, which the notebook may import"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArgumentError(f"{argument}={path}: {(error.strerror or 'cannot be read').lower()}") from error
    name, digest = f"{FILE}{path.absolute()}", hashlib.sha256(content).hexdigest()
    if name not in sys.modules or _digests.get(name) != digest:
        _run(name, path, content, argument)
        _digests[name] = digest
    module = sys.modules[name]
    for known, thing in list(_given.items()):  # of another file of this name, or of what stood here before
        if known.startswith(f"{path.name}:") or thing.__module__ == name:
            del _given[known]
    for label, thing in vars(module).items():
        if isinstance(thing, type | types.FunctionType) and not label.startswith("_") and _is_named(thing):
            _given[_name_of(thing)] = thing
            _given[f"{path.stem}:{label}"] = thing  # as a module that imports this file calls it
            _given[f"{NOTEBOOK}:{label}"] = thing  # as a notebook called it that had defined it
    return module


def _run(name: str, path: Path, content: bytes, argument: str) -> None:
    """Make a module of the content of a file."""
    module = ModuleType(name)
    module.__file__ = str(path)
    module.__loader__ = importlib.machinery.SourceFileLoader(name, str(path))
    before = sys.modules.get(name)
    sys.modules[name] = module  # where `typing` and `inspect` look for the module of a class
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # exactly the bytes that the digest is of
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(error, UsageError) or not isinstance(error, Exception):
            raise
        raise ArgumentError(f"{argument}={path}: {describe_error(path, error)}") from error


def describe_error(path: Path, error: Exception) -> str:
    """What a user's file raised, and in which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename in (str(path), str(path.absolute()))]
    return f"{f'line {lines[-1]}: ' if lines else ''}{type(error).__name__}: {in_one_line(error)}"


def reference(thing: Any) -> str:
    """The name of a class or function, by where it is defined; from now on it is found under it.

    Examples:
        >>> import optax
        >>> from gru_jax.user_code import find, reference
        >>> find(reference(optax.adabelief)) is optax.adabelief
        True

    Raises:
        UsageError: it has no name that leads to it alone: a lambda, something that a function returned or defined, a
            class that has been defined again.
    """
    if not _is_named(thing):
        raise UsageError(
            f"{thing!r}: has no name that leads to it; allowed is what def or class defines at the top of a file or a "
            "notebook's cell"
        )
    name = _name_of(thing)
    holder = _attribute(sys.modules.get(thing.__module__ or NOTEBOOK), thing.__qualname__)
    if holder is not None and holder is not thing:
        raise UsageError(f"{thing!r}: its name, {name}, now leads to {holder!r}, which is not the same")
    _given[name] = thing
    return name


def _is_named(thing: object) -> bool:
    return "<" not in getattr(thing, "__qualname__", "<none>")  # <lambda>, <locals>


def _name_of(thing: Any) -> str:
    module = thing.__module__ or NOTEBOOK
    file = getattr(sys.modules.get(module), "__file__", None)
    is_file = module == NOTEBOOK or module.startswith(FILE)
    return f"{Path(file).name if is_file and file else module}:{thing.__qualname__}"


def _attribute(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def is_reference(name: Any) -> TypeGuard[str]:
    """Whether a name is one of `reference`, rather than of a registry."""
    return isinstance(name, str) and ":" in name


def find(name: str) -> Any:
    """What is called by this name; None where the user has not given it to this process.

    Of several files of one name, the one that was given last counts, and of a class that was defined again the new one.
    """
    where, _, path = name.partition(":")
    main = sys.modules[NOTEBOOK]
    if getattr(main, "__spec__", None) is None and where in (NOTEBOOK, Path(getattr(main, "__file__", "")).name):
        thing = _attribute(main, path)  # of a script or a notebook, not of a command
        if getattr(thing, "__module__", None) == NOTEBOOK:
            return thing
    thing = _given.get(name)
    if thing is not None:
        return _attribute(sys.modules.get(thing.__module__ or NOTEBOOK), thing.__qualname__) or thing
    if where.split(".")[0] == LIBRARY and where in sys.modules:
        thing = vars(sys.modules[where]).get(path)
        return thing if getattr(thing, "__module__", None) == where else None
    return None


def look_up(registry: Mapping[str, object], name: Name) -> Any:
    """What a name of a registry, a reference, or a function itself stands for."""
    if callable(name):
        return name
    return registry[name] if name in registry else find(name)


def files_of(things: Iterable[Any]) -> list[str]:
    """The files, as the user gave them, that define classes and functions."""
    modules = {thing.__module__: None for thing in things if str(thing.__module__).startswith(FILE)}
    return [str(sys.modules[module].__file__) for module in modules]


def source_digest(thing: Any) -> str:
    """The sha256 of the file that defines a class or function, as it was loaded; in a notebook, of its source."""
    module = thing.__module__ or NOTEBOOK
    if module == NOTEBOOK and getattr(sys.modules[NOTEBOOK], "__file__", None) is None:
        source = notebook_source(thing.__qualname__.partition(".")[0])
        return UNKNOWN if source is None else hashlib.sha256(source.encode()).hexdigest()
    return _digests.get(module) or _digest_of_module(module)


@functools.cache
def _digest_of_module(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else UNKNOWN
    except OSError:
        return UNKNOWN
