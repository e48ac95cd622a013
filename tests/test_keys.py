"""Every key is explained: in the help of commands and on a page that is never stale."""

from __future__ import annotations

import pytest

from experiments import cli, train
from gru_jax.config import explain_keys, explain_options
from tests.make_keys_page import PAGE, render

OPTIONS = [option for options in explain_options().values() for option in options]
ALL = {**explain_keys(), **{key: one for option in OPTIONS for key, one in option.keys.items()}}


@pytest.mark.parametrize("key", ALL)
def test_every_key_has_a_line(key):
    explained = ALL[key]
    assert len(explained.text) > 10
    assert explained.allowed
    assert 8 < len(explained.line) < 200
    if explained.is_optional:
        assert "None" in explained.line, "what None means"


def test_what_none_means():
    keys = explain_keys()
    assert "a twentieth of the training" in keys["train.eval_steps"].line
    assert keys["train.patience"].line.startswith("validations, not steps")
    assert "the task's length" in keys["model.init.t_max"].line


def test_help_has_a_line_for_each_key():
    lines = train.usage().splitlines()
    for key, explained in explain_keys().items():
        line = next(line for line in lines if line.startswith(f"  --config.{key}="))
        assert explained.line in line
    assert all(f"name={name}" in train.usage() for name in ("mnist", "lstm"))
    assert "what the head sees (auto, last, mean, max, attention, every)" in train.usage()


@pytest.mark.parametrize(
    ("section", "shown", "hidden"),
    [
        ("model.init", ["--config.model.init.gate_bias=same", "allowed: number from 1, or none"], "train.steps"),
        ("--config.train", ["validations, not steps"], "model.init"),
        ("task", ["--config.task.name=mnist", "--config.task.layout=rows", "pixels"], "model.cell"),
        ("model", ["--config.model.hidden=64", "model.cell.name=lstm", "model.init.bias"], "train.steps"),
        ("task.layout", ["28 steps of 28 values"], "task.folds"),
        ("seed", ["--config.seed=0"], "platform"),
    ],
)
def test_help_on_a_section(section, shown, hidden, capsys):
    assert cli.help_on(["--config", "x.py", "--help", section], train.usage) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in shown)
    assert hidden not in printed
    assert "usage:" not in printed


def test_help_on_nothing_and_on_what_there_is_not(capsys):
    for argv in (["--help"], ["-h"], ["--help", "--workdir=x"]):
        assert cli.help_on(argv, train.usage) == 0
        assert "usage: " in capsys.readouterr().out
    assert cli.help_on(["--help", "model.innit"], train.usage) == 2
    assert "did you mean 'model.init'?" in capsys.readouterr().err


def test_the_page_of_keys_is_not_stale():
    assert PAGE.read_text() == render(), "python -m tests.make_keys_page writes it anew"
