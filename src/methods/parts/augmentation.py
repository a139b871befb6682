"""More clips than there are: calibration clips cut, joined, faster, slower, later in the window and in noise.

What a teacher says of a changed clip is as good a lesson as what it says of the clip; no label has to stay true. To
change the speed by resampling is the perturbation of Ko et al., *Audio Augmentation for Speech Recognition* (2015).
"""

from __future__ import annotations

import numpy as np

from src.calib.capture import Calibration
from src.decoding.decode import greedy
from src.machine.progress import progress
from src.models.speech import SpeechModel

LONGEST = 14.0  # seconds of a clip; half of Whisper's window holds them
SPEEDS = (0.9, 1.1)
EXCERPT, JOINED, GAP, LEAD = (2.0, 8.0), (1.0, 5.0), (0.0, 0.3), (0.0, 3.0)  # seconds
NOISE = (10.0, 30.0)  # dB between signal and noise
OFTEN, SELDOM = 0.5, 0.3  # how likely each change is


def augment(teacher: SpeechModel, calibration: Calibration, copies: int, seed: int) -> Calibration:
    """``copies`` changed clips of every clip, longest first, with what ``teacher`` says of them."""
    random, rate = np.random.default_rng(seed), teacher.sampling_rate
    limit = min(teacher.window, round(LONGEST * rate))
    clips = calibration.waveforms
    changed = [(f"{calibration.ids[clip]}+{copy}", clip) for copy in range(copies) for clip in range(len(clips))]
    heard = {name: perturb(clips, clip, random, rate)[:limit] for name, clip in changed}
    names = sorted(heard, key=lambda name: (-len(heard[name]), name))
    waveforms = [heard[name] for name in names]
    features = teacher.features(waveforms)
    tokens: list[list[int]] = []
    for start in progress(range(0, len(names), calibration.batch_size), "augment, batches"):
        batch = slice(start, start + calibration.batch_size)
        said = greedy(teacher, features[batch], [len(each) for each in waveforms[batch]], suppress=True)
        tokens += [[*teacher.prompt, *ids] for ids in said]
    seconds = [len(each) / rate for each in waveforms]
    return Calibration(names, seconds, waveforms, features, tokens, calibration.batch_size, calibration.silence)


def perturb(clips: list[np.ndarray], clip: int, random: np.random.Generator, rate: int) -> np.ndarray:
    """``clips[clip]``, float32 [samples] at ``rate`` Hz, with each kind of change or without, as ``random`` draws."""

    def seconds(bounds: tuple[float, float]) -> int:
        return round(random.uniform(*bounds) * rate)

    def excerpt(waveform: np.ndarray, length: int) -> np.ndarray:
        start = random.integers(max(len(waveform) - length, 0) + 1)
        return waveform[start : start + length]

    waveform = clips[clip]
    if random.random() < SELDOM:
        waveform = excerpt(waveform, seconds(EXCERPT))
    if random.random() < SELDOM:
        other = excerpt(clips[random.integers(len(clips))], seconds(JOINED))
        waveform = np.concatenate([waveform, np.zeros(seconds(GAP), np.float32), other])
    samples = max(1, round(len(waveform) / random.uniform(*SPEEDS)))
    waveform = np.interp(np.linspace(0, len(waveform) - 1, samples), np.arange(len(waveform)), waveform)
    if random.random() < OFTEN:
        waveform = np.concatenate([np.zeros(seconds(LEAD)), waveform])
    if random.random() < OFTEN:
        loudness = np.sqrt(np.mean(waveform**2)) * 10 ** (-random.uniform(*NOISE) / 20)
        waveform = waveform + loudness * random.standard_normal(len(waveform))
    return waveform.astype(np.float32)
