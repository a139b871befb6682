"""Whisper's log-mel spectrogram for a batch of any length, as WhisperFeatureExtractor computes it for full chunks."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

HOP = 160  # samples between frames
_FFT = 400  # samples


@cache
def _filters(mels: int) -> Tensor:
    """(mels, FFT bins), Slaney scale and norm, 0 to 8 kHz."""
    bank = mel_filter_bank(1 + _FFT // 2, mels, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(bank).to(torch.float32).T.contiguous()


def log_mel(audio: Tensor, mels: int = 80) -> Tensor:
    """Audio (batch, samples) at 16 kHz to log-mel frames (batch, mels, samples // 160), 80 dB deep."""
    spectrum = torch.stft(audio, _FFT, HOP, window=torch.hann_window(_FFT), return_complex=True)
    power = torch.view_as_real(spectrum[..., :-1]).square().sum(-1)
    level = (_filters(mels) @ power).clamp(min=1e-10).log10()
    level = torch.maximum(level, level.amax((1, 2), keepdim=True) - 8.0)
    return (level + 4.0) / 4.0
