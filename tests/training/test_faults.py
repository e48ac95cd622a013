"""Faults of machines: asked to end, damaged checkpoints, full disks, two processes, moved directories, odd clocks."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import gru_jax
from experiments import cli, replay, report, train
from gru_jax.config import load
from gru_jax.errors import UsageError
from gru_jax.runs.checkpoints import BEST, CHECKSUMS, LATEST, QUARANTINE, Checkpoints, DamagedError
from gru_jax.runs.diagnosis import NonFiniteError
from gru_jax.runs.directory import RunDir
from gru_jax.runtime.locks import LOCK, lock_directory
from gru_jax.runtime.preemption import PreemptedError, watch_for_sigterm
from gru_jax.tasks import Arrays
from tests.training.small import small
from tests.training.test_resume import same_run

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.usefixtures("compiled_once")


# Asked to end


def asked_after(calls):
    """A stand-in for `watch_for_sigterm` that says yes after so many questions."""
    left = [calls]

    @contextlib.contextmanager
    def stand_in():
        def asked():
            left[0] -= 1
            return left[0] < 0

        yield asked

    return stand_in


def test_asked_to_end_at_any_call_and_gone_on_with(tmp_path, monkeypatch, uninterrupted, undrawn):
    ends = []
    for calls in (0, 1, 0, 2):
        with monkeypatch.context() as patch:
            patch.setattr("gru_jax.runs.train.watch_for_sigterm", asked_after(calls))
            with pytest.raises(PreemptedError, match=r"step \d+ of 12 is saved"):
                train.run(small(), tmp_path / "run")
        ends.append(max(int(p.name) for p in (tmp_path / "run" / "checkpoints" / LATEST).iterdir()))
    assert len(set(ends)) == 4
    assert any(end % 4 for end in ends)  # not only where there is a validation anyway
    train.run(small(), tmp_path / "run")
    same_run(uninterrupted, tmp_path / "run")


def test_sigterm_is_seen_and_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with watch_for_sigterm() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_saves_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "experiments.train", "--config", "configs/quickstart.py",
               "--config.task.length=20", "--config.task.test_size=64", "--config.task.valid_size=64"]  # fmt: skip
    process = subprocess.Popen(
        [*command, "--workdir", str(tmp_path / "run")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and '"train"' in metrics.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == cli.EXIT_PREEMPTED
    assert "this goes on from there:\n  python -m experiments.train --config configs/quickstart.py" in out
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not (tmp_path / "run" / LOCK).exists()


# Damaged checkpoints


def files_of(checkpoint):
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def newest(run, **changes):
    """The step of the newest checkpoint that is whole, as a resume finds it."""
    config = small(**changes)
    from tests.training.test_instruments import started as trainer_of

    state = trainer_of(config)[1]
    with cli.printed_messages():
        checkpoints = Checkpoints(run / "checkpoints", jax.devices()[0], keep=2)
        found = checkpoints.newest(LATEST, jax.eval_shape(lambda: state).to_dict())
    checkpoints.close()
    return None if found is None else found[0]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_any_damaged_file_is_noticed(damage, half, tmp_path, capsys):
    """Of every file in turn."""
    names = [path.relative_to(half) for path in files_of(half / "checkpoints" / LATEST / "8")]
    for i, name in enumerate(names):
        run = tmp_path / str(i)
        shutil.copytree(half, run)
        path = run / name
        if damage == "missing":
            path.unlink()
        elif damage == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            flip(path)
        assert newest(run) == 4
        out = capsys.readouterr().out
        assert f"{LATEST}/8: damaged ({name.relative_to(f'checkpoints/{LATEST}/8')} is " in out
        assert "the one before it is used" in out
        assert len(files_of(run / "checkpoints" / QUARANTINE / f"{LATEST}-8")) == len(names) - (damage == "missing")
        shutil.rmtree(run)


def test_all_checkpoints_damaged_begins_anew(started, uninterrupted, capsys, undrawn):
    for path in (started / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    train.run(small(), started)
    assert "kept as" in capsys.readouterr().out
    assert {p.name for p in (started / "checkpoints" / QUARANTINE).iterdir()} >= {f"{LATEST}-8", f"{LATEST}-4"}
    same_run(uninterrupted, started)


def test_a_resume_from_the_one_before_gives_the_same_bits(started, uninterrupted, capsys, undrawn):
    for path in files_of(started / "checkpoints" / LATEST / "8" / "state"):
        flip(path)
    train.run(small(), started)
    assert "resuming at step 4 of 12" in capsys.readouterr().out
    assert (started / "checkpoints" / QUARANTINE / f"{LATEST}-8").is_dir()
    same_run(uninterrupted, started)


def test_a_damaged_best_network_is_mended_from_its_twin(started, uninterrupted, capsys, undrawn):
    (best,) = (started / "checkpoints" / BEST).iterdir()
    shutil.rmtree(best / "state")
    train.run(small(), started)
    out = capsys.readouterr().out
    assert f"{BEST}/{best.name}: damaged" in out
    assert "resuming at step 8 of 12" in out
    same_run(uninterrupted, started)


def test_a_lost_best_network_is_trained_again(tmp_path, capsys, undrawn):
    """Of step 0, with a learning rate of 0, whose twin is gone by then."""
    config = small(optimizer={"lr": 0.0})
    train.run(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    RunDir(tmp_path / "run").summary.unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / BEST / "0" / "state")
    capsys.readouterr()
    train.run(config, tmp_path / "run")
    out = capsys.readouterr().out
    assert f"{BEST}/0: damaged" in out
    assert "begins anew" in out
    assert sum(path.is_dir() for path in (tmp_path / "run" / "checkpoints" / QUARANTINE).iterdir()) == 3
    same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("changes", [{"dtype": "float64"}, {"model": {"hidden": (4, 4)}}])
def test_a_foreign_checkpoint_is_none(changes, started, tmp_path, capsys, undrawn):
    """Of another type, other shapes, other layers, in place of the newest."""
    train.run(small(**changes), tmp_path / "other")
    shutil.rmtree(started / "checkpoints" / LATEST / "8")
    shutil.copytree(tmp_path / "other" / "checkpoints" / LATEST / "8", started / "checkpoints" / LATEST / "8")
    (started / "checkpoints" / CHECKSUMS / f"{LATEST}-8").unlink()  # it would tell at once
    assert newest(started) == 4
    assert "damaged (" in capsys.readouterr().out


def test_readers_say_what_is_damaged(uninterrupted, tmp_path):
    from experiments import evaluate

    shutil.copytree(uninterrupted, tmp_path / "run")
    for path in files_of(tmp_path / "run" / "checkpoints" / BEST):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"best"):
        evaluate.run(tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / QUARANTINE).exists()


# Disks


@contextlib.contextmanager
def small_disk(path, size="2m"):
    """A file system of a given size."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk, spare):
    """Take all but so many bytes of a file system."""
    free = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - spare)))


