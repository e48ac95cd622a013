"""Spoken digits, from the sound itself or from log-mel frames."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gru_jax.data.arrays import LENGTHS, XS, check_input
from gru_jax.data.batching import StepIndices
from gru_jax.data.checks import measure_features
from gru_jax.data.files import data_root
from gru_jax.data.log_mel import log_mel
from gru_jax.data.wav import SOUND_SUFFIXES, Sound, read_sounds
from gru_jax.errors import UsageError, check_choice
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import ORDER, SPLITS, Batch, FromFiles, classification
from gru_jax.tasks.facts import DataFacts, FeatureScale

Speaker = Literal["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
SoundFeatures = Literal["log_mel", "waveform"]

RATE = 8000
WINDOW, HOP, BANDS = 256, 80, 40  # 32 ms, every 10 ms
DIGITS = 10
FULL_SCALE = 2.0**15  # of samples of 16 bits
TEST_COUNT, VALID_COUNT = 5, 5
"""Of the recordings of each digit and speaker, how many are the official test set, and how many are validated on."""
ARCHIVE = "fsdd/recordings.zip"
ADDRESS = "https://github.com/Jakobovski/free-spoken-digit-dataset"
VARIES = "varies"
"""Among the arrays of the training split, where noise and silence are drawn for it."""
DIGEST = "04e1baae96c6a26e39c623f2b01d0182ddae627ba0ac02a3cdc17ba2af99fd9b"
"""The sha256 of lines of every recording's sha256, two blanks, recordings/ and its name, in the order of the names."""


