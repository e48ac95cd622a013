"""Polyphonic music: the files, what is predicted of them, and music that networks make up."""

from __future__ import annotations

import hashlib
import io
import itertools

import jax
import jax.numpy as jnp
import mido
import numpy as np
import pytest
from scipy.io import savemat

from experiments import evaluate, sample, train
from gru_jax import open as open_run
from gru_jax.config import load
from gru_jax.data.files import DataFile
from gru_jax.data.midi import midi_of_roll
from gru_jax.data.piano_rolls import read_piano_rolls
from gru_jax.errors import UsageError
from gru_jax.runs.music import sample_music
from gru_jax.tasks import Music
from gru_jax.tasks import music as music_module
from gru_jax.tasks.music import MUSIC_FILES, NOTE_NAMES, independent_notes, moved, parts_of_sequence
from gru_jax.training.network import build_model
from gru_jax.training.sampling_labels import sample_frames

STEPS = {"train": (7, 20, 12), "valid": (25, 5), "test": (31, 9, 4)}


def rolls(seed=0):
    rng = np.random.default_rng(seed)
    return {split: [(rng.random((n, 88)) < 0.05).astype(np.uint8) for n in steps] for split, steps in STEPS.items()}


def write(path, pieces):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = {}
    for split, of_split in pieces.items():
        cells[f"{split}data"] = np.empty((1, len(of_split)), object)
        cells[f"{split}data"][0] = of_split
    savemat(path, cells)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data directory with a small collection in the place of the chorales."""
    root = tmp_path_factory.mktemp("music")
    path = write(root / "polymusic" / "JSB_Chorales.mat", rolls())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        known = {"jsb": DataFile("polymusic/JSB_Chorales.mat", digest, "http://127.0.0.1:9/JSB_Chorales.mat")}
        patch.setattr(music_module, "MUSIC_FILES", {**MUSIC_FILES, **known})
        yield root


def batch_of(task, split):
    return task.batch(jax.device_put(task.load(split)), jax.random.key(0), jnp.arange(task.size(split)))


def test_the_loss_is_that_of_frames_after_those_before(folder):
    task = Music(data_dir=str(folder))
    batch, logits = batch_of(task, "test"), np.random.default_rng(1).normal(size=(3, 31, 88)).astype(np.float32)
    losses = task.metrics(jnp.asarray(logits), batch)["loss"]
    for row, piece in enumerate(rolls()["test"]):
        p = 1 / (1 + np.exp(-logits[row, : len(piece)].astype(np.float64)))
        frames = -np.where(piece > 0, np.log(p), np.log1p(-p)).sum(axis=1)
        np.testing.assert_allclose(losses[row], frames.mean(), rtol=1e-5)
        np.testing.assert_array_equal(batch.xs[row, 0], 0)  # silence
        np.testing.assert_array_equal(batch.xs[row, 1 : len(piece)], piece[:-1])
    without_first = batch_of(Music(data_dir=str(folder), first_frame=False), "test")
    np.testing.assert_array_equal(without_first.lengths, [30, 8, 3])
    np.testing.assert_array_equal(without_first.xs[0], rolls()["test"][0][:-1])
    np.testing.assert_array_equal(without_first.targets[0], rolls()["test"][0][1:] > 0)


@pytest.mark.parametrize("first_frame", [True, False])
def test_training_pieces_are_cut_and_held_out_ones_are_whole(first_frame, folder):
    task = Music(data_dir=str(folder), window=6, first_frame=first_frame)
    batch, skipped = batch_of(task, "train"), 0 if first_frame else 1
    lengths = np.asarray(batch.lengths)
    assert lengths.max() <= task.time <= 6
    assert lengths.min() >= 3  # as equal as can be
    predicted = np.concatenate([np.asarray(batch.targets)[i, :n] for i, n in enumerate(lengths)])
    np.testing.assert_array_equal(predicted, np.concatenate([piece[skipped:] for piece in rolls()["train"]]) > 0)
    read = np.concatenate([np.asarray(batch.xs)[i, :n] for i, n in enumerate(lengths)])
    silence = np.zeros((1 - skipped, 88))
    np.testing.assert_array_equal(read, np.concatenate([[*silence, *piece[:-1]] for piece in rolls()["train"]]))
    assert batch_of(task, "valid").xs.shape == (2, 25 - skipped, 88)


def test_transposed_pieces_are_trained_on_alone(folder):
    task = Music(data_dir=str(folder), transpose=2)
    assert {split: task.size(split) for split in STEPS} == {"train": 15, "valid": 2, "test": 3}
    targets, piece = np.asarray(batch_of(task, "train").targets), rolls()["train"][0] > 0
    for row, semitones in enumerate(range(-2, 3)):
        inside = slice(max(0, semitones), 88 + min(0, semitones))
        np.testing.assert_array_equal(targets[row, :7, inside], np.roll(piece, semitones, axis=1)[:, inside])
    assert moved(np.eye(88)[:1], -1).sum() == 0  # there is no lower key
    np.testing.assert_array_equal(moved(np.eye(88)[:3], 1), np.eye(88)[1:4])


@pytest.mark.parametrize(
    ("steps", "window", "wanted"), [(10, 4, [4, 3, 3]), (4, 4, [4]), (5, 4, [3, 2]), (9, None, [9])]
)
def test_parts(steps, window, wanted):
    parts = parts_of_sequence(np.arange(steps + 1)[:, None], window)
    assert [len(part) - 1 for part in parts] == wanted
    assert all(a[-1] == b[0] for a, b in itertools.pairwise(parts))


def test_baselines_are_of_training_frames():
    train = [np.array([[0, 0], [1, 0], [1, 1], [1, 0]])]  # three predicted frames
    test = [np.array([[1, 1], [1, 1], [0, 0]])]
    share = np.array([3.5 / 4, 1.5 / 4])
    expected = -(np.log(share).sum() + np.log(1 - share).sum()) / 2
    assert independent_notes(train, test, knows_last=False) == pytest.approx(expected)
    after_down = np.array([2.5 / 3, 0.5 / 2])  # both test frames follow keys that are down
    expected = -(np.log(after_down).sum() + np.log(1 - after_down).sum()) / 2
    assert independent_notes(train, test, knows_last=True) == pytest.approx(expected)


def test_batches_may_be_of_pieces_of_similar_length(folder):
    task = Music(data_dir=str(folder), transpose=1)
    np.testing.assert_array_equal(task.train_lengths(), np.repeat(STEPS["train"], 3))
    (batch,) = task.train_indices(9, 0, by_length=True)(0, 1)
    assert sorted(batch) == list(range(9))
    folded = Music(data_dir=str(folder), folds=3)
    np.testing.assert_array_equal(folded.train_lengths(), np.array(STEPS["train"])[folded.order("train")])


def test_names_of_notes():
    assert (NOTE_NAMES[0], NOTE_NAMES[1], NOTE_NAMES[39], NOTE_NAMES[48], NOTE_NAMES[87]) == (
        "A0", "A#0", "C4", "A4", "C8",
    )  # fmt: skip


DAMAGED = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-400]),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no music " * 40),
    "split missing": lambda path: write(path, {"train": rolls()["train"]}),
    "no cells": lambda path: savemat(path, {f"{split}data": np.zeros((3, 88)) for split in STEPS}),
    "other keys": lambda path: write(path, {**rolls(), "valid": [np.zeros((5, 87), np.uint8)]}),
    "another number": lambda path: write(path, {**rolls(), "test": [np.full((5, 88), 2, np.uint8)]}),
    "no frame": lambda path: write(path, {**rolls(), "test": [np.zeros((0, 88), np.uint8)]}),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_one_line(kind, tmp_path):
    path = write(tmp_path / "x.mat", rolls())
    DAMAGED[kind](path)
    with pytest.raises(UsageError) as raised:
        read_piano_rolls(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_a_file_that_is_not_the_published_one(kind, tmp_path, folder):
    if kind == "damaged":
        DAMAGED["cut"](write(tmp_path / "polymusic" / "JSB_Chorales.mat", rolls()))
    with pytest.raises(UsageError, match=f"JSB_Chorales.mat: {kind}") as raised:
        Music(data_dir=str(tmp_path)).time  # noqa: B018
    assert "\n" not in str(raised.value)


def test_settings_that_do_not_go_together(folder):
    with pytest.raises(UsageError, match="folds=2: with window or transpose"):
        Music(data_dir=str(folder), folds=2, window=6)
    assert Music(data_dir=str(folder), folds=3).size("valid") == 1
    with pytest.raises(UsageError, match=r"model\.bidirectional=True: this task predicts its next input"):
        load({"task": {"name": "music", "data_dir": str(folder)}, "model": {"bidirectional": True}})


PUBLISHED = {
    "jsb": ((229, 76, 77), (25, 160)),
    "musedata": ((524, 135, 124), (9, 4273)),
    "nottingham": ((694, 173, 170), (40, 1793)),
    "piano_midi": ((87, 12, 25), (65, 3857)),
}


@pytest.mark.parametrize("collection", PUBLISHED)
def test_the_published_files(collection, data_dir, monkeypatch):
    monkeypatch.setattr(music_module, "MUSIC_FILES", MUSIC_FILES)  # rather than the small collection
    if not (data_dir / "polymusic").is_dir():
        pytest.skip("no polymusic/")
    task, (counts, (shortest, longest)) = Music(collection=collection, data_dir=str(data_dir)), PUBLISHED[collection]
    assert tuple(task.size(split) for split in STEPS) == counts
    lengths = [len(piece) for split in STEPS for piece in task.pieces(split)]
    assert (min(lengths), max(lengths)) == (shortest, longest)
    shares, markov = (metrics["loss"] for metrics in task.baselines.values())
    assert markov < shares


# Music that is made up


@pytest.mark.parametrize(
    "roll", [rolls()["test"][0], np.zeros((3, 88)), np.ones((2, 88))], ids=["random", "silent", "all"]
)
def test_midi_files_play_the_roll(roll):
    played = mido.MidiFile(file=io.BytesIO(midi_of_roll(roll, frame_seconds=0.125)))
    frames, down, now = np.zeros(roll.shape, bool), {}, 0.0
    for message in played:
        now += message.time
        if message.type == "note_on":
            assert message.note not in down
            down[message.note] = round(now / 0.125, 6)
        elif message.type == "note_off":
            first = down.pop(message.note)
            assert first == int(first)
            frames[int(first) : round(now / 0.125), message.note - 21] = True
    assert not down
    np.testing.assert_array_equal(frames, roll > 0)
    assert played.length == pytest.approx(len(roll) * 0.125)


def test_frames_are_drawn_from_the_last_outputs(run):
    model, params, key = build_model(run.config), run.params, jax.random.key(3)
    prime = jnp.asarray(np.concatenate([np.zeros((1, 88)), rolls()["test"][0][:4]]), jnp.float32)
    for temperature in (1.0, 0.5):
        drawn = sample_frames(model, params, prime, 6, key, temperature)
        read = prime
        for frame, step_key in zip(drawn, jax.random.split(key, 6), strict=True):
            logits = model.apply(params, read[None]).outputs[0, -1]  # all of it anew
            expected = jax.random.bernoulli(step_key, jax.nn.sigmoid(logits / temperature))
            np.testing.assert_array_equal(frame, expected)
            read = jnp.concatenate([read, frame[None].astype(jnp.float32)])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        config = {
            "task": {"name": "music", "data_dir": str(folder), "window": 6},
            "model": {"hidden": 5},
            "train": {"steps": 4, "batch_size": 2, "eval_steps": 2},
            "flow": {"batch_size": 2},
        }
        return train.run(config, tmp_path_factory.mktemp("runs") / "music")


def test_a_run_is_evaluated_on_whole_pieces(run):
    assert evaluate.run(run).equals_stored
    task, model = run.config.task, build_model(run.config)
    batch = batch_of(task, "test")
    losses = task.metrics(model.apply(run.params, batch.xs, lengths=batch.lengths).outputs, batch)["loss"]
    expected = np.average(losses, weights=[len(piece) for piece in rolls()["test"]])
    stored = run.metrics.filter(split="test")["loss"].item()
    assert stored == pytest.approx(float(expected), rel=1e-5)
    (profile,) = (record for name, record in run.records.items() if name.startswith("adjoint/"))
    assert run.records["lag"].shape == (task.time,) == profile.shape[1:]


def test_new_music_of_any_length_without_its_data(run, folder, monkeypatch):
    monkeypatch.setattr(music_module, "locate", lambda *_: pytest.fail("data are read"))
    opened = open_run(run.path)
    predicted = opened.predict(rolls()["test"][0][None].astype(np.float32))
    assert predicted.outputs.shape == (1, 31, 88)
    assert predicted.table.columns[2] == "p(A0)"
    with pytest.raises(UsageError, match=r"holds 0\.5; allowed are 0 and 1"):
        opened.predict(np.full((1, 4, 88), 0.5))


def test_made_up_music_is_written(run, tmp_path):
    made = sample_music(run, tmp_path, frames=12, prime=5, piece=1)
    assert made.roll.shape == (17, 88)
    np.testing.assert_array_equal(made.roll[:5], rolls()["test"][1][:5])
    assert made.midi.read_bytes() == midi_of_roll(made.roll)
    assert made.picture.read_bytes().startswith(b"\x89PNG")
    again, other = (sample_music(run, tmp_path, frames=12, prime=5, piece=1, seed=seed) for seed in (0, 1))
    np.testing.assert_array_equal(made.roll, again.roll)
    assert not np.array_equal(made.roll, other.roll)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 0}, "frames=0: allowed are whole numbers from 1"),
        ({"temperature": 0.0}, r"temperature=0\.0: allowed are numbers above 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"prime": 5, "piece": 3}, "piece=3: allowed are 0 to 2"),
        ({"prime": 5, "piece": 2}, "prime=5: allowed are up to 4"),
        ({"frame_seconds": 1e-6}, "frame_seconds=1e-06: allowed are numbers from 0.001 to 10"),
        ({"frame_seconds": float("nan")}, "frame_seconds=nan: allowed"),
        ({"checkpoint": "first"}, "checkpoint='first': allowed are best, latest"),
    ],
)
def test_what_cannot_be_made_up(changes, message, run, tmp_path):
    with pytest.raises(UsageError, match=message):
        sample_music(run, tmp_path, **{"frames": 2, **changes})


def test_the_command_writes_music(run, tmp_path, capsys):
    assert sample.command([f"--workdir={run.path}", f"--output={tmp_path}", "--frames=7", "--prime=3", "--seed=2"]) == 0
    made = sample_music(run, tmp_path / "again", frames=7, prime=3, seed=2)
    assert (tmp_path / "sample.mid").read_bytes() == made.midi.read_bytes()
    notes = int(made.roll[3:].sum())
    assert capsys.readouterr().out.splitlines() == [
        f"3 frames of a test piece, then 7 frames with {notes} notes",
        f"to listen to: {tmp_path / 'sample.mid'}",
        f"picture: {tmp_path / 'sample.png'}",
    ]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--prompt=Bach", "--prompt=Bach: without effect on networks of music; allowed are --workdir, .*--frames"),
        ("--top_k=3", "--top_k=3: without effect on networks of music"),
        ("--frames=0", "--frames=0: allowed are whole numbers from 1"),
        ("--frame_seconds=0", r"--frame_seconds=0\.0: allowed are numbers from 0\.001"),
        ("--temperature=hot", "--temperature=hot: allowed are numbers"),
        ("--checkpoint=first", "--checkpoint='first': allowed are best, latest"),
        ("--frame=3", "--frame: no such flag; .*did you mean 'frames'"),
    ],
)
def test_the_command_says_what_music_does_not_take(flag, message, run, tmp_path):
    with pytest.raises(UsageError, match=message):
        sample.command([f"--workdir={run.path}", f"--output={tmp_path}", flag])
    assert not list(tmp_path.iterdir())