@pytest.mark.parametrize("spare", [0, 64 * 1024])
def test_a_full_disk_is_an_error_that_costs_nothing(spare, half, tmp_path, uninterrupted, undrawn):
    """With no room at all, and with room for the metrics, but not for a checkpoint."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        run = disk / "run"
        shutil.copytree(half, run)
        fill(disk, spare)
        with pytest.raises(UsageError, match=r"cannot be written \(.*[Nn]o space left"):
            train.run(small(), run)
        assert newest(run) == 8
        (disk / "filler").unlink()
        train.run(small(), run)
        same_run(uninterrupted, run)


LIMITED = """
import resource
from experiments import cli, train
resource.setrlimit(resource.RLIMIT_FSIZE, (24576, 24576))
cli.main(train.command, train.usage)
"""


def test_a_limit_that_is_met_while_saving(tmp_path):
    """As a quota would be, which nobody sees before: files of more than 24 KiB fail."""
    flags = ["--config.task.length=20", "--config.task.test_size=64", "--config.task.valid_size=64"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "--config", "configs/quickstart.py", *flags, f"--workdir={tmp_path / 'run'}"],
        cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")},  # it meets the limit too
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot be written (" in errors[0]


def test_a_directory_that_cannot_be_written(half, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(half, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(UsageError, match=r"workdir=.*run: cannot be written \(Read-only file system\)"):
            train.run(small(), disk / "run")


# Processes, clocks, places


def test_a_second_process_is_refused_by_name(started):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, pathlib; from gru_jax.runtime.locks import lock_directory\n"
         "with lock_directory(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()",
         str(started)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=rf"in use by process {holder.pid} on .* since .*; allowed is one at a time"):
        train.run(small(), started)
    holder.kill()  # and leaves its file behind
    holder.communicate()
    assert (started / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken_over(started, capsys, undrawn):
    (started / LOCK).write_text("process 4242 on elsewhere since 2026-01-01 00:00:00\n")
    train.run(small(), started)
    assert "taking over from process 4242 on elsewhere since 2026-01-01 00:00:00, which is gone" in (
        capsys.readouterr().out
    )
    assert not (started / LOCK).exists()


def test_a_lock_is_no_obstacle_to_a_new_run(tmp_path, undrawn):
    with lock_directory(tmp_path):
        pass
    (tmp_path / LOCK).write_text("")
    assert RunDir(tmp_path).inspect(small().to_dict()) == "new"


def test_moved_directories_and_odd_clocks_do_no_harm(started, tmp_path, monkeypatch, uninterrupted, undrawn):
    (tmp_path / "elsewhere").mkdir()
    moved = started.rename(tmp_path / "elsewhere" / "moved run")
    clock = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    train.run(small(), moved)
    same_run(uninterrupted, moved)


# Numbers that are not finite


def test_the_batch_that_stopped_a_run_can_be_run_again(tmp_path, capsys):
    config = small(optimizer={"lr": 1e30})
    with pytest.raises(NonFiniteError) as raised:
        train.run(config, tmp_path / "run")
    assert f"python -m experiments.replay --workdir {tmp_path / 'run'} runs its batch again" in str(raised.value)
    where, lines = replay.run(tmp_path / "run")
    assert where is not None
    assert where in str(raised.value)
    assert lines[0].startswith("then, after ")
    assert replay.command(["--workdir", str(tmp_path / "run")]) == 3
    assert f"here: {where}\n" in capsys.readouterr().out


def test_there_is_nothing_to_replay(uninterrupted):
    with pytest.raises(UsageError, match="nothing to replay"):
        replay.run(uninterrupted)


# Files of others


class Bomb:
    """Unpickled, it would run."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_arrays_of_others_run_nothing(uninterrupted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(uninterrupted, tmp_path / "run")
    np.savez(tmp_path / "run" / "flow.npz", step=np.array([Bomb()], object))
    with pytest.raises(UsageError, match=r"flow.npz: damaged"):
        RunDir(tmp_path / "run").read_flow()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"goal": 3}', '{"goal": ["loss", "min"]}'])
