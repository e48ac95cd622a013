"""Sound in WAV files, and in zip archives of them."""

from __future__ import annotations

import hashlib
import io
import wave
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gru_jax.errors import UsageError, in_one_line, listing

SOUND_SUFFIXES = (".wav", ".zip")


class Sound(NamedTuple):
    """A recording of one channel.

    Attributes:
        name: of its file, without folders.
        samples: of 16 bits, `[T]`.
        sha256: of the content of its file.
    """

    name: str
    samples: np.ndarray
    sha256: str


def read_sounds(path: Path, rate: int) -> list[Sound]:
    """The recordings of a `.wav` file or of a `.zip` of such files, in the order of their names.

    Args:
        path: of the file.
        rate: samples a second that they must have.

    Raises:
        UsageError: a file is damaged or cut short, of another rate, of several channels, or not of 16 bits.
    """
    if path.suffix not in SOUND_SUFFIXES:
        raise UsageError(f"{path}: allowed are files that end in {listing(SOUND_SUFFIXES)}")
    try:
        if path.suffix == ".wav":
            return [_sound(path.name, path.read_bytes(), str(path), rate)]
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
            contents = [archive.read(name) for name in names]
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{path}: cannot be read ({in_one_line(error)[:100]})") from error
    if not names:
        raise UsageError(f"{path}: has no .wav files")
    return [
        _sound(name.rsplit("/", 1)[-1], content, f"{path}: {name}", rate)
        for name, content in zip(names, contents, strict=True)
    ]


def _sound(name: str, content: bytes, where: str, rate: int) -> Sound:
    return Sound(name, samples_of_wav(content, where, rate), hashlib.sha256(content).hexdigest())


def samples_of_wav(content: bytes, where: str, rate: int) -> np.ndarray:
    """The samples of 16 bits of a WAV file's content, `[T]`.

    Raises:
        UsageError: as `read_sounds` says; `where` the file is stands before it.
    """
    try:
        with wave.open(io.BytesIO(content)) as sound:
            form, body = sound.getparams(), sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise UsageError(f"{where}: not a WAV file of plain samples ({in_one_line(error) or 'cut short'})") from error
    came = f"{form.nchannels} channels of {8 * form.sampwidth} bits at {form.framerate} Hz"
    if (form.nchannels, form.sampwidth, form.framerate) != (1, 2, rate):
        raise UsageError(f"{where}: has {came}; needed is 1 channel of 16 bits at {rate} Hz")
    if len(body) != 2 * form.nframes:
        raise UsageError(f"{where}: cut short, it has {len(body) // 2:,} samples and should have {form.nframes:,}")
    if not form.nframes:
        raise UsageError(f"{where}: has no samples")
    return np.frombuffer(body, "<i2").astype(np.int16)
