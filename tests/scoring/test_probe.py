"""Clips without speech: the same for a seed, of the levels and sounds they say, and words in them are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.data.transcripts import Transcript
from src.data.utterance import Utterance
from src.decoding.transcribe import transcribe_corpus
from src.scoring.probe import LEVELS, SECONDS, clips, hallucinations, kind
from src.text.normalizers import ENGLISH_RULES
from tests.tiny import tiny_moonshine

ALL = 4 * len(SECONDS) * len(LEVELS)


def wrote(name: str, hypothesis: str, seconds: float = 2.0, capped: bool = False) -> Transcript:
    return Transcript(name, "", hypothesis, seconds, 3, capped, None)


def test_the_seed_alone_decides_the_clips_and_more_clips_contain_fewer() -> None:
    some, more, others = clips(8, 3), clips(12, 3), clips(8, 4)
    for one, same, other in zip(some, more, others, strict=False):
        assert one.id == same.id == other.id
        np.testing.assert_array_equal(one.waveform(), same.waveform())
        assert (one.waveform() == other.waveform()).all() == one.id.startswith("silence")


def test_every_sound_comes_at_every_level_and_length() -> None:
    noises = {tuple(clip.id.split("-", 2)[::2]) for clip in clips(ALL, 0) if not clip.id.startswith("silence")}
    assert len(noises) == 3 * len(SECONDS) * len(LEVELS)


@pytest.mark.parametrize("clip", clips(ALL, 0), ids=lambda clip: clip.id)
def test_a_clip_is_as_long_and_as_loud_as_its_name_says(clip: Utterance) -> None:
    name, _, seconds, *level = clip.id.split("-", 3)
    wave = clip.waveform()
    assert len(wave) == clip.samples == round(float(seconds.removesuffix("s")) * 16_000)
    assert np.abs(wave).max() <= 1
    if name == "silence":
        assert not wave.any()
    else:
        loudness = 20 * np.log10(np.sqrt(np.mean(wave.astype(float) ** 2)))
        assert loudness == pytest.approx(
            float(level[0].removesuffix("dB")), abs=0.3
        )  # the loudest are clipped a little


def test_sounds_differ_in_colour_and_in_rhythm() -> None:
    white, pink, modulated = (clip.waveform().astype(float) for clip in clips(16, 0)[13:])
    low = [np.sum(np.abs(np.fft.rfft(wave))[: 5 * 1000] ** 2) / np.sum(wave**2) for wave in (white, pink)]
    assert low[1] > 3 * low[0]  # power below 1 kHz
    envelope = [np.sqrt(np.mean(wave.reshape(-1, 400) ** 2, axis=1)) for wave in (pink, modulated)]  # 40 a second
    at_four = [np.abs(np.fft.rfft(values - values.mean()))[20] / values.sum() for values in envelope]  # 4 Hz of 5 s
    assert at_four[1] > 5 * at_four[0]


def test_words_are_counted_as_they_are_scored() -> None:
    found = hallucinations(
        [
            wrote("silence-000-2s", ""),
            wrote("white-001-2s-20dB", " ... "),  # punctuation is no word
            wrote("pink-002-2s-20dB", "Thank you.", capped=True),
            wrote("modulated-003-2s-20dB", "you you you you", 4.0),
        ],
        ENGLISH_RULES,
    )
    assert (found.clips, found.seconds, found.words) == (4, 10.0, 6)
    assert found.clips_with_words == 50.0
    assert found.words_per_minute == pytest.approx(36.0)
    assert (found.loops, found.capped) == (1, 1)


def test_the_kind_of_a_transcript_is_in_its_id() -> None:
    assert [kind(wrote(clip.id, "")) for clip in clips(4, 0)] == ["silence", "white", "pink", "modulated"]


def test_a_model_hears_the_same_in_the_same_clips(tmp_path: Path) -> None:
    speech = tiny_moonshine(seed=8)

    def decoded(name: str, batch_size: int) -> list[Transcript]:
        return transcribe_corpus(speech, clips(8, 0), tmp_path / name, batch_size=batch_size, suppress=True, kv_bits=16)

    assert decoded("together", 8) == decoded("alone", 1)
