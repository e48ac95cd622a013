"""Runs that several tests look at."""

from __future__ import annotations

import shutil

import pytest

from experiments import train
from gru_jax.runs.single import SingleRun
from tests.programs import compiled_once
from tests.training.killing import struck
from tests.training.small import small


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    with compiled_once():
        train.run(small(), path)
    return path


@pytest.fixture(scope="session")
def half(tmp_path_factory):
    """A run that was killed right after its checkpoint of step 8; that of step 4 is there too."""
    path = tmp_path_factory.mktemp("runs") / "half"
    with compiled_once(), struck(pytest.MonkeyPatch(), SingleRun, "_save", 3):  # of steps 0, 4 and 8
        train.run(small(), path)
    return path


@pytest.fixture
def started(half, tmp_path):
    shutil.copytree(half, tmp_path / "run")
    return tmp_path / "run"