def test_a_damaged_summary_is_named(content, uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    RunDir(tmp_path / "run").summary.write_text(content)
    with pytest.raises(UsageError, match=r"summary.json: damaged"):
        train.run(small(), tmp_path / "run")


def test_damage_is_an_error_of_use():
    assert issubclass(DamagedError, UsageError)


def test_a_validation_that_was_not_finite_can_be_run_again(tmp_path, undrawn):
    """Its batch has other arrays than one of the training, here no weights."""
    xs = np.random.default_rng(0).normal(size=(20, 5, 2)).astype(np.float32)
    of_train = {"xs": xs, "targets": xs[:, 0], "weights": np.ones(20, np.float32)}
    task = Arrays.write(tmp_path / "data", train=of_train, valid=(xs, 1e38 * xs[:, 0]), test=(xs, xs[:, 0]))
    values = {"batch_size": 8, "steps": 4, "eval_steps": 2}
    config = load({"task": task, "model": {"hidden": (4,)}, "train": values, "flow": {"every": 0}})
    with pytest.raises(NonFiniteError):
        train.run(config, tmp_path / "run")
    where, lines = replay.run(tmp_path / "run")
    assert where is not None
    assert lines[0].startswith("then, after ")


def test_pictures_of_records_need_no_data(tmp_path):
    xs = np.random.default_rng(0).normal(size=(20, 5, 2)).astype(np.float32)
    classes = np.arange(20) % 2
    task = Arrays.write(tmp_path / "data", **dict.fromkeys(("train", "valid", "test"), (xs, classes)))
    values = {"batch_size": 8, "steps": 4, "eval_steps": 2, "metrics": ("f1",)}
    config = load({"task": task, "model": {"hidden": (4,)}, "train": values, "flow": {"batch_size": 4}})
    run = train.run(config, tmp_path / "run")
    assert {path.stem for path in (run.path / "plots").iterdir()} >= {"confusion", "learning_curve"}
    shutil.rmtree(tmp_path / "data")
    assert gru_jax.open(run.path).plot("learning_curve").axes
    assert report.run([run.path]).path.is_file()
