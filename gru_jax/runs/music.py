"""Music that the network of a run makes up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from gru_jax.config.checkpoint_names import BEST
from gru_jax.data.midi import midi_of_roll
from gru_jax.data.piano_rolls import LOWEST, NOTES
from gru_jax.errors import ArgumentError, UsageError, check_argument
from gru_jax.plotting.music import plot_piano_roll
from gru_jax.plotting.style import save_figures
from gru_jax.runs.run import Run
from gru_jax.runs.stored import CHECKPOINT_KINDS, CheckpointKind
from gru_jax.runtime.devices import precision
from gru_jax.runtime.files import replace_file
from gru_jax.tasks import Music
from gru_jax.training.network import build_model
from gru_jax.training.sampling_labels import sample_frames


class SampledMusic(NamedTuple):
    """Music that a network made up.

    Attributes:
        roll: which keys of a piano are down in each frame.
        primed: how many of the first frames are those of a test piece.
        midi: the file to listen to.
        picture: the file to look at.
    """

    roll: Bool[np.ndarray, "T 88"]
    primed: int
    midi: Path
    picture: Path


def sample_music(
    run: Run,
    folder: str | os.PathLike[str] | None = None,
    *,
    frames: int = 200,
    prime: int = 0,
    piece: int = 0,
    temperature: float = 1.0,
    seed: int = 0,
    frame_seconds: float = 0.25,
    checkpoint: str = BEST,
) -> SampledMusic:
    """Let a run's network make up music, and write it as MIDI file and picture.

    Args:
        run: of the task music.
        folder: where `sample.mid` and `sample.png` go; None for the run's `plots`.
        frames: how many it makes up.
        prime: how many frames of a test piece it hears before; none needs no data.
        piece: the number of that piece.
        temperature: by which logits are divided; below 1 it plays what is likely.
        seed: of the draws.
        frame_seconds: how long a frame lasts in the MIDI file.
        checkpoint: which of the run's networks, best in validation or latest.

    Raises:
        UsageError: the run is of another task, there is no such checkpoint, or an argument is out of range.
    """
    task = run.config.task
    if not isinstance(task, Music):
        raise UsageError(
            f"{run.path}: of the task {type(task).__name__}; music is made up by networks of the task music"
        )
    check_argument("checkpoint", checkpoint, CHECKPOINT_KINDS)
    for name, value, low in (("frames", frames, 1), ("prime", prime, 0), ("piece", piece, 0)):
        if value < low:
            raise ArgumentError(f"{name}={value}: allowed are whole numbers from {low}")
    if not 0 < temperature < np.inf:
        raise ArgumentError(f"temperature={temperature}: allowed are numbers above 0")
    heard = _first_frames(task, piece, prime) if prime else np.zeros((0, NOTES), bool)
    read = np.concatenate([np.zeros((1, NOTES), bool), heard]) if task.first_frame or not prime else heard
    config, draws, params = run.config, jax.random.key(seed), run.params_at(cast("CheckpointKind", checkpoint))
    with precision(config.dtype, config.matmul_precision):
        model = build_model(config)
        drawn = jax.jit(lambda params, read, key: sample_frames(model, params, read, frames, key, temperature))(
            params, jnp.asarray(read, config.dtype), draws
        )
    roll = np.concatenate([heard, np.asarray(drawn)])
    where = run.path / "plots" if folder is None else Path(folder)
    content, midi = midi_of_roll(roll, frame_seconds), where / "sample.mid"
    (picture,) = save_figures({"sample": plot_piano_roll(roll, LOWEST, prime)}, where)
    replace_file(midi, content)
    return SampledMusic(roll, prime, midi, picture)


def _first_frames(task: Music, piece: int, count: int) -> Bool[np.ndarray, "count 88"]:
    """So many frames of a test piece."""
    pieces = task.pieces("test")
    if piece >= len(pieces):
        raise ArgumentError(f"piece={piece}: allowed are 0 to {len(pieces) - 1}, the test pieces")
    if count > len(pieces[piece]):
        raise ArgumentError(f"prime={count}: allowed are up to {len(pieces[piece])}, the frames of piece {piece}")
    return pieces[piece][:count] > 0
