"""A calibration set for the tiny models: noise of different lengths and arbitrary teacher tokens."""

from __future__ import annotations

import numpy as np

from src.calib.capture import Calibration
from src.models.speech import SpeechModel

LENGTHS = (28_000, 20_000, 15_000, 9_000, 5_000)  # samples


def noise_calibration(speech: SpeechModel, batch_size: int, seed: int = 0) -> Calibration:
    """Five clips; batches mix lengths, so that padding must be left out of every statistic."""
    random = np.random.default_rng(seed)
    waveforms = [random.normal(0, 0.1, length).astype(np.float32) for length in LENGTHS]
    tokens = [[*speech.prompt, *random.integers(4, 80, 3 + 2 * clip).tolist()] for clip in range(len(LENGTHS))]
    return Calibration(
        ids=[f"clip{clip}" for clip in range(len(LENGTHS))],
        seconds=[length / 16_000 for length in LENGTHS],
        waveforms=waveforms,
        features=speech.features(waveforms),
        tokens=tokens,
        batch_size=batch_size,
    )
