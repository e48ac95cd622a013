"""Every public function and class has an example in its docstring, which runs and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import gru_jax

MODULES = (
    "gru_jax", "gru_jax.cells", "gru_jax.unroll", "gru_jax.flow", "gru_jax.flow.theory", "gru_jax.inspect",
    "gru_jax.nn", "gru_jax.interop", "gru_jax.tasks", "gru_jax.config",
)  # fmt: skip


def public_objects():
    """The functions and classes that these modules offer, each once."""
    offered = {}
    for name in MODULES:
        module = importlib.import_module(name)
        defined = [n for n, value in vars(module).items() if getattr(value, "__module__", None) == name]
        for public in getattr(module, "__all__", None) or [n for n in defined if not n.startswith("_")]:
            thing = getattr(module, public)
            is_ours = getattr(thing, "__module__", "").startswith("gru_jax")
            if is_ours and (inspect.isclass(thing) or inspect.isfunction(thing)):
                offered[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return offered


def objects_with_examples():
    """All other functions and classes of the library that have an example."""
    found = {}
    for module in pkgutil.walk_packages(gru_jax.__path__, "gru_jax."):
        for thing in vars(importlib.import_module(module.name)).values():
            is_kind = inspect.isclass(thing) or inspect.isfunction(thing)
            if is_kind and thing.__module__ == module.name and ">>> " in (getattr(thing, "__doc__", None) or ""):
                found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


OBJECTS = {**public_objects(), **objects_with_examples()}


@pytest.mark.parametrize("name", OBJECTS)
def test_its_example_runs(name, capsys):
    example = doctest.DocTestParser().get_doctest(OBJECTS[name].__doc__ or "", {}, name, None, None)
    assert example.examples, "no example in its docstring"
    doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert capsys.readouterr().out == ""


def test_they_are_all_looked_at():
    assert len(OBJECTS) > 80
