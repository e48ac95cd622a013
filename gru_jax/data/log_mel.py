"""Log-mel frames of sound, by pure functions that run inside compiled programs, and without JAX too."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LINEAR_BELOW = 1000.0
"""Hertz up to which Slaney's mel scale is linear, three mels for every 200; above, 27 mels for every factor of 6.4."""
_HERTZ_PER_MEL = 200.0 / 3.0
_LOG_STEP = np.log(6.4) / 27.0
LEAST_POWER = 1e-10


def log_mel(
    waves: Float[Array | np.ndarray, "B T"], rate: int, window: int, hop: int, bands: int
) -> Float[Array | np.ndarray, "B F bands"]:
    """The natural logarithm of the power in each of some mel bands, frame by frame.

    As `librosa.feature.melspectrogram` with its defaults: frames centred on every `hop` samples, silence beyond both
    ends, a periodic Hann window, and Slaney's triangles of equal area (Auditory Toolbox, 1998). Powers below 1e-10
    count as that.

    Args:
        waves: of each sound, filled up with zeros: a sound of L samples has `L // hop + 1` frames of its own, which do
            not depend on what follows it. Of NumPy's arrays the frames are NumPy's, without JAX.
        rate: samples a second.
        window: samples of a frame, an even number.
        hop: samples from a frame to the next.
        bands: of the mel scale, from 0 to half the rate.

    Examples:
        >>> import jax.numpy as jnp
        >>> from gru_jax.data.log_mel import log_mel
        >>> log_mel(jnp.zeros((1, 800)), 8000, 256, 80, 40).shape
        (1, 11, 40)
    """
    xp: Any = np if isinstance(waves, np.ndarray) else jnp
    count = waves.shape[1] // hop + 1
    padded = xp.pad(waves, [(0, 0), (window // 2, window // 2)])
    places = hop * np.arange(count)[:, None] + np.arange(window)[None, :]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = xp.fft.rfft(padded[:, places] * xp.asarray(hann, waves.dtype)[None, None], axis=-1)
    power = (xp.square(spectrum.real) + xp.square(spectrum.imag)).astype(waves.dtype)
    filters = xp.asarray(mel_filters(rate, window, bands), waves.dtype)
    return xp.log(xp.maximum(power @ filters.T, LEAST_POWER))


@functools.cache
def mel_filters(rate: int, window: int, bands: int) -> Float[np.ndarray, "bands K"]:
    """The weight of each frequency of a Fourier transform of `window` samples in each mel band."""
    frequencies = np.fft.rfftfreq(window, 1.0 / rate)
    edges = _hertz(np.linspace(0.0, _mels(rate / 2.0), bands + 2))
    low, centre, high = (edges[i : i + bands, None] for i in range(3))
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)


def _mels(hertz: float) -> float:
    if hertz < LINEAR_BELOW:
        return hertz / _HERTZ_PER_MEL
    return LINEAR_BELOW / _HERTZ_PER_MEL + np.log(hertz / LINEAR_BELOW) / _LOG_STEP


def _hertz(mels: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    first_log = LINEAR_BELOW / _HERTZ_PER_MEL
    return np.where(
        mels < first_log,
        mels * _HERTZ_PER_MEL,
        LINEAR_BELOW * np.exp(_LOG_STEP * (np.maximum(mels, first_log) - first_log)),
    )
