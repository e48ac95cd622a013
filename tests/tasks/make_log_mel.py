"""Write what librosa makes of a sound, for tests where it is not installed: `python -m tests.tasks.make_log_mel`."""

from __future__ import annotations

import librosa
import numpy as np

from tests.tasks.test_spoken_digits import BANDS, RATE, STORED, WINDOW, by_librosa, chirp

if __name__ == "__main__":
    filters = librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=BANDS)
    np.savez_compressed(STORED, powers=by_librosa(chirp()), filters=filters)
