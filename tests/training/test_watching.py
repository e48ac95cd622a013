"""What watches a run: writers beside the JSONL, and traces."""

from __future__ import annotations

import sys
import types

import pytest

from experiments import train
from gru_jax.config import WRITERS as NAMES
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.runs.profiling import Profile
from gru_jax.runs.writers import MODULES, WRITERS, scalars
from tests.training.small import small, timeless


class Recorder:
    """Stands for the writer of either library where it need not be installed; the real ones are in `test_writers`."""

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs, self.told, self.closed, self.summary = args, kwargs, {}, False, {}
        Recorder.last = self

    def add_scalar(self, name, value, step):
        self.told[name, step] = value

    def log(self, values):
        self.told |= {(name, values["step"]): value for name, value in values.items() if name != "step"}

    def define_metric(self, *args, **kwargs):
        pass

    def close(self):
        self.closed = True

    finish = close


@pytest.fixture
def libraries(monkeypatch):
    board = types.ModuleType("tensorboardX")
    board.SummaryWriter = Recorder
    wandb = types.ModuleType("wandb")
    wandb.init, wandb.errors = Recorder, types.SimpleNamespace(Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "tensorboardX", board)
    monkeypatch.setitem(sys.modules, "wandb", wandb)


@pytest.mark.parametrize("name", NAMES)
def test_writers_get_what_the_file_gets(name, libraries, tmp_path, undrawn):
    train.run(small(writers=(name,)), tmp_path / "run")
    lines = RunDir(tmp_path / "run").read_metrics()
    wanted = {(key, line["step"]): value for line in lines for key, value in scalars(line).items()}
    assert Recorder.last.told == wanted
    assert ("valid/loss", 4) in wanted
    assert ("train/steps_per_second", 2) in wanted
    assert Recorder.last.closed


def test_writers_change_nothing_and_may_change(libraries, tmp_path, undrawn):
    train.run(small(), tmp_path / "plain")
    train.run(small(writers=NAMES), tmp_path / "written")
    assert timeless(tmp_path / "plain") == timeless(tmp_path / "written")
    train.run(small(writers=NAMES), tmp_path / "plain")  # the same run


@pytest.mark.parametrize("name", NAMES)
def test_a_writer_that_is_not_installed_is_an_error_before_the_run(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, MODULES[name], None)
    with pytest.raises(UsageError, match=rf"writers={name}: .* is not installed; pip install 'gru_jax\[{name}\]'"):
        train.run(small(writers=(name,)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_writer_has_a_name():
    assert tuple(WRITERS) == tuple(MODULES) == NAMES


@pytest.mark.slow
def test_a_trace_of_some_steps(tmp_path, undrawn):
    train.run(small(), tmp_path / "plain")
    train.run(small(profile="steps:3-7"), tmp_path / "run")
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert timeless(tmp_path / "plain") == timeless(tmp_path / "run")


def test_marks_of_a_trace(tmp_path):
    profile = Profile((3, 7), tmp_path)
    assert [profile.next_mark(step) for step in (0, 2, 6, 7)] == [2, 7, 7, None]
    assert Profile(None, tmp_path).next_mark(0) is None


@pytest.mark.parametrize("text", ["10-20", "steps:20-10", "steps:0-5", "steps:3"])
def test_wrong_profiles_are_named(text):
    with pytest.raises(UsageError, match=rf"profile={text}: allowed are such as steps:10-20"):
        small(profile=text)
