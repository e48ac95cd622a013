"""The walls of the house: imports run downward only, the core needs JAX alone, and files are of a readable size."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gru_jax import flow

ROOT = Path(__file__).parent.parent
# A room imports those before it.
ORDER = (
    "errors", "dtypes", "norms", "notebook_code", "user_code", "values", "with_arguments", "settings", "runtime",
    "initializers", "cells", "unroll", "flow", "inspect", "data", "tasks", "nn", "deploy", "interop", "config",
    "training", "plotting", "runs", "studies", "experiments",
)  # fmt: skip
LEVELS = {name: level for level, name in enumerate(ORDER)}
CORE = (
    "errors", "dtypes", "norms", "notebook_code", "user_code", "values", "with_arguments", "settings", "initializers",
    "cells", "unroll", "flow", "inspect",
)  # fmt: skip
FOREIGN_TO_CORE = {"flax", "optax", "orbax", "ml_collections", "matplotlib", "tqdm"}
FILES = [p for folder in ("gru_jax", "experiments") for p in sorted((ROOT / folder).rglob("*.py"))]


def room(parts):
    """The part of the house that a dotted name or a path belongs to; None for the front door `gru_jax/__init__.py`."""
    if parts[0] == "experiments":
        return "experiments"
    return parts[1] if len(parts) > 1 and parts[1] != "__init__" else None


def imports(path):
    """Every dotted name a file imports, names imported from packages included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path):
    home = room(path.relative_to(ROOT).with_suffix("").parts)
    for name in imports(path):
        parts = name.split(".")
        if home in CORE or home is None:
            assert parts[0] not in FOREIGN_TO_CORE, f"{path} imports {name}"
        if parts[0] not in ("gru_jax", "experiments") or home is None:
            continue
        target = room(parts)
        if target is None or target == home or target not in LEVELS:
            assert target == home or parts[0] == "gru_jax", f"{path} imports {name}"
            continue
        assert LEVELS[target] < LEVELS[home], f"{path}: {home} imports {target} ({name})"


FREE = {"by_lag", "explosion", "horizon", "log_slope", "to_carry", "to_vector"}  # they read what others measured


@pytest.mark.parametrize("name", [n for n in flow.__all__ if inspect.isfunction(getattr(flow, n)) and n not in FREE])
def test_instruments_say_what_they_cost(name):
    assert "cost" in getattr(flow, name).__doc__.lower()


def test_a_level_for_every_room():
    rooms = {room(p.relative_to(ROOT).with_suffix("").parts) for p in FILES} - {None}
    assert rooms == set(LEVELS)


def test_the_core_runs_with_jax_alone():
    script = (
        "import sys\n"
        f"for name in {sorted(FOREIGN_TO_CORE)!r}: sys.modules[name] = None\n"
        "import jax, jax.numpy as jnp, gru_jax\n"
        "cell = gru_jax.cells.GRU()\n"
        "params = cell.init(jax.random.key(0), 2, 3)\n"
        "assert gru_jax.unroll(cell, params, jnp.ones((1, 4, 2))).hs.shape == (1, 4, 3)\n"
        "assert gru_jax.flow.gate_values(cell, params, jnp.ones((1, 4, 2)))['z'].shape == (1, 4, 3)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_reference_and_the_blocked_unroll_are_independent():
    """Each can be held against the other."""
    unrolling = ROOT / "gru_jax" / "unroll"
    assert not any(name.startswith("gru_jax.unroll.blocked") for name in imports(unrolling / "reference.py"))
    for path in (unrolling / "blocked").glob("*.py"):
        assert not any(name.startswith("gru_jax.unroll.reference") for name in imports(path)), path


def test_sizes_of_files_and_functions():
    for path in FILES:
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_commands_are_thin():
    commands = [*(ROOT / "experiments").glob("*.py"), ROOT / "experiments" / "bench" / "__main__.py"]
    for path in commands:
        if "__name__ ==" in path.read_text():
            assert path.read_text().count("\n") <= 150, path


def strings(tree):
    """Every text in a program that is no docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, documented) and ast.get_docstring(n)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "gru_jax")]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_neither_prints_nor_exits_nor_knows_flags(path):
    tree = ast.parse(path.read_text())
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "sys.exit", "exit"} & set(calls)
    git = {"--error-unmatch", "--porcelain"}
    flags = [text for text in strings(tree) if re.search(r"(?<![\w-])--[a-z]", text) and text not in git]
    assert not flags


COMMAND = {"run", "command", "usage"}  # every command has these


def test_no_two_classes_or_functions_of_one_name():
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            is_public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
            if is_public and (node.name not in COMMAND or path in LIBRARY):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_long_tests_are_there():
    for line in (ROOT / "tests" / "long.txt").read_text().splitlines():
        path, name = line.split("[")[0].split("::")
        assert f"def {name}(" in (ROOT / path).read_text(), line


VAGUE = {"asked", "found", "given", "of", "own", "some", "there", "told"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_locals_say_what_they_hold(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert not VAGUE & (names | {n.arg for n in nodes if isinstance(n, ast.arg)})
