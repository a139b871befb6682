"""Parakeet's log-mel features, of one clip: transformers' ``ParakeetFeatureExtractor`` (before 5.21 it needs librosa).

A pre-emphasis, the power spectrogram of windows that are centred on every ``hop_length``-th sample, Slaney's mel bands,
a logarithm, and each band's mean and deviation over the clip brought to 0 and 1. What a clip is padded with would enter
neither, so every clip is computed at its own length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

_EPSILON = 1e-5  # beside a band's deviation
_SILENCE = 2**-24  # beside a band's power
_FEWEST = 2  # frames that have a deviation


@dataclass(frozen=True)
class LogMel:
    """What preprocessor_config.json tells.

    Attributes:
        feature_size: mel bands.
        sampling_rate: of the waveforms, in Hz.
        hop_length: samples between two frames.
        n_fft: samples that are transformed.
        win_length: samples of these that a window lets through.
        preemphasis: share of the sample before that is taken off each.
    """

    feature_size: int = 80
    sampling_rate: int = 16_000
    hop_length: int = 160
    n_fft: int = 512
    win_length: int = 400
    preemphasis: float = 0.97

    @property
    def shortest(self) -> int:
        """Samples that shorter clips are padded to with silence."""
        return _FEWEST * self.hop_length

    def __call__(self, waveform: np.ndarray) -> Tensor:
        """Features [frames, bands] of a mono float32 ``waveform`` [samples]: a frame for every full hop."""
        samples = torch.from_numpy(np.array(waveform, np.float32))
        samples = torch.nn.functional.pad(samples, (0, max(0, self.shortest - len(samples))))
        emphasised = torch.cat([samples[:1], samples[1:] - self.preemphasis * samples[:-1]])
        window = torch.hann_window(self.win_length, periodic=False)
        spectrum = torch.stft(
            emphasised,
            self.n_fft,
            self.hop_length,
            self.win_length,
            window,
            pad_mode="constant",
            return_complex=True,
        )
        bands = torch.log(self._filters @ torch.view_as_real(spectrum).square().sum(-1) + _SILENCE).T
        bands = bands[: len(samples) // self.hop_length]
        return (bands - bands.mean(dim=0)) / (bands.std(dim=0) + _EPSILON)

    @cached_property
    def _filters(self) -> Tensor:
        """[bands, frequencies]."""
        filters = mel_filter_bank(
            num_frequency_bins=self.n_fft // 2 + 1,
            num_mel_filters=self.feature_size,
            min_frequency=0.0,
            max_frequency=self.sampling_rate / 2,
            sampling_rate=self.sampling_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        return torch.from_numpy(np.ascontiguousarray(filters.T)).float()


def read_extractor(folder: Path) -> Any:
    """What the files of a checkpoint in ``folder`` describe: :class:`LogMel`, or another model's extractor.

    Raises:
        OSError: there is none.
    """
    from transformers import AutoFeatureExtractor, FeatureExtractionMixin

    told, _ = FeatureExtractionMixin.get_feature_extractor_dict(folder)
    if told.get("feature_extractor_type") != "ParakeetFeatureExtractor":
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    return LogMel(**{name: told[name] for name in LogMel.__dataclass_fields__ if name in told})
