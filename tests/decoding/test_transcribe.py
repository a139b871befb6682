"""Transcribing a corpus: in corpus order, and resumed after a kill without doing a finished batch again."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.transcripts import Transcript, load_transcripts, save_transcripts
from src.data.utterance import Utterance
from src.decoding.decode import batches, greedy
from src.decoding.transcribe import journal_seconds, transcribe, transcribe_corpus
from src.models.speech import SpeechModel
from src.storage.journal import values
from tests.data.clips import tone
from tests.tiny import tiny_moonshine, tiny_whisper

BATCH = 2


@pytest.fixture(scope="module", params=["whisper", "moonshine"])
def speech(request: pytest.FixtureRequest) -> SpeechModel:
    return tiny_whisper(seed=9) if request.param == "whisper" else tiny_moonshine(seed=8)


@pytest.fixture(scope="module")
def corpus() -> list[Utterance]:
    """Seven tones, sorted neither by length nor by name."""
    random = np.random.default_rng(1)
    lengths = [(int(number), 0.3 + 0.15 * int(number)) for number in random.permutation(7)]
    return [
        Utterance(
            id=str(number),
            text=f"naïve {number}",
            samples=round(16_000 * seconds),
            audio=tone(seconds, 300 + 400 * number),
        )
        for number, seconds in lengths
    ]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the utterances whose audio is decoded from here on."""
    ids: list[str] = []
    waveform = Utterance.waveform

    def noted(utterance: Utterance) -> np.ndarray:
        ids.append(utterance.id)
        return waveform(utterance)

    monkeypatch.setattr(Utterance, "waveform", noted)
    return ids


def transcripts(speech: SpeechModel, corpus: list[Utterance], journal: Path, kv_bits: int = 16) -> list[Transcript]:
    return transcribe_corpus(speech, corpus, journal, batch_size=BATCH, suppress=True, kv_bits=kv_bits)


def finished(journal: Path) -> list[tuple[int, list[dict[str, object]]]]:
    """What is said of each batch, its seconds left out."""
    return [(entry["batch"], entry["transcripts"]) for entry in values(journal)]


def test_transcripts_come_in_corpus_order_and_each_is_its_utterances_own(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path
) -> None:
    found = transcripts(speech, corpus, tmp_path / "journal")
    for utterance, transcript in zip(corpus, found, strict=True):
        _, [tokens] = transcribe(speech, [utterance], suppress=True)
        assert transcript == Transcript(
            id=utterance.id,
            reference=utterance.text,
            hypothesis=speech.text(tokens).strip(),
            seconds=utterance.seconds,
            tokens=len(tokens),
            capped=len(tokens) == speech.max_new_tokens(utterance.samples),
            long_form=None,
            speaker=None,
        )
    assert len({transcript.hypothesis for transcript in found}) > 1


def test_a_finished_journal_is_read_and_nothing_is_decoded(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path, heard: list[str]
) -> None:
    journal = tmp_path / "journal"
    unbroken = transcripts(speech, corpus, journal)
    written = journal.read_bytes()
    assert sorted(heard) == sorted(item.id for item in corpus)
    heard.clear()
    assert transcripts(speech, corpus, journal) == unbroken
    assert heard == []
    assert journal.read_bytes() == written


@pytest.mark.parametrize("damage", ["cut", "edited"])
def test_a_damaged_line_costs_its_batch_and_what_follows(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path, heard: list[str], damage: str
) -> None:
    """An edited hypothesis is not taken up."""
    journal = tmp_path / "journal"
    unbroken = transcripts(speech, corpus, journal)
    (tmp_path / "whole").write_bytes(journal.read_bytes())
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    third = lines[3][:40] if damage == "cut" else lines[3].replace(b'"hypothesis": "', b'"hypothesis": "x', 1)
    journal.write_bytes(b"".join([*lines[:3], third, *(lines[4:] if damage == "edited" else [])]))
    heard.clear()
    assert transcripts(speech, corpus, journal) == unbroken
    assert heard == [corpus[index].id for batch in batches(corpus, BATCH)[2:] for index in batch]
    assert finished(journal) == finished(tmp_path / "whole")


