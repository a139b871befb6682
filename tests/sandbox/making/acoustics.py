"""What happens to speech between mouth and model: rooms, noise, telephone lines. Batched, on tensors.

Every function takes audio (batch, samples) at 16 kHz and returns the same shape; randomness comes from one generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tests.sandbox.making.synthesis import RATE

NOISE_EXPONENTS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as frequency ** -exponent
BABBLE_VOICES = 6
_NOISE_SECONDS = 20
_RIR_SECONDS = 0.4
_TELEPHONE_BAND = (300.0, 3_400.0)  # Hz
_TELEPHONE_SLOPE = 60.0  # Hz over which the band's edges roll off


@dataclass(frozen=True)
class Distortion:
    """How often, and how strongly, speech is distorted.

    ``noise``, ``reverb``, ``telephone`` and ``either`` are probabilities an utterance, drawn independently; ``either``
    adds a room or a telephone line, one of the two. ``snr`` (dB), ``rt60`` (s) and ``gain`` (dB) are uniform ranges.
    """

    noise: float = 0.0
    reverb: float = 0.0
    telephone: float = 0.0
    either: float = 0.0
    snr: tuple[float, float] = (5.0, 15.0)
    rt60: tuple[float, float] = (0.15, 0.45)
    gain: tuple[float, float] = (-8.0, 2.0)


CLEAN = Distortion()
OTHER = Distortion(noise=1.0, either=1.0)
MILD = Distortion(noise=0.5, reverb=0.2, telephone=0.2, snr=(3.0, 25.0))
STRONG = Distortion(noise=0.65, either=0.55, snr=(3.0, 20.0))


def uniform(shape: tuple[int, ...], bounds: tuple[float, float], generator: Generator) -> Tensor:
    """Uniform random numbers of ``shape`` between the bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand(shape, generator=generator)


def coloured_noise(samples: int, exponent: float, generator: Generator) -> Tensor:
    """Gaussian noise (samples,) whose amplitude spectrum falls as frequency ** -exponent above 30 Hz."""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=generator))
    frequency = torch.fft.rfftfreq(samples, 1 / RATE).clamp(min=30.0)
    noise: Tensor = torch.fft.irfft(spectrum * frequency**-exponent, n=samples)
    return noise


def noise_bank(speech: list[Tensor], generator: Generator) -> Tensor:
    """A stretch of each noise, (kinds, samples), unit power: white, pink, brown, and babble made of ``speech``."""
    samples = _NOISE_SECONDS * RATE
    rows = [coloured_noise(samples, exponent, generator) for exponent in NOISE_EXPONENTS.values()]
    talkers = [torch.cat(speech[i::BABBLE_VOICES])[:samples] for i in range(BABBLE_VOICES)]
    bank = torch.stack([*rows, torch.stack(talkers).sum(0)])
    return bank / bank.square().mean(1, keepdim=True).sqrt()


def add_noise(audio: Tensor, lengths: Tensor, bank: Tensor, snr: Tensor, generator: Generator) -> Tensor:
    """Add a random piece of a random row of ``bank`` at ``snr`` (batch,) dB over each utterance's own power."""
    batch, samples = audio.shape
    rows = torch.randint(len(bank), (batch,), generator=generator).tolist()
    starts = torch.randint(bank.shape[1] - samples, (batch,), generator=generator).tolist()
    noise = torch.stack([bank[row, start : start + samples] for row, start in zip(rows, starts, strict=True)])
    power = audio.square().sum(1) / lengths
    level = (power / 10 ** (snr / 10)).sqrt() / noise.square().mean(1).sqrt()
    return audio + noise * level[:, None]


def reverberate(audio: Tensor, rt60: Tensor, generator: Generator) -> Tensor:
    """Convolve with synthetic rooms: a direct path and exponentially decaying noise, ``rt60`` (batch,) seconds."""
    batch, samples = audio.shape
    time = torch.arange(int(_RIR_SECONDS * RATE)) / RATE
    tail = torch.randn((batch, len(time)), generator=generator) * torch.exp(-6.9 * time / rt60[:, None])
    direct_to_tail = uniform((batch, 1), (0.3, 1.0), generator)
    response = tail * direct_to_tail / tail.square().sum(1, keepdim=True).sqrt()
    response[:, 0] = 1.0
    size = _fast_size(samples + len(time))
    wet: Tensor = torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(response, size), size)
    return wet[:, :samples]


def change_tempo(audio: Tensor, lengths: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """Audio and lengths ``factor`` times as long, by linear interpolation: pitch and formants move with the tempo."""
    size = int(audio.shape[1] * factor)
    slower = torch.nn.functional.interpolate(audio[:, None], size=size, mode="linear")[:, 0]
    return slower, (lengths * factor).long()


def telephone(audio: Tensor) -> Tensor:
    """Keep the band of a telephone line, 300 to 3,400 Hz."""
    samples = audio.shape[1]
    size = _fast_size(samples)
    frequency = torch.fft.rfftfreq(size, 1 / RATE)
    low, high = _TELEPHONE_BAND
    band = torch.sigmoid((frequency - low) / _TELEPHONE_SLOPE) * torch.sigmoid((high - frequency) / _TELEPHONE_SLOPE)
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(audio, size) * band, size)
    return filtered[:, :samples]


def distort(audio: Tensor, lengths: Tensor, bank: Tensor, how: Distortion, generator: Generator) -> Tensor:
    """Distort each utterance by its own draw; samples past ``lengths`` (batch,) come back as zeros."""
    batch, samples = audio.shape
    audio = audio.clone()
    draw = torch.rand((4, batch), generator=generator)
    either, phone = draw[3] < how.either, torch.rand(batch, generator=generator) < 0.5
    rooms = ((draw[0] < how.reverb) | (either & ~phone)).nonzero().flatten()
    noisy = (draw[1] < how.noise).nonzero().flatten()
    lines = ((draw[2] < how.telephone) | (either & phone)).nonzero().flatten()
    if len(rooms):
        audio[rooms] = reverberate(audio[rooms], uniform((len(rooms),), how.rt60, generator), generator)
    if len(noisy):
        snr = uniform((len(noisy),), how.snr, generator)
        audio[noisy] = add_noise(audio[noisy], lengths[noisy], bank, snr, generator)
    if len(lines):
        audio[lines] = telephone(audio[lines])
    gain = 10 ** (uniform((batch, 1), how.gain, generator) / 20)
    loudest = audio.abs().amax(1, keepdim=True).clamp(min=1e-6)
    audio = audio * torch.minimum(gain, 0.99 / loudest)
    return audio * (torch.arange(samples) < lengths[:, None])


def _fast_size(samples: int) -> int:
    """The next multiple of 4,096, a length whose FFT is fast."""
    return -(-samples // 4_096) * 4_096
