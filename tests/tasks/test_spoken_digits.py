"""Spoken digits: log-mel frames as librosa has them, the files, and who is heard in which split."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import wave
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, predict, train
from gru_jax.data.log_mel import log_mel, mel_filters
from gru_jax.data.wav import read_sounds
from gru_jax.deploy.numpy_gru import NumpyNetwork
from gru_jax.errors import UsageError
from gru_jax.tasks import SpokenDigits, split_key
from gru_jax.tasks import spoken_digits as module
from gru_jax.tasks.spoken_digits import Recording, split_of
from gru_jax.training.network import build_model

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
RATE, WINDOW, HOP, BANDS = 8000, 256, 80, 40
STORED = Path(__file__).parent / "log_mel.npz"  # made by `python -m tests.tasks.make_log_mel`


def chirp(samples=1000):
    """A sound whose frequency rises to 4 kHz, with a pause."""
    time = np.arange(samples) / RATE
    sound = 0.5 * np.sin(2 * np.pi * (100 + 12000 * time) * time)
    sound[300:500] = 0
    return sound.astype(np.float32)


def by_librosa(sound):
    librosa = pytest.importorskip("librosa")
    power = librosa.feature.melspectrogram(y=sound, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=BANDS)
    return np.maximum(power, 1e-10).T


def ours(sound):
    return np.asarray(log_mel(jnp.asarray(sound)[None], RATE, WINDOW, HOP, BANDS))[0]


CLOSE = {"rtol": 1e-3, "atol": 1e-11}  # of powers: beside loud bands, float32 rounds silent ones


def test_frames_are_those_that_librosa_gave_once():
    with np.load(STORED) as stored:
        np.testing.assert_allclose(np.exp(ours(chirp())), stored["powers"], **CLOSE)
        np.testing.assert_allclose(mel_filters(RATE, WINDOW, BANDS), stored["filters"], rtol=1e-5, atol=1e-9)


def test_frames_are_those_of_librosa():
    noise = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    for sound in (chirp(), chirp(1777), noise, 1e-4 * noise):
        np.testing.assert_allclose(np.exp(ours(sound)), by_librosa(sound), **CLOSE)


def test_frames_of_numpy_are_those_of_jax():
    frames = log_mel(chirp()[None], RATE, WINDOW, HOP, BANDS)
    assert isinstance(frames, np.ndarray)
    assert frames.dtype == np.float32
    np.testing.assert_allclose(np.exp(frames[0]), np.exp(ours(chirp())), **CLOSE)


def test_a_task_is_made_before_jax_has_chosen_devices(folder):
    script = (
        "from jax._src import xla_bridge\n"
        "from gru_jax.config import load\n"
        "from gru_jax.tasks import spoken_digits\n"
        f"spoken_digits.DIGEST = {module.DIGEST!r}\n"
        f"task = {{'name': 'spoken_digits', 'data_dir': {str(folder)!r}}}\n"
        "config = load({'task': task, 'train': {'epochs': 1, 'batch_size': 4}})\n"
        "config.task.load('train')\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])


def test_what_follows_a_sound_has_no_part_in_its_frames():
    for samples in (1000, 1039, 1040):
        padded = np.pad(chirp(samples), (0, 500))
        np.testing.assert_allclose(ours(padded)[: samples // HOP + 1], ours(chirp(samples)), atol=1e-4)


# The files


def wav(samples, channels=1, width=2, rate=RATE):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setparams((channels, width, rate, 0, "NONE", ""))
        sound.writeframes(np.asarray(samples).astype({1: np.uint8, 2: "<i2", 4: "<i4"}[width]).tobytes())
    return stream.getvalue()


def recordings():
    rng, names = np.random.default_rng(0), [(d, s, n) for d in (0, 7) for s in SPEAKERS[:3] for n in range(12)]
    return {f"{d}_{s}_{n}.wav": rng.integers(-9000, 9000, rng.integers(160, 900)) // (1 + d) for d, s, n in names}


def archive(path, sounds):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, samples in sounds.items():
            file.writestr(f"recordings/{name}", wav(samples))
    return path


def digest_of(path):
    sounds = sorted(read_sounds(path, RATE), key=lambda sound: sound.name)
    lines = [f"{sound.sha256}  recordings/{sound.name}\n" for sound in sounds]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data directory with a small archive in the place of the published one."""
    root = tmp_path_factory.mktemp("speech")
    path = archive(root / "fsdd" / "recordings.zip", recordings())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DIGEST", digest_of(path))
        yield root