@dataclasses.dataclass(frozen=True)
class SpokenDigits(FromFiles):
    """Tell which digit is spoken, of six speakers who say each 50 times. Jackson and others, 2016 to 2020.

    Recordings are of 8,000 samples a second and 0.14 to 2.3 s long. Chance is 1/10. Without a `speaker` the test set is
    the official one, the first five recordings of each digit and speaker, and the next five are validated on. With one,
    all of his recordings are the test set, and the first five of the others are validated on.

    Attributes:
        features: what is read of the sound: log_mel, 40 numbers every 10 ms, brought to mean 0 and deviation 1 of the
            training set; or waveform, its samples from -1 to 1, one at a step.
        speaker: whose voice is tested and never trained on; None for all six in training and test.
        only: whose recordings are all that there are, split as those of all; None for those of all six.
        noise: greatest deviation of the white noise that training sounds get, as a share of the sound's own; how much,
            and which, is drawn anew each time that a sound is heard.
        shift_ms: milliseconds of silence, at most, that are drawn to stand before a training sound.

    Examples:
        >>> from gru_jax.tasks import TASKS
        >>> TASKS["spoken_digits"].goal
        ('accuracy', 'max')
    """

    goal: ClassVar[tuple[str, str]] = ("accuracy", "max")

    features: SoundFeatures = "log_mel"
    speaker: Speaker | None = setting(None, kw_only=True)
    only: Speaker | None = setting(None, kw_only=True)
    noise: float = setting(0.0, low=0.0, high=10.0, kw_only=True)
    shift_ms: int = setting(0, low=0, high=10_000, kw_only=True)

    def __post_init__(self) -> None:
        if self.only is not None and self.speaker is not None:
            raise UsageError(f"only={self.only}: with speaker={self.speaker} nobody is left; allowed is one of them")
        super().__post_init__()

    @property
    def _varies(self) -> bool:
        return self.noise > 0 or self.shift_ms > 0

    @property
    def _most_shifted(self) -> int:
        """Samples of silence before a training sound, at most."""
        return self.shift_ms * RATE // 1000

    @property
    def facts(self) -> DataFacts:
        if isinstance(self.stored_facts, DataFacts):
            return self.stored_facts
        return _facts(*self._file(), self.features, self.speaker, self._most_shifted, self.only)

    @property
    def input_size(self) -> int:
        return BANDS if self.features == "log_mel" else 1

    @property
    def output_size(self) -> int:
        return DIGITS

    @property
    def time(self) -> int:
        return self.facts.time

    @property
    def baseline(self) -> Mapping[str, float]:
        return {"accuracy": 1.0 / DIGITS, "loss": math.log(DIGITS)}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def count(self, split: str) -> int:
        return self.facts.sizes[split]

    def read(self, split: str) -> dict[str, np.ndarray]:
        return _arrays(*self._file(), split, self.speaker, self._most_shifted, self.only)

    def load(self, split: str) -> dict[str, np.ndarray]:
        arrays = super().load(split)  # with folds, those of training and of validation are the same
        return {**arrays, VARIES: np.zeros(1, np.float32)} if split == "train" and self._varies else arrays

    def _file(self) -> tuple[Path, FileStamp]:
        path = data_root(self.data_dir) / ARCHIVE
        try:
            return path, stamp_of(path)
        except OSError as error:
            raise UsageError(f"{path}: missing; needed is a zip of the folder recordings of {ADDRESS}") from error

    def train_lengths(self) -> Int[np.ndarray, " N"]:
        arrays = self.load("train")
        return arrays[LENGTHS][arrays[ORDER]] if ORDER in arrays else arrays[LENGTHS]

    def train_indices(self, batch_size: int, seed: int, **options: Any) -> StepIndices:
        """Which training sounds each step hears; where they vary, numbered on and on, another example in each epoch."""
        indices, size = super().train_indices(batch_size, seed, **options), self.size("train")
        if not self._varies:
            return indices

        def numbered(first: int, count: int) -> np.ndarray:
            epochs = np.arange(first, first + count) // (size // batch_size)
            return indices(first, count) + (epochs[:, None] * size).astype(np.int32)

        return numbered

    def batch(self, data: Mapping[str, Array], key: PRNGKeyArray, index: Int[Array, " B"]) -> Batch:
        if VARIES not in data:
            return super().batch(data, key, index)
        keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(index)
        if ORDER in data:
            return self._batch(data, data[ORDER][index % len(data[ORDER])], keys)
        return self._batch(data, index % len(data["digits"]), keys)

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        return self._batch(data, index)

    def _batch(self, data: Mapping[str, Array], index: Int[Array, " B"], keys: Array | None = None) -> Batch:
        """The sounds with these indices into the arrays, varied by a key for each."""
        waves, lengths = data["samples"][index].astype(jnp.float32) / FULL_SCALE, data[LENGTHS][index]
        if keys is not None:
            waves, lengths = jax.vmap(self._varied)(waves, lengths, keys)
        xs, lengths = features_of_waves(waves, lengths, self.features)
        return Batch(self.network_inputs(xs), data["digits"][index], lengths)

    def _varied(
        self, wave: Float[Array, " T"], length: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[Float[Array, " T"], Int[Array, ""]]:
        """A sound with silence before it and noise in it, as its key draws them."""
        shift_key, level_key, noise_key = jax.random.split(key, 3)
        shift = jax.random.randint(shift_key, (), 0, self._most_shifted + 1)
        steps = jnp.arange(len(wave))
        power = jnp.square(wave).sum() / length.astype(wave.dtype)
        wave, length = jnp.where(steps >= shift, jnp.roll(wave, shift), 0.0), length + shift
        deviation = self.noise * jnp.sqrt(power) * jax.random.uniform(level_key, dtype=wave.dtype)
        noise = deviation * jax.random.normal(noise_key, wave.shape, wave.dtype)
        return jnp.where(steps < length, wave + noise, 0.0), length

    def network_inputs(self, xs: Array) -> Array:
        scale = self.facts.inputs_scale
        if scale is None:
            return xs
        return (xs - _beside(scale.mean, xs)) / _beside(scale.deviation, xs)

    def read_input(self, path: Path) -> Mapping[str, np.ndarray]:
        if path.suffix not in SOUND_SUFFIXES:
            return super().read_input(path)
        waves, lengths = _padded([sound.samples for sound in read_sounds(path, RATE)])
        return self.check_new({XS: waves[..., None] / np.float32(FULL_SCALE), LENGTHS: lengths}, path)

    def check_new(
        self, arrays: Mapping[str, np.ndarray], path: Path, place: Callable[..., str] | None = None
    ) -> Mapping[str, np.ndarray]:
        """New sounds, `xs` `[N, T, 1]` from -1 to 1 and their `lengths` in samples, as what the network reads of them.

        Raises:
            UsageError: they are anything else.
        """
        for name in arrays:
            check_choice(f"{path}: array", name, (XS, LENGTHS))
        checked = check_input(arrays, path, 1, place=place)
        waves = checked[XS][..., 0]
        lengths = checked.get(LENGTHS, np.full(len(waves), waves.shape[1], np.int32))
        within = np.arange(waves.shape[1]) < lengths[:, None]
        if np.abs(waves, where=within, out=np.zeros_like(waves)).max() > 1:
            raise UsageError(f"{path}: xs goes beyond 1; allowed are samples from -1 to 1")
        xs, lengths = features_of_waves(np.where(within, waves, 0), lengths, self.features)
        return {XS: xs, LENGTHS: lengths}

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return classification(outputs, batch.targets)


class Recording(NamedTuple):
    """A digit, spoken.

    Attributes:
        digit: which.
        speaker: who.
        number: among those of this digit and speaker.
        samples: of 16 bits, `[T]`.
    """

    digit: int
    speaker: str
    number: int
    samples: np.ndarray


def split_of(recording: Recording, speaker: str | None) -> str:
    """Which split a recording belongs to, where a speaker's voice is for the test, or nobody's."""
    first = TEST_COUNT if speaker is None else 0
    if recording.speaker == speaker or recording.number < first:
        return "test"
    return "valid" if recording.number < first + VALID_COUNT else "train"


def features_of_waves(waves: Any, lengths: Any, features: SoundFeatures) -> tuple[Any, Any]:
    """What a network reads of sounds before it is standardised, and how many steps of it each sound has.

    Args:
        waves: sounds `[B, T]`, of JAX or of NumPy; the latter where JAX must not be used yet, as before its devices are
            chosen.
        lengths: of each, `[B]`.
        features: which.
    """
    if features == "waveform":
        return waves[..., None], lengths
    return log_mel(waves, RATE, WINDOW, HOP, BANDS), lengths // HOP + 1


@functools.lru_cache(maxsize=2)
def _read(path: Path, stamp: FileStamp) -> tuple[Recording, ...]:
    """All recordings, in the order of digits, speakers and numbers.

    Raises:
        UsageError: they are not the published ones.
    """
    del stamp
    sounds = sorted(read_sounds(path, RATE), key=lambda sound: sound.name)
    lines = "".join(f"{sound.sha256}  recordings/{sound.name}\n" for sound in sounds)
    if (digest := hashlib.sha256(lines.encode()).hexdigest()) != DIGEST:
        raise UsageError(
            f"{path}: damaged, or of another release: the digest of its {len(sounds)} recordings is {digest} and "
            f"should be {DIGEST}; get them from {ADDRESS}"
        )
    return tuple(sorted((_recording(sound) for sound in sounds), key=lambda recording: recording[:3]))


def _recording(sound: Sound) -> Recording:
    digit, speaker, number = sound.name.removesuffix(".wav").split("_")
    return Recording(int(digit), speaker, int(number), sound.samples)


def _padded(sounds: Sequence[np.ndarray], longest: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sounds side by side, filled up with zeros, and their lengths."""
    lengths = np.array([len(samples) for samples in sounds], np.int32)
    waves = np.zeros((len(sounds), max(longest, lengths.max())), np.int16)
    for wave, samples in zip(waves, sounds, strict=True):
        wave[: len(samples)] = samples
    return waves, lengths


def _spoken(path: Path, stamp: FileStamp, only: str | None) -> list[Recording]:
    """The recordings, of one speaker alone if there is one."""
    return [recording for recording in _read(path, stamp) if only in (None, recording.speaker)]


def _arrays(
    path: Path, stamp: FileStamp, split: str, speaker: str | None, spare: int, only: str | None
) -> dict[str, np.ndarray]:
    """The sounds of a split, with so many samples to spare after the longest of all."""
    spoken = _spoken(path, stamp, only)
    chosen = [recording for recording in spoken if split_of(recording, speaker) == split]
    waves, lengths = _padded([r.samples for r in chosen], spare + max(len(r.samples) for r in spoken))
    return {"samples": waves, LENGTHS: lengths, "digits": np.array([r.digit for r in chosen], np.int32)}


@functools.lru_cache(maxsize=16)
def _facts(
    path: Path, stamp: FileStamp, features: SoundFeatures, speaker: str | None, spare: int, only: str | None
) -> DataFacts:
    train = _arrays(path, stamp, "train", speaker, spare, only)
    chosen = [split_of(recording, speaker) for recording in _spoken(path, stamp, only)]
    sizes = {split: chosen.count(split) for split in SPLITS}
    steps, scale = train["samples"].shape[1], None
    if features == "log_mel":
        steps, scale = steps // HOP + 1, _scale(train)
    digits = tuple(range(DIGITS))
    return DataFacts(
        time=steps,
        features=tuple(f"band{i}" for i in range(BANDS)) if features == "log_mel" else ("sample",),
        per_step=False,
        codes=digits,
        classes=tuple(map(str, digits)),
        targets=("digit",),
        sizes=sizes,
        inputs_scale=scale,
    )


BLOCK = 250  # sounds whose frames are measured at a time


def _scale(train: Mapping[str, np.ndarray]) -> FeatureScale:
    """Means and deviations of the bands over all frames of the training sounds."""
    waves = train["samples"].astype(np.float32) / np.float32(FULL_SCALE)
    lengths = train[LENGTHS]

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, len(waves), BLOCK):
            part = slice(first, first + BLOCK)
            yield first, features_of_waves(waves[part], lengths[part], "log_mel")[0]

    mean, deviation = measure_features(blocks(), lengths // HOP + 1, BANDS)
    return FeatureScale(tuple(mean.tolist()), tuple(deviation.tolist()))


def _beside(values: Sequence[float], array: Array) -> Array:
    """Numbers of the last axis of an array, in its shape and type."""
    return jnp.broadcast_to(jnp.asarray(values, array.dtype), array.shape)
