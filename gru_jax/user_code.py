"""Classes and functions of a user's own: what they are called, and how they are found again under that name.

What is in a registry is called by its name there. Everything else is called by where it is defined: a file that was
given on a command line, `my_study.py:Parity`, or a module, `mylab.cells:MinimalGatedUnit`. Such a name is looked up in
what this process has loaded. It never makes the process run code: that comes from a file that the user gives.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from gru_jax.errors import ArgumentError, UsageError, in_one_line

Name = str | Callable[..., Any]
"""What stands for a function or a class in a config: a registered name, a reference, or the function itself."""
FILE = "file "  # begins the names of modules that were made of files
_seen: dict[str, Any] = {}
_digests: dict[str, str] = {}


def import_file(path: Path, argument: str = "code") -> ModuleType:
    r"""The module of a Python file, run once for each of its contents.

    Args:
        path: of the file.
        argument: that gave it, for messages.

    Raises:
        ArgumentError: there is no such file, or it raises something.

    Example:
        >>> import pathlib, tempfile
        >>> from gru_jax.user_code import import_file, reference
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "mine.py")
        >>> _ = path.write_text("class Parity:\n    pass\n")
        >>> reference(import_file(path).Parity)
        'mine.py:Parity'
        >>> folder.cleanup()
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArgumentError(f"{argument}={path}: {(error.strerror or 'cannot be read').lower()}") from error
    name, digest = f"{FILE}{path.absolute()}", hashlib.sha256(content).hexdigest()
    for known in [known for known in _seen if known.startswith(f"{path.name}:")]:
        del _seen[known]  # of another file of this name, or of what stood here before
    if name in sys.modules and _digests.get(name) == digest:
        sys.modules[name] = sys.modules.pop(name)  # `find` begins at the end
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{argument}={path}: allowed is a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # where `typing` and `inspect` look for the module of a class
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(error, UsageError) or not isinstance(error, Exception):
            raise
        raise ArgumentError(f"{argument}={path}: {describe_error(path, error)}") from error
    _digests[name] = digest
    return module


def describe_error(path: Path, error: Exception) -> str:
    """What a user's file raised, and in which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename in (str(path), str(path.absolute()))]
    return f"{f'line {lines[-1]}: ' if lines else ''}{type(error).__name__}: {in_one_line(error)}"


def reference(thing: Any) -> str:
    """The name of a class or function, by where it is defined; from now on it is found under it.

    Example:
        >>> import optax
        >>> from gru_jax.user_code import find, reference
        >>> find(reference(optax.adabelief)) is optax.adabelief
        True

    Raises:
        UsageError: it has no name, as a `functools.partial`.
    """
    if not hasattr(thing, "__qualname__"):
        raise UsageError(f"{thing!r}: has no name of its own; allowed is a class or a function, such as def makes")
    module = thing.__module__ or "__main__"
    file = getattr(sys.modules.get(module), "__file__", None)
    is_file = module == "__main__" or module.startswith(FILE)
    where = Path(file).name if is_file and file else module
    name = f"{where}:{thing.__qualname__}"
    _seen[name] = thing
    return name


def is_reference(name: Any) -> TypeGuard[str]:
    """Whether a name is one of `reference`, rather than of a registry."""
    return isinstance(name, str) and ":" in name


def find(name: str) -> Any:
    """What is called by this name; None where this process has not loaded it.

    Of several files of one name, the one that was given last counts, and of a class that was defined again the new one.
    """
    where, _, path = name.partition(":")
    seen = _seen.get(name)
    modules = [] if seen is None else [sys.modules.get(seen.__module__)]
    if seen is None:
        modules += [sys.modules.get(where)]
        modules += [m for key, m in reversed(list(sys.modules.items())) if _is_file(key, m, where)]
    for module in modules:
        thing: Any = module
        for part in path.split("."):
            thing = getattr(thing, part, None)
        if thing is not None:
            return thing
    return seen


def look_up(registry: Mapping[str, Any], name: Name) -> Any:
    """What a name of a registry, a reference, or a function itself stands for."""
    if callable(name):
        return name
    return registry[name] if name in registry else find(name)


def _is_file(key: str, module: Any, where: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and (key == "__main__" or key.startswith(FILE)) and Path(file).name == where


def source_digest(thing: Any) -> str:
    """The sha256 of the file that defines a class or function, as it was loaded; in a notebook, of its own lines."""
    if thing.__module__ in _digests:
        return _digests[thing.__module__]
    return _digest_of(thing)


@functools.cache
def _digest_of(thing: Any) -> str:
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    try:
        content = Path(file).read_bytes() if file else inspect.getsource(thing).encode()
    except (OSError, TypeError):  # typed at a prompt, or made by code
        return "unknown"
    return hashlib.sha256(content).hexdigest()