def batch_of(task, split):
    return task.batch(jax.device_put(task.load(split)), jax.random.key(0), jnp.arange(task.size(split)))


def test_batches_are_standardised_frames(folder):
    task = SpokenDigits(data_dir=str(folder))
    batch, sounds = batch_of(task, "train"), recordings()
    names = [f"{d}_{s}_{n}.wav" for d in (0, 7) for s in SPEAKERS[:3] for n in (10, 11)]
    frames = [ours(sounds[name].astype(np.float32) / 2**15) for name in names]
    everything = np.concatenate(frames)
    np.testing.assert_array_equal(batch.targets, [int(name[0]) for name in names])
    np.testing.assert_array_equal(batch.lengths, [len(f) for f in frames])
    for row, of_sound in enumerate(frames):
        expected = (of_sound - everything.mean(axis=0)) / everything.std(axis=0)
        np.testing.assert_allclose(batch.xs[row, : len(of_sound)], expected, atol=2e-3)


def test_waveforms_are_samples_of_unit_size(folder):
    task = SpokenDigits("waveform", data_dir=str(folder))
    batch, sounds = batch_of(task, "test"), recordings()
    assert batch.xs.shape == (30, task.time, 1)
    assert task.time == max(map(len, sounds.values()))
    first = sounds["0_george_0.wav"]
    assert batch.lengths[0] == len(first)
    np.testing.assert_allclose(batch.xs[0, : len(first), 0], first / 2**15, rtol=1e-6)


def drawn(task, index):
    data = jax.device_put(task.load("train"))
    return task.batch(data, split_key("train", 0), jnp.asarray(index, jnp.int32))


