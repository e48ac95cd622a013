"""Classes that a notebook defines: that they have changed is seen, and where they are found in another process."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

import gru_jax
from experiments import ablate, evaluate, train
from gru_jax.cells import GRU, Cell
from gru_jax.config import load
from gru_jax.errors import ArgumentError, UsageError
from gru_jax.user_code import UNKNOWN, find, import_file, reference, source_digest

CELL = """
import dataclasses
import functools
import jax
import jax.numpy as jnp
from gru_jax.cells import Cell

def squash(x):
    return jnp.tanh(x)

@dataclasses.dataclass(frozen=True)
class Base(Cell):
    scale: float = 1.0
    input_gates = ("f", "n")

    @property
    def recurrent_gates(self):
        return ("f", "n")

@dataclasses.dataclass(frozen=True)
class Mine(Base):
    shift: float = 0.0

    def equations(self, dense, carry, u):
        f = jax.nn.sigmoid(u["f"] + dense("f", carry) + self.shift)
        n = squash(u["n"] + self.scale * dense("n", f * carry))
        return (1.0 - f) * carry + f * n, {"f": f}
"""


@pytest.fixture
def notebook(monkeypatch):
    """Runs a cell as IPython does, in a main module without a file, and gives what is defined then."""
    main = ModuleType("__main__")
    main.In = [""]
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run_cell(source):
        main.In.append(source)
        exec(source, main.__dict__)
        return main

    return run_cell


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("+ self.shift", "- self.shift"),
        ("jnp.tanh(x)", "jnp.sin(x)"),  # of a function that it calls
        ("scale: float = 1.0", "scale: float = 2.0"),  # of its base
        ('return ("f", "n")', 'return ("n", "f")'),  # of a property
        ("shift: float = 0.0", "shift: float = 0.5"),
    ],
)
def test_a_change_in_a_notebook_changes_the_digest(notebook, old, new):
    before = source_digest(notebook(CELL).Mine)
    assert before != UNKNOWN
    assert source_digest(notebook(CELL).Mine) == before  # the cell was run again
    assert old in CELL
    assert source_digest(notebook(CELL.replace(old, new)).Mine) != before


USED = [  # what a method may use of a notebook, and the same otherwise
    ("helper = 1", "helper = 2"),
    ("helper = [1]", "helper = [2]"),
    ("import jax\n@jax.jit\ndef helper(x):\n    return x", "import jax\n@jax.jit\ndef helper(x):\n    return -x"),
    ("import functools\nhelper = functools.partial(max, 1)", "import functools\nhelper = functools.partial(max, 2)"),
    ("def make(k):\n    return lambda: k\nhelper = make(1)", "def make(k):\n    return lambda: k\nhelper = make(2)"),
    ("class helper:\n    pass\nhelper.k = 1", "class helper:\n    pass\nhelper.k = 2"),
    ("for k in (1, 2):\n    helper = k", "for k in (1, 3):\n    helper = k"),
]


@pytest.mark.parametrize(("old", "new"), USED)
@pytest.mark.parametrize("use", ["helper", "[helper for _ in range(2)]", "lambda: helper", "(lambda k=helper: k)()"])
def test_a_change_of_what_a_class_uses_changes_the_digest(notebook, old, new, use):
    """Though only the cell of the helper was run again."""
    notebook(old)
    thing = notebook(f"class Mine:\n    def f(self):\n        return {use}").Mine
    before = source_digest(thing)
    notebook(old)
    assert source_digest(thing) == before
    notebook(new)
    assert source_digest(thing) != before
    notebook(old)
    if not old.startswith("for "):  # a loop changes a name, whatever it was before
        assert source_digest(thing) == before


@pytest.mark.parametrize(
    "cell",
    [
        "def mean(rows):\n    return 0",  # a method of arrays is called so too
        "x = 3\n!ls",  # no Python
        "other = Mine()",
        "class Mine:  # a remark\n    gates = (('r', abs),)\n\n    def f(self, x):\n        return x.mean()",
    ],
)
def test_what_a_class_does_not_use_changes_no_digest(notebook, cell):
    thing = notebook("class Mine:\n    gates = (('r', abs),)\n    def f(self, x):\n        return x.mean()").Mine
    before = source_digest(thing)
    sys.modules["__main__"].In.append(cell)
    assert source_digest(thing) == before


def test_what_a_notebook_defines_now_is_what_its_names_lead_to(notebook, tmp_path):
    mine = notebook("import os\nclass Mine:\n    pass").Mine
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n\nclass Other:\n    pass\n")
    module = import_file(tmp_path / "mine.py")
    assert find("__main__:Mine") is mine
    assert find("__main__:Other") is module.Other
    assert find("__main__:os.system") is None
    (tmp_path / "mine.py").write_text("class Mine:\n    pass\n")
    import_file(tmp_path / "mine.py")
    assert [find(f"{where}:Other") for where in ("mine.py", "mine", "__main__")] == [None, None, None]


def test_runs_of_a_class_that_has_changed_say_so(notebook, tmp_path, capsys, undrawn):
    task = {"name": "adding", "length": 5, "test_size": 8}
    base = {"task": task, "model": {"hidden": 4}, "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0}}
    with_cell = {**base, "model": {"hidden": 4, "cell": notebook(CELL).Mine()}}
    train.run(with_cell, tmp_path / "run")
    study = {"base": with_cell, "axes": {"seed": [0]}}
    ablate.run(study, tmp_path / "study")
    capsys.readouterr()
    train.run(with_cell, tmp_path / "run")
    assert "results may differ" not in capsys.readouterr().out
    with_cell["model"]["cell"] = notebook(CELL.replace("jnp.tanh", "jnp.sin")).Mine()
    train.run(with_cell, tmp_path / "run")
    said = capsys.readouterr().out
    assert "results may differ: __main__:Mine" in said
    assert "already done; other code takes another directory" in said
    ablate.run({"base": with_cell, "axes": {"seed": [0, 1]}}, tmp_path / "study")
    assert "others than 1 of the members were made with; results may differ: __main__:Mine" in capsys.readouterr().out


def test_what_was_typed_at_a_prompt_is_said_to_be_unknown(monkeypatch, tmp_path, capsys, undrawn):
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(CELL, main.__dict__)  # of which Python keeps no lines
    assert source_digest(main.Mine) == UNKNOWN
    config = {
        "task": {"name": "adding", "length": 5, "test_size": 8}, "model": {"hidden": 4, "cell": main.Mine()},
        "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0},
    }  # fmt: skip
    train.run(config, tmp_path / "run")
    assert "not known" not in capsys.readouterr().out
    train.run(config, tmp_path / "run")
    assert "still what this run was made with is not known: __main__:Mine" in capsys.readouterr().out
    ablate.run({"base": config, "axes": {"seed": [0]}}, tmp_path / "study")
    capsys.readouterr()
    ablate.run({"base": config, "axes": {"seed": [0, 1]}}, tmp_path / "study")
    assert "still what 1 members were made with is not known: __main__:Mine" in capsys.readouterr().out


def test_a_class_of_a_notebook_is_found_in_a_file_that_is_given(notebook, tmp_path, monkeypatch, caplog, undrawn):
    config = {
        "task": {"name": "adding", "length": 5, "test_size": 8}, "model": {"hidden": 4, "cell": notebook(CELL).Mine()},
        "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0},
    }  # fmt: skip
    metrics = train.run(config, tmp_path / "run").summary["best"]["test"]
    stored = load(config).to_dict()
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # as in another process
    monkeypatch.setattr("gru_jax.user_code._given", {})
    with pytest.raises(ArgumentError, match="__main__:Mine was defined in a notebook or at a prompt: run that cell"):
        load(stored)
    (tmp_path / "mine.py").write_text(CELL)
    run = gru_jax.open(tmp_path / "run", code=tmp_path / "mine.py")
    assert type(run.config.model.cell).__name__ == "Mine"
    assert "still what this run was made with is not known: __main__:Mine" in caplog.text
    assert evaluate.run(run).metrics == metrics


def test_a_notebook_is_no_file_of_code(tmp_path):
    (tmp_path / "study.ipynb").write_text("{}")
    with pytest.raises(ArgumentError, match=r"study.ipynb: a notebook; needed is a Python file"):
        import_file(tmp_path / "study.ipynb")


def test_a_class_without_its_decorator_is_refused():
    class Lost(GRU):
        shift: float = 0.0

    with pytest.raises(UsageError, match=r"Lost: shift is no setting of it; above the class is needed @dataclasses"):
        Lost()

    class Plain(GRU):  # which adds no setting
        input_gates = ("r", "z", "n")

    assert isinstance(Plain(), Cell)


def test_a_run_stands_for_its_path(tmp_path, undrawn):
    base = {"task": {"name": "adding", "length": 5, "test_size": 8}, "model": {"hidden": 4},
            "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0}}  # fmt: skip
    first = train.run(base, tmp_path / "first")
    second = train.run({**base, "train": {**base["train"], "init_from": first}}, tmp_path / "second")
    assert second.config.train.init_from == str(first.path)


def test_names_lead_back(notebook):
    thing = notebook(CELL).Mine
    assert find(reference(thing)) is thing


def test_a_notebook_shows_an_error_of_use_as_one_line():
    assert UsageError("steps=0: allowed are …")._render_traceback_() == ["UsageError: steps=0: allowed are …"]
