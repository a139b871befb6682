"""The calibration set: what is kept of a clip."""

from __future__ import annotations

import logging

import pytest
import torch

from src.calib.capture import capture
from src.data.utterance import Utterance
from src.models.speech import SpeechModel
from tests.evaluation.long_audio import encoded, modulated
from tests.tiny import tiny_moonshine, tiny_whisper


@pytest.mark.parametrize("speech", [tiny_whisper(seed=9), tiny_moonshine(seed=8)], ids=["whisper", "moonshine"])
def test_of_a_long_clip_the_first_window_is_kept(speech: SpeechModel, caplog: pytest.LogCaptureFixture) -> None:
    """Teacher forcing replays one window, so the tokens must be those of just that audio."""
    waveform = modulated(12, seed=0)
    long, first = [
        Utterance(id=name, text="", samples=len(samples), audio=encoded(samples))
        for name, samples in (("long", waveform), ("first", waveform[: speech.window]))
    ]
    with caplog.at_level(logging.INFO):
        calibration = capture(speech, [first, long], batch_size=2, suppress=True)
    assert calibration.ids == ["long", "first"]
    assert calibration.seconds == [speech.window / 16_000] * 2
    assert calibration.tokens[0] == calibration.tokens[1]
    torch.testing.assert_close(calibration.features[0], calibration.features[1], atol=0, rtol=0)
    assert "1 of 2 utterances last longer than" in caplog.text