def test_training_sounds_vary_from_epoch_to_epoch(folder):
    task = SpokenDigits("waveform", data_dir=str(folder), noise=0.5, shift_ms=20)
    plain, size = batch_of(SpokenDigits("waveform", data_dir=str(folder)), "train"), task.size("train")
    indices = task.train_indices(5, 0)(0, 5)  # two steps are an epoch of 12 sounds
    assert indices.shape == (5, 5)
    assert [set(row // size) for row in indices] == [{0}, {0}, {1}, {1}, {2}]
    first, again, later = (drawn(task, np.arange(size) + start) for start in (0, 0, size))
    np.testing.assert_array_equal(first.xs, again.xs)
    assert not np.array_equal(first.xs, later.xs)
    np.testing.assert_array_equal(first.targets, plain.targets)
    shifts = np.asarray(first.lengths - plain.lengths)
    assert 0 <= shifts.min() < shifts.max() <= 160  # samples in 20 ms
    for row, (shift, length) in enumerate(zip(shifts, np.asarray(plain.lengths), strict=True)):
        sound, varied = np.asarray(plain.xs[row, :length, 0]), np.asarray(first.xs[row, :, 0])
        added = varied[shift : shift + length] - sound
        assert added.std() < 0.52 * sound.std()
        assert abs(np.corrcoef(added, sound)[0, 1]) < 0.25
        np.testing.assert_array_equal(varied[shift + length :], 0)
    np.testing.assert_array_equal(batch_of(task, "test").xs[:, : plain.xs.shape[1]],
                                  batch_of(SpokenDigits("waveform", data_dir=str(folder)), "test").xs)  # fmt: skip


def test_silence_alone_leaves_the_sound_as_it_is(folder):
    task = SpokenDigits("waveform", data_dir=str(folder), shift_ms=20, folds=2)
    plain = SpokenDigits("waveform", data_dir=str(folder), folds=2)
    np.testing.assert_array_equal(task.train_lengths(), plain.train_lengths())
    np.testing.assert_array_equal(
        task.train_indices(3, 0, by_length=True)(0, 2), plain.train_indices(3, 0, by_length=True)(0, 2)
    )
    assert not np.asarray(batch_of(task, "valid").lengths - batch_of(plain, "valid").lengths).any()
    shifted, sounds = drawn(task, np.arange(6) + 6), drawn(plain, np.arange(6))
    assert np.asarray(shifted.lengths - sounds.lengths).any()
    for row, shift in enumerate(np.asarray(shifted.lengths - sounds.lengths)):
        np.testing.assert_array_equal(shifted.xs[row, :shift], 0)
        np.testing.assert_array_equal(shifted.xs[row, shift : shift + 400], sounds.xs[row, :400])


@pytest.mark.parametrize("speaker", [None, "jackson"])
def test_who_is_heard_in_which_split(speaker):
    everyone = [Recording(d, s, n, np.zeros(1)) for d in range(10) for s in SPEAKERS for n in range(50)]
    splits = {split: [r for r in everyone if split_of(r, speaker) == split] for split in ("train", "valid", "test")}
    sizes = {split: len(heard) for split, heard in splits.items()}
    if speaker is None:
        assert sizes == {"train": 2400, "valid": 300, "test": 300}
        assert {r.number for r in splits["test"]} == set(range(5))  # the official ones
        assert {r.number for r in splits["valid"]} == set(range(5, 10))
    else:
        assert sizes == {"train": 2250, "valid": 250, "test": 500}
        assert {r.speaker for r in splits["test"]} == {speaker}
        assert speaker not in {r.speaker for split in ("train", "valid") for r in splits[split]}
    assert len({(r.digit, r.speaker, r.number) for heard in splits.values() for r in heard}) == 3000


def test_the_published_recordings(data_dir, monkeypatch):
    if not (data_dir / "fsdd").is_dir():
        pytest.skip("no fsdd/")
    monkeypatch.setattr(module, "DIGEST", PUBLISHED_DIGEST)
    task = SpokenDigits("waveform", data_dir=str(data_dir))
    assert {split: task.size(split) for split in ("train", "valid", "test")} == {
        "train": 2400, "valid": 300, "test": 300,
    }  # fmt: skip
    lengths = np.concatenate([task.load(split)["lengths"] for split in ("train", "valid", "test")])
    assert (lengths.min(), lengths.max()) == (1148, 18262)
    assert task.time == 18262


PUBLISHED_DIGEST = module.DIGEST  # read before the small archive takes its place

BAD = {
    "no sound.wav": b"no sound at all",
    "empty.wav": b"",
    "cut.wav": wav(np.ones(500))[:-100],
    "header.wav": wav(np.ones(500))[:30],
    "silent.wav": wav([]),
    "stereo.wav": wav(np.ones(500), channels=2),
    "bytes.wav": wav(np.ones(500), width=1),
    "fast.wav": wav(np.ones(500), rate=44100),
    "broken.zip": b"PK no archive",
    "sound.mp3": b"ID3",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_one_line(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(UsageError) as raised:
        read_sounds(path, RATE)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_member_and_an_archive_without_sounds(tmp_path):
    path = archive(tmp_path / "a.zip", recordings())
    content = bytearray(path.read_bytes())
    content[2000:2050] = bytes(50)
    path.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="cannot be read") as raised:
        read_sounds(path, RATE)
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match=r"has no \.wav files"):
        read_sounds(archive(tmp_path / "b.zip", {}), RATE)


def test_archives_that_are_not_the_published_one(tmp_path, folder):
    with pytest.raises(UsageError, match=r"recordings\.zip: missing; needed is") as raised:
        SpokenDigits(data_dir=str(tmp_path)).time  # noqa: B018
    assert "\n" not in str(raised.value)
    sounds = recordings()
    sounds["0_george_0.wav"][3] += 1
    archive(tmp_path / "fsdd" / "recordings.zip", sounds)
    with pytest.raises(UsageError, match="damaged, or of another release") as raised:
        SpokenDigits(data_dir=str(tmp_path)).time  # noqa: B018
    assert "\n" not in str(raised.value)


# A run


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gru_jax.runs.pictures.draw_pictures", lambda rundir, config: [])
        config = {
            "task": {"name": "spoken_digits", "data_dir": str(folder)},
            "model": {"hidden": 8, "readout": "mean"},
            "optimizer": {"lr": 0.03},
            "train": {"steps": 60, "batch_size": 12, "eval_steps": 60},
            "flow": {"every": 0},
        }
        return train.run(config, tmp_path_factory.mktemp("runs") / "speech")


def test_sounds_in_files_are_answered_as_in_the_test_set(run, tmp_path, monkeypatch):
    evaluated = evaluate.run(run, predicts=True)
    assert evaluated.equals_stored
    assert evaluated.metrics["accuracy"] > 0.9  # one digit is eight times louder
    monkeypatch.setattr(module, "DIGEST", "of no data")  # which are not needed
    sounds = {name: samples for name, samples in recordings().items() if int(name[:-4].split("_")[2]) < 5}
    answered = predict.run(run, archive(tmp_path / "new.zip", sounds))
    np.testing.assert_allclose(answered.outputs, evaluated.predictions.outputs, atol=1e-3)
    (tmp_path / "one.wav").write_bytes(wav(sounds["7_lucas_3.wav"]))
    alone = predict.run(run, tmp_path / "one.wav")
    assert alone.table["prediction"].to_list() == ["7"]
    np.testing.assert_allclose(alone.outputs[0], answered.outputs[-2], atol=1e-3)


def test_without_jax_frames_are_standardised_too(run, tmp_path, unchecked_types):
    network = NumpyNetwork(run.export(tmp_path / "speech.zip", platforms=("cpu",)))
    xs = np.random.default_rng(0).normal(-3.0, 2.0, (2, 5, len(run.config.task.facts.features))).astype(np.float32)
    inputs = run.config.task.network_inputs(jnp.asarray(xs))
    wanted = build_model(run.config).apply(run.params, inputs).outputs
    np.testing.assert_allclose(network.sequence(network.start(2), xs)[1], wanted, atol=1e-5)


def test_samples_in_arrays(run):
    samples = recordings()["7_lucas_3.wav"] / 2**15
    xs = np.zeros((2, 1000, 1), np.float32)
    xs[0, : len(samples), 0] = samples
    xs[0, len(samples) :, 0] = 7.0  # padding, whatever it holds
    xs[1] = xs[0]
    first, again = run.predict(xs, lengths=[len(samples), len(samples)]).outputs
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, run.predict(samples[None, :, None]).outputs[0], atol=1e-3)
    with pytest.raises(UsageError, match="xs goes beyond 1"):
        run.predict(xs)
    with pytest.raises(UsageError, match=r"needed is \[N, T, 1\]"):
        run.predict(np.zeros((2, 10, 40)))


def test_one_speaker_alone(data_dir, monkeypatch):
    if not (data_dir / "fsdd").is_dir():
        pytest.skip("no fsdd/")
    monkeypatch.setattr(module, "DIGEST", PUBLISHED_DIGEST)
    task, everyone = (SpokenDigits("waveform", data_dir=str(data_dir), only=only) for only in ("theo", None))
    assert {split: task.size(split) for split in ("train", "valid", "test")} == {"train": 400, "valid": 50, "test": 50}
    of_all, of_theo = everyone.load("test"), task.load("test")
    rows = [row for row, speaker in enumerate(sorted(SPEAKERS * 5) * 10) if speaker == "theo"]
    np.testing.assert_array_equal(of_theo["lengths"], of_all["lengths"][rows])
    with pytest.raises(UsageError, match="only=theo: with speaker=lucas nobody is left; allowed is one of them"):
        SpokenDigits(only="theo", speaker="lucas")
