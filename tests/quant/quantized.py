"""Tiny models, quantized as settings ask, and what they answer."""

from __future__ import annotations

import torch
from torch import Tensor

from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.settings import Settings
from tests.calib.clips import noise_calibration


def quantized(speech: SpeechModel, settings: Settings) -> Quantizer:
    """Quantizes ``speech`` in place, calibrated on two clips of noise."""
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


@torch.inference_mode()
def logits(speech: SpeechModel) -> Tensor:
    """Of a clip of noise, [1, length, vocab]."""
    calibration = noise_calibration(speech, 5)
    return speech.forward_tokens(torch.tensor(calibration.tokens[:1]), speech.encode(calibration.features[:1]))
