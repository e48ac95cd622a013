"""A run knows its data by their content, and refuses others by name."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from experiments import evaluate, train
from gru_jax.config import changed_data, differences, fingerprint, load
from gru_jax.data import fingerprint as module
from gru_jax.data.fingerprint import fingerprint_of_file
from gru_jax.errors import UsageError
from gru_jax.runs.directory import RunDir
from gru_jax.studies.runner import RunnerOptions, StudyRunner
from gru_jax.studies.study import load_study
from gru_jax.tasks import Arrays

SPLITS = ("train", "valid", "test")


def written(folder, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    splits = {split: (rng.normal(size=(8, 3, 2)), np.arange(8) % classes) for split in SPLITS}
    return Arrays.write(folder, **splits)


def config_of(task):
    return {"task": task, "model": {"hidden": 3}, "train": {"steps": 2, "batch_size": 4}, "flow": {"every": 0}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        train.run(config_of(written(folder / "mine")), folder / "run")
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a run and of its data that a test may change."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "mine", tmp_path / "mine")
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    content["task"]["data_dir"] = str(tmp_path)
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("name", ["valid_targets", "train_xs"])
def test_other_data_are_refused_by_name(done, name, run):
    if not done:
        (run / "run" / "summary.json").unlink()
    path = run / "mine" / f"{name}.npy"
    changed = np.load(path)
    changed[3] = 1 - changed[3]
    before = path.stat()
    np.save(path, changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    task = Arrays(data_dir=str(run), folder="mine")
    with pytest.raises(
        UsageError, match=rf"belongs to a run on other data: mine/{name}\.npy was sha256:\w+, is sha256"
    ):
        train.run(config_of(task), run / "run")
    with pytest.raises(UsageError, match=rf"was trained on other data than there are now, of mine/{name}\.npy$"):
        evaluate.run(run / "run")
    assert not (run / "run" / "checkpoints" / "aside").exists()


def test_a_class_more_is_other_data_and_no_damage(run):
    (run / "run" / "summary.json").unlink()
    task = written(run / "mine", classes=3)
    with pytest.raises(UsageError, match=r"other data: mine/train_targets\.npy was .*; mine/valid_targets\.npy was"):
        train.run(config_of(task), run / "run")
    assert not (run / "run" / "checkpoints" / "aside").exists()


def test_the_same_content_elsewhere_and_later_is_the_same_data(run, undrawn):
    shutil.copytree(run / "mine", run / "copy" / "mine", copy_function=shutil.copyfile)
    shutil.rmtree(run / "mine")
    moved = Arrays(data_dir=str(run / "copy"), folder="mine")
    assert train.run(config_of(moved), run / "run").summary["steps"] == 2
    assert evaluate.run(run / "run", data_dir=str(run / "copy")).equals_stored
    with pytest.raises(UsageError, match=r"than there are now, of mine/train_xs\.npy \(missing\), mine/train_targets"):
        evaluate.run(run / "run")
    for split in SPLITS:
        np.save(run / "copy" / "mine" / f"{split}_lengths.npy", np.full(8, 3))
    with pytest.raises(UsageError, match=r"on other data.*train_lengths\.npy was absent"):
        RunDir(run / "run").inspect(load(config_of(moved)).to_dict())


def test_a_run_of_before_there_were_fingerprints_goes_on(run):
    config = load(config_of(Arrays(data_dir=str(run), folder="mine")))
    old = {key: value for key, value in config.to_dict().items() if key != "data"}
    assert differences(old, config.to_dict()) == []
    assert changed_data(old, config.to_dict()) == []


def test_a_study_refuses_other_data(tmp_path):
    task = written(tmp_path / "mine")
    study = load_study({"base": config_of(task), "axes": {"seed": [0, 1]}})
    runner = StudyRunner(study, tmp_path / "study", RunnerOptions())
    members = {name: {"labels": m.labels, "settings": m.settings} for name, m in runner.members.items()}
    runner.directory.inspect(study.base_config(), members)
    runner.directory.start({**study.to_dict(), "config": study.base_config(), "members": members})
    before = fingerprint(load(config_of(task)))
    written(tmp_path / "mine", seed=1)
    with pytest.raises(UsageError, match=r"belongs to a study on other data: mine/train_xs\.npy was"):
        StudyRunner(study, tmp_path / "study", RunnerOptions()).run()
    assert fingerprint(load(config_of(task))) != before  # members of other data have other names


def test_large_files_are_sampled(tmp_path, monkeypatch):
    path, size = tmp_path / "large", 300_000
    path.write_bytes(np.random.default_rng(0).bytes(size))
    whole = fingerprint_of_file(path)
    assert whole.startswith("sha256:")
    monkeypatch.setattr(module, "WHOLE_BYTES", 100_000)
    monkeypatch.setattr(module, "SAMPLES", 5)
    module._fingerprint.cache_clear()
    sampled = fingerprint_of_file(path)
    assert sampled.startswith("sampled:")
    for place in (0, size - 1, size // 2):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        assert fingerprint_of_file(path) != sampled
        content[place] ^= 1
        path.write_bytes(content)
    assert fingerprint_of_file(path) == sampled
    path.write_bytes(content + b"!")
    assert fingerprint_of_file(path) != sampled


def test_a_wave_that_was_begun_on_other_data_is_refused(tmp_path):
    task = written(tmp_path / "one")
    written(tmp_path / "two")
    study = load_study({"base": config_of(task), "axes": {"task.folder": ["one", "two"]}})
    runner = StudyRunner(study, tmp_path / "study", RunnerOptions())
    runner.directory.new_wave(0, {name: member.config.to_dict() for name, member in runner.members.items()})
    assert len(runner._unfinished()) == 1
    written(tmp_path / "two", seed=1)
    with pytest.raises(UsageError, match=r"waves/0-0000: begun on other data, of two/train_xs\.npy, two/valid_xs\.npy"):
        runner._unfinished()
