"""The calibration set: what is kept of a clip."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from src.calib.capture import capture, load_calibration
from src.data.utterance import Utterance
from src.decoding.transcribe import transcribe
from src.models.speech import SpeechModel
from tests.decoding.long_audio import encoded, modulated
from tests.tiny import tiny_moonshine, tiny_whisper


@pytest.mark.parametrize("speech", [tiny_whisper(seed=9), tiny_moonshine(seed=8)], ids=["whisper", "moonshine"])
def test_of_a_long_clip_the_first_window_is_kept(
    speech: SpeechModel, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Teacher forcing replays one window, so the tokens must be those of just that audio."""
    waveform = modulated(12, seed=0)
    long, first = [
        Utterance(id=name, text="", samples=len(samples), audio=encoded(samples))
        for name, samples in (("long", waveform), ("first", waveform[: speech.window]))
    ]
    with caplog.at_level(logging.INFO):
        calibration = capture(speech, [first, long], tmp_path / "journal", batch_size=2, suppress=True)
    assert calibration.ids == ["long", "first"]
    assert calibration.seconds == [speech.window / 16_000] * 2
    assert calibration.tokens[0] == calibration.tokens[1]
    torch.testing.assert_close(calibration.features[0], calibration.features[1], atol=0, rtol=0)
    assert "1 of 2 utterances last longer than" in caplog.text


@pytest.mark.parametrize("speech", [tiny_whisper(seed=9), tiny_moonshine(seed=8)], ids=["whisper", "moonshine"])
def test_a_capture_that_was_killed_goes_on_with_the_next_batch(
    speech: SpeechModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [
        Utterance(id=str(seed), text="", samples=len(samples), audio=encoded(samples))
        for seed, samples in enumerate(modulated(1 + seed, seed=seed) for seed in range(3))
    ]
    whole = capture(speech, clips, tmp_path / "whole", batch_size=1, suppress=True)
    *earlier, third = (tmp_path / "whole").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").write_bytes(b"".join(earlier) + third[:-2])
    heard: list[str] = []

    def counted(speech: SpeechModel, batch: list[Utterance], *, suppress: bool) -> object:
        heard.extend(clip.id for clip in batch)
        return transcribe(speech, batch, suppress=suppress)

    monkeypatch.setattr("src.calib.capture.transcribe", counted)
    resumed = capture(speech, clips, tmp_path / "cut", batch_size=1, suppress=True)
    assert heard == whole.ids[2:]
    assert resumed.tokens == whole.tokens
    for one, two in zip(resumed.features, whole.features, strict=True):
        torch.testing.assert_close(one, two, atol=0, rtol=0)


@pytest.mark.parametrize("change", ["batch size", "clips", "suppressed tokens"])
def test_batches_that_were_transcribed_under_other_settings_are_not_taken_up(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that was killed goes on with another ``calib.batch_size``."""
    speech = tiny_whisper(seed=9)
    clips = [
        Utterance(id=str(seed), text="", samples=len(samples), audio=encoded(samples))
        for seed, samples in enumerate(modulated(1 + seed / 4, seed=seed) for seed in range(4))
    ]
    capture(speech, clips, tmp_path / "journal", batch_size=3, suppress=True)
    now = clips[1:] if change == "clips" else clips
    options = {"batch_size": 2 if change == "batch size" else 3, "suppress": change != "suppressed tokens"}
    found = capture(speech, now, tmp_path / "journal", **options)
    assert "was begun with other" in caplog.text
    anew = capture(speech, now, tmp_path / "anew", **options)
    assert (found.ids, found.tokens) == (anew.ids, anew.tokens)


@pytest.mark.parametrize("speech", [tiny_whisper(seed=9), tiny_moonshine(seed=8)], ids=["whisper", "moonshine"])
def test_what_is_read_back_is_what_was_kept(speech: SpeechModel, tmp_path: Path) -> None:
    """Features too, which are not stored but computed again, and not batch by batch."""
    clips = [
        Utterance(id=str(seed), text="", samples=len(samples), audio=encoded(samples))
        for seed, samples in enumerate(modulated(1 + seed, seed=seed) for seed in range(4))
    ]
    kept = capture(speech, clips, tmp_path / "journal", batch_size=3, suppress=True)
    kept.save(tmp_path)
    back = load_calibration(tmp_path, speech, batch_size=3)
    assert (back.ids, back.seconds, back.tokens) == (kept.ids, kept.seconds, kept.tokens)
    for one, two in zip(back.features, kept.features, strict=True):
        torch.testing.assert_close(one, two, atol=0, rtol=0)
    assert kept.part([2, 0]).ids == ["1", "3"]
