"""The measurement reports plausible numbers of the machine it runs on."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np
import pytest
import torch

from src.machine.memory_peak import measure_peak
from src.models.speech import SpeechModel
from src.profiling.latency import measure, noise
from tests.tiny import tiny_moonshine, tiny_whisper

CPU = torch.device("cpu")


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_measures_encoder_prefill_and_tokens(build: Callable[[], SpeechModel]) -> None:
    latency = measure(build(), seconds=1.0, tokens=4, repeats=2, seed=0)
    assert 0 < latency.encoder_ms <= latency.encoder_p95_ms
    assert 0 < latency.token_ms <= latency.token_p95_ms
    assert latency.prefill_ms > 0
    assert latency.threads == torch.get_num_threads()
    assert latency.device
    assert latency.peak_memory_mib > 50  # torch alone takes more
    assert latency.peak_device_memory_mib is None


def test_every_repeat_does_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    speech = tiny_moonshine()
    lengths: list[int] = []
    decode_step = speech.decode_step

    def recorded(tokens: torch.Tensor, *arguments: object) -> torch.Tensor:
        lengths.append(tokens.shape[1])
        return decode_step(tokens, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(speech, "decode_step", recorded)
    measure(speech, seconds=1.0, tokens=3, repeats=2, seed=0)
    warm_up = 2
    assert lengths == [len(speech.prompt), 1, 1, 1] * (warm_up + 2)


def test_noise_is_a_seeded_waveform() -> None:
    waveform = noise(0.5, 16_000, seed=3)
    assert waveform.shape == (8_000,)
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() <= 1.0
    np.testing.assert_array_equal(waveform, noise(0.5, 16_000, seed=3))
    assert not np.array_equal(waveform, noise(0.5, 16_000, seed=4))


def test_peak_counts_the_block_and_forgets_what_came_before() -> None:
    mib = 1024**2
    with measure_peak(CPU) as idle:
        pass
    with measure_peak(CPU) as busy:
        block = mmap.mmap(-1, 96 * mib)  # fresh pages: an array might be given memory that the heap still holds
        block.write(bytes([1]) * len(block))
    assert busy.process_mib > idle.process_mib + 64
    block.close()
    with measure_peak(CPU) as after:
        pass
    if after.since_start:
        pytest.skip("this system cannot reset the peak counter")
    assert after.process_mib < busy.process_mib - 64
