"""Piano rolls as MIDI files."""

from __future__ import annotations

import io
from types import ModuleType

import numpy as np
from jaxtyping import Shaped

from gru_jax.data.piano_rolls import LOWEST
from gru_jax.errors import ArgumentError, import_extra

BEAT_SECONDS = 0.5  # at MIDI's default tempo, which files without another one have
TICKS_OF_BEAT = 480
VELOCITY = 80
LONGEST_FRAME = 10.0  # seconds


def midi_of_roll(roll: Shaped[np.ndarray, "T 88"], frame_seconds: float = 0.25) -> bytes:
    """The content of a MIDI file of one track that plays a piano roll.

    A note that sounds in frames one after the other is one note: rolls do not say where it would be struck again.

    Args:
        roll: whether each key, from the lowest of a piano, is down in each frame.
        frame_seconds: how long a frame lasts, to about a thousandth.

    Raises:
        UsageError: mido is not installed, or a frame lasts less than a tick, or more than 10 seconds.

    Examples:
        >>> import numpy as np
        >>> from gru_jax.data.midi import midi_of_roll
        >>> midi_of_roll(np.zeros((4, 88)))[:4]
        b'MThd'
    """
    mido = import_mido()
    shortest = BEAT_SECONDS / TICKS_OF_BEAT
    if not shortest / 2 < frame_seconds <= LONGEST_FRAME:
        raise ArgumentError(
            f"frame_seconds={frame_seconds}: allowed are numbers from {shortest:.2g} to {LONGEST_FRAME:g}"
        )
    ticks = round(frame_seconds / shortest)
    down = np.pad(np.asarray(roll) > 0, [(1, 1), (0, 0)])  # all keys are up before and after
    changes = down[1:].astype(int) - down[:-1]
    track, last = mido.MidiTrack(), 0
    for frame, direction in enumerate(changes):
        for kind, wanted in (("note_off", -1), ("note_on", 1)):
            for column in np.flatnonzero(direction == wanted):
                time, last = (frame - last) * ticks, frame
                track.append(mido.Message(kind, note=LOWEST + int(column), velocity=VELOCITY, time=time))
    track.append(mido.MetaMessage("end_of_track", time=(len(changes) - 1 - last) * ticks))
    stream = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=TICKS_OF_BEAT, tracks=[track]).save(file=stream)
    return stream.getvalue()


def import_mido() -> ModuleType:
    """Mido, which writes MIDI files.

    Raises:
        UsageError: it is not installed.
    """
    return import_extra("music", "mido, which writes MIDI files,", "mido")