@pytest.mark.parametrize("change", ["batch size", "model", "clips", "cache"])
def test_batches_of_other_settings_are_not_taken_up(
    corpus: list[Utterance], tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    """A run that was killed goes on with another batch size, rebuilt weights, other clips or another cache."""
    speech, journal, anew = tiny_moonshine(seed=8), tmp_path / "journal", tmp_path / "anew"
    before = {"batch_size": 2, "suppress": True, "kv_bits": 16, "basis": {"model": "one"}}
    now = {**before, **{"batch size": {"batch_size": 3}, "model": {"basis": {"model": "two"}}}.get(change, {})}
    now |= {"kv_bits": 2} if change == "cache" else {}
    clips = corpus[1:] if change == "clips" else corpus
    transcribe_corpus(speech, corpus, journal, **before)
    found = transcribe_corpus(speech, clips, journal, **now)
    assert "was begun with other" in caplog.text
    assert found == transcribe_corpus(speech, clips, anew, **now)
    assert finished(journal) == finished(anew)


@pytest.mark.parametrize("mark", ["\n", "é", '"', "\u2028", "\x85"])
def test_any_text_survives_journal_and_file(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path, mark: str
) -> None:
    [utterance, *_] = corpus
    odd = Utterance(id="odd", text=f"one{mark}two", samples=utterance.samples, audio=utterance.audio)
    found = transcripts(speech, [odd], tmp_path / "journal")
    assert transcripts(speech, [odd], tmp_path / "journal") == found
    save_transcripts(found, tmp_path / "transcripts.jsonl")
    assert load_transcripts(tmp_path / "transcripts.jsonl") == found
    assert found[0].reference == f"one{mark}two"


def test_a_quantized_cache_changes_what_is_heard(speech: SpeechModel, corpus: list[Utterance], tmp_path: Path) -> None:
    exact = transcripts(speech, corpus, tmp_path / "exact")
    assert transcripts(speech, corpus, tmp_path / "coarse", kv_bits=2) != exact


def test_the_journal_has_a_line_a_batch(speech: SpeechModel, corpus: list[Utterance], tmp_path: Path) -> None:
    transcripts(speech, corpus, tmp_path / "journal")
    entries = values(tmp_path / "journal")
    assert [entry["batch"] for entry in entries] == [0, 1, 2, 3]
    assert [len(entry["transcripts"]) for entry in entries] == [2, 2, 2, 1]


def test_a_resumed_run_is_as_long_as_its_parts(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, hours = tmp_path / "journal", count(0, 500)
    with monkeypatch.context() as patch:  # a machine that was slow before the kill
        patch.setattr("src.decoding.clock.time.perf_counter", lambda: float(next(hours)))
        transcripts(speech, corpus, journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    slow = values(journal)[0]["seconds"]["total"]
    assert slow >= 500
    journal.write_bytes(lines[0] + lines[1])
    transcripts(speech, corpus, journal)
    assert len(values(journal)) == 4
    seconds = journal_seconds(journal)
    assert slow < seconds["total"] < slow + 100
    assert set(seconds) == {"audio", "features", "wait", "encode", "decode", "total"}


def test_the_parts_make_up_the_whole(speech: SpeechModel, corpus: list[Utterance], tmp_path: Path) -> None:
    transcripts(speech, corpus, tmp_path / "journal")
    seconds = journal_seconds(tmp_path / "journal")
    parts = seconds["wait"] + seconds["encode"] + seconds["decode"]
    assert 0.5 * seconds["total"] < parts <= seconds["total"] + 0.01  # the rest makes text of tokens


def test_half_precision_is_transcribed_too(corpus: list[Utterance], tmp_path: Path) -> None:
    for build in (tiny_whisper, tiny_moonshine):
        half = build(seed=8)
        half.cast(torch.bfloat16)
        found = transcripts(half, corpus, tmp_path / build.__name__)
        assert all(item.tokens for item in found)


@pytest.mark.parametrize("together", [1, 4])
def test_clips_that_fit_half_of_the_window_are_heard_in_half_of_it(
    corpus: list[Utterance], tmp_path: Path, together: int
) -> None:
    speech = tiny_whisper(seed=9, max_source_positions=150)  # half of 3 s, less a second, holds some clips
    found = transcribe_corpus(
        speech, corpus, tmp_path / "journal", batch_size=together, suppress=True, kv_bits=16, by_clip=True
    )
    fits = [utterance.samples + 16_000 <= speech.window // 2 for utterance in corpus]
    assert len(set(fits)) == 2
    for utterance, transcript, half in zip(corpus, found, fits, strict=True):
        [features] = speech.features([utterance.waveform()])
        frames = features.shape[1] // 2 if half else features.shape[1]
        [tokens] = greedy(speech, [features[:, :frames]], [utterance.samples], suppress=True)
        assert transcript.hypothesis == speech.text(tokens).strip()
    whole = transcripts(speech, corpus, tmp_path / "whole")
    assert all(one == two for one, two, half in zip(found, whole, fits, strict=True) if not half)
    assert found != whole
