"""Audio longer than the window: Whisper's sequential decoding is transformers' own; segments are cut in pauses."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from transformers.cache_utils import DynamicLayer

from src.data.audio import SAMPLING_RATE, Waveform
from src.data.transcripts import Transcript
from src.data.utterance import Utterance
from src.decoding.decode import greedy
from src.decoding.longform import Course, cuts, decode_long, sequential
from src.decoding.transcribe import transcribe_corpus
from src.models.loading import load
from src.models.speech import SpeechModel
from src.models.whisper.speech import WhisperSpeech
from src.quant.fake import kv_layer_factory
from src.runs.records import build_record
from src.scoring.wer import score
from src.stages.evaluate import Evaluate
from src.stages.point import open_point
from src.text.normalizers import ENGLISH_RULES
from tests.composed import composed
from tests.data.clips import clip, write
from tests.decoding.long_audio import encoded, generated, modulated, timed_whisper
from tests.tiny import tiny_moonshine
from tests.utterances import load_utterances

LENGTHS = (5.3, 2.51, 3.77)  # seconds; windows are 2 s long
# Random models that together know every ending of a window: pairs, none, a single time, the cap. (seed, end token)
MODELS = [(1, 28), (2, 5), (8, 17), (11, 62)]


def decoded(speech: WhisperSpeech, waveforms: list[Waveform], batch_size: int = 4) -> list[Course]:
    times = speech.time_tokens
    assert times is not None
    search = partial(greedy, speech, suppress=True, kv_layer=DynamicLayer)
    return sequential(speech, times, waveforms, batch_size, search)


def long_audio(seed: int) -> list[Waveform]:
    return [modulated(seconds, 10 * seed + number) for number, seconds in enumerate(LENGTHS)]


def utterance(name: str, waveform: Waveform, text: str = "words") -> Utterance:
    return Utterance(id=name, text=text, samples=len(waveform), audio=encoded(waveform))


def transcripts(
    speech: SpeechModel, clips: list[Utterance], journal: Path, *, truncate: bool = False, batch_size: int = 8
) -> list[Transcript]:
    return transcribe_corpus(
        speech, clips, journal, batch_size=batch_size, suppress=True, kv_bits=16, truncate=truncate
    )


@pytest.mark.parametrize(("seed", "eos"), MODELS)
def test_sequential_decoding_is_that_of_transformers(seed: int, eos: int) -> None:
    speech, waveforms = timed_whisper(seed, eos), long_audio(seed)
    for course, waveform in zip(decoded(speech, waveforms), waveforms, strict=True):
        assert course.tokens == generated(speech, waveform)


def test_sequential_decoding_is_that_of_transformers_at_the_true_shape() -> None:
    settings = composed("model=whisper_tiny", "model.random_weights=true")
    speech = load(settings.model, "cpu", 0)
    assert isinstance(speech, WhisperSpeech)
    generation = speech.module.generation_config
    times = {"no_timestamps_token_id": 50363, "max_initial_timestamp_index": 50}
    language = {"lang_to_id": {"<|en|>": 50259}, "task_to_id": {"transcribe": 50359}, "is_multilingual": True}
    for name, value in {**times, **language, "max_length": 8}.items():
        setattr(generation, name, value)
    speech.prompt = (50258, 50259, 50359, 50363)
    waveform = modulated(31, seed=0)
    [course] = decoded(speech, [waveform])
    generation.max_length = 448
    assert course.tokens == generated(speech, waveform, language="en", task="transcribe", max_new_tokens=8)
    assert course.capped
    assert course.generated > 8  # several windows


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_do_not_change_a_sequentially_decoded_token(batch_size: int) -> None:
    speech, waveforms = timed_whisper(1, 28), long_audio(1)
    together = decoded(speech, waveforms)
    apart = decoded(speech, waveforms[::-1], batch_size)[::-1]
    assert [course.tokens for course in apart] == [course.tokens for course in together]


def test_a_quantized_cache_is_used_and_gives_the_same_alone_and_together() -> None:
    speech = timed_whisper(1, 28)
    clips = [utterance(str(number), waveform) for number, waveform in enumerate(long_audio(1))]
    search = partial(greedy, speech, suppress=True, kv_layer=kv_layer_factory(2))
    decode = partial(decode_long, speech, batch_size=4)
    coarse = decode(clips, search=search)
    assert coarse != decode(clips, search=partial(search, kv_layer=DynamicLayer))
    assert coarse == [decode([clip], search=search)[0] for clip in clips]


def test_a_transcript_counts_all_windows(tmp_path: Path) -> None:
    speech = timed_whisper(11, 62)
    waveforms = [*long_audio(11), modulated(1.5, seed=3)]
    clips = [utterance(str(number), waveform) for number, waveform in enumerate(waveforms)]
    found = transcripts(speech, clips, tmp_path / "journal")
    courses = decoded(speech, waveforms[:3])
    for transcript, course, long in zip(found, courses, clips, strict=False):
        assert (transcript.long_form, transcript.seconds) == ("sequential", long.seconds)
        assert (transcript.tokens, transcript.capped) == (course.generated, course.capped)
        assert transcript.hypothesis == " ".join(str(token) for token in course.tokens if token < 96)
    assert found[3].long_form is None
    assert {course.capped for course in courses} == {True, False}


@pytest.mark.parametrize("speech", [timed_whisper(2, 5), tiny_moonshine(seed=8)], ids=["whisper", "moonshine"])
def test_truncation_hears_the_first_window_and_says_so(
    speech: SpeechModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waveform = modulated(12, seed=0)
    whole, first = utterance("whole", waveform), utterance("first", waveform[: speech.window])
    with caplog.at_level(logging.INFO):
        cut, alone = transcripts(speech, [whole, first], tmp_path / "journal", truncate=True)
    assert (cut.long_form, alone.long_form) == ("truncated", None)
    assert (cut.hypothesis, cut.tokens, cut.capped) == (alone.hypothesis, alone.tokens, alone.capped)
    assert cut.seconds == 12
    assert "1 of 2 utterances last longer than" in caplog.text
    assert "the rest is left out" in caplog.text


def test_segments_are_capped_one_by_one(tmp_path: Path) -> None:
    speech = tiny_moonshine(seed=8)
    speech.eos = -1  # never emitted
    waveform = modulated(25, seed=0)
    [found] = transcripts(speech, [utterance("long", waveform)], tmp_path / "journal")
    parts = np.split(waveform, cuts(waveform, speech.window))
    assert len(parts) > 2
    assert found.tokens == sum(speech.max_new_tokens(len(part)) for part in parts)
    assert (found.capped, found.long_form) == (True, "segments")


@pytest.mark.parametrize("seconds", [10.1, 13.2, 13.4, 20.0, 33.3, 71.9])
def test_segments_fit_the_window_and_none_is_short(seconds: float) -> None:
    waveform = modulated(seconds, seed=0)
    window = 10 * SAMPLING_RATE
    lengths = [len(part) for part in np.split(waveform, cuts(waveform, window))]
    assert sum(lengths) == len(waveform)
    assert max(lengths) <= window
    assert min(lengths) >= window // 4


def test_cuts_lie_in_pauses() -> None:
    """Pauses of 0.3 s every 2.5 s, with a little noise; words are separated by gaps of 0.08 s."""
    random = np.random.default_rng(0)
    time = np.arange(60 * SAMPLING_RATE) / SAMPLING_RATE
    voiced = (time % 2.5 < 2.2) & (time % 0.5 < 0.42)
    waveform = (np.where(voiced, 0.2, 0.002) * random.standard_normal(len(time))).astype(np.float32)
    found = cuts(waveform, 10 * SAMPLING_RATE)
    assert len(found) >= 6
    assert all((cut / SAMPLING_RATE) % 2.5 > 2.2 for cut in found)


def test_of_equally_quiet_points_the_latest_is_cut() -> None:
    silence = np.zeros(25 * SAMPLING_RATE, np.float32)
    first, *_ = cuts(silence, 10 * SAMPLING_RATE)
    assert first == pytest.approx(9.9 * SAMPLING_RATE, abs=1)


@pytest.mark.parametrize("model", ["sandbox_whisper", "sandbox_moonshine"])
def test_a_long_recording_is_heard_as_well_as_its_parts(model: str, tmp_path: Path) -> None:
    """Twelve sentences of 2.2 s and more, 3.6 s from one to the next: neither model knows more than one at a time."""
    settings = composed(f"model={model}")
    speech = load(settings.model, "cpu", 0)
    parts = [part for part in load_utterances(settings.dataset, seed=0) if 2.2 <= part.seconds < 3.4][:12]
    padded = [np.pad(part.waveform(), (0, 57_600 - part.samples)) for part in parts]
    whole = utterance("whole", np.concatenate(padded), " ".join(part.text for part in parts))
    [found] = transcripts(speech, [whole], tmp_path / "whole")
    apart = transcripts(speech, parts, tmp_path / "parts")
    pooled = score([part.text for part in parts], [part.hypothesis for part in apart], ENGLISH_RULES).wer
    assert (found.seconds, found.long_form, found.capped) == (12 * 3.6, "segments", False)
    assert score([whole.text], [found.hypothesis], ENGLISH_RULES).wer < pooled + 4
    [cut] = transcripts(speech, [whole], tmp_path / "cut", truncate=True)
    assert score([whole.text], [cut.hypothesis], ENGLISH_RULES).wer > 90


@pytest.mark.parametrize(("long_form", "told"), [("sequential", "segments"), ("truncate", "truncated")])
def test_the_record_says_what_was_done_with_long_audio(long_form: str, told: str, tmp_path: Path) -> None:
    settings = composed("model=sandbox_whisper", "dataset.limit=4")
    parts = load_utterances(settings.dataset, seed=0)
    whole = encoded(np.concatenate([part.waveform() for part in parts]))
    write(tmp_path / "own/test-0.parquet", [clip("whole", audio=whole), clip("part", audio=parts[0].encoded())])
    own = (
        "dataset.config=own",
        "dataset.columns.speaker=null",
        f"dataset.root={tmp_path}",
        f"output_dir={tmp_path / 'output'}",
    )
    point = open_point(composed("model=sandbox_whisper", "method=fp", f"evaluate.long_form={long_form}", *own))
    Evaluate().run(point)
    assert build_record(point).plain["results"]["evaluate"]["long_form"] == {told: 1}
