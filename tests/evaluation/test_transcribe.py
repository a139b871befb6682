"""Transcribing a corpus: in corpus order, and resumed after a kill without doing a finished batch again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from src.data.utterance import Utterance
from src.evaluation.decode import batches
from src.evaluation.transcribe import (
    Transcript,
    journal_seconds,
    load_transcripts,
    save_transcripts,
    transcribe,
    transcribe_corpus,
)
from src.models.speech import SpeechModel
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
    entries = [json.loads(line) for line in journal.read_text(encoding="ascii").splitlines()]
    return [(entry["batch"], entry["transcripts"]) for entry in entries]


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


@pytest.mark.parametrize("cut", [1, 2, 40, -1])
def test_a_cut_last_line_costs_one_batch(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path, heard: list[str], cut: int
) -> None:
    """A kill leaves ``cut`` bytes of the line of the third batch, or all but its line feed (-1)."""
    journal = tmp_path / "journal"
    unbroken = transcripts(speech, corpus, journal)
    whole = journal.read_bytes()
    (tmp_path / "whole").write_bytes(whole)
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 4
    journal.write_bytes(lines[0] + lines[1] + lines[2][:cut])
    heard.clear()
    assert transcripts(speech, corpus, journal) == unbroken
    assert heard == [corpus[index].id for batch in batches(corpus, BATCH)[2:] for index in batch]
    assert finished(journal) == finished(tmp_path / "whole")


@pytest.mark.parametrize("cut", [0, 1])
def test_a_journal_cut_in_its_first_line_starts_anew(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path, cut: int
) -> None:
    unbroken = transcripts(speech, corpus, tmp_path / "whole")
    journal = tmp_path / "cut"
    journal.write_bytes((tmp_path / "whole").read_bytes()[:cut])
    assert transcripts(speech, corpus, journal) == unbroken
    assert finished(journal) == finished(tmp_path / "whole")


def test_a_journal_cut_inside_a_character_is_resumed(
    speech: SpeechModel, corpus: list[Utterance], tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    unbroken = transcripts(speech, corpus, journal)
    first, *_ = journal.read_bytes().splitlines(keepends=True)
    half = "é".encode()[:1]
    journal.write_bytes(first + b'{"batch": 1, "transcripts": [{"id": "' + half)
    assert transcripts(speech, corpus, journal) == unbroken


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


def test_the_journal_is_one_json_object_a_batch(speech: SpeechModel, corpus: list[Utterance], tmp_path: Path) -> None:
    transcripts(speech, corpus, tmp_path / "journal")
    entries = [json.loads(line) for line in (tmp_path / "journal").read_text(encoding="utf-8").splitlines()]
    assert [entry["batch"] for entry in entries] == [0, 1, 2, 3]
    assert [len(entry["transcripts"]) for entry in entries] == [2, 2, 2, 1]


def test_a_resumed_run_is_as_long_as_its_parts(speech: SpeechModel, corpus: list[Utterance], tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    transcripts(speech, corpus, journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    first = json.loads(lines[0])
    first["seconds"]["total"] += 1000  # a machine that was slow before the kill
    journal.write_bytes(json.dumps(first).encode() + b"\n" + lines[1])
    transcripts(speech, corpus, journal)
    assert len(journal.read_bytes().splitlines()) == 4
    seconds = journal_seconds(journal)
    assert 1000 < seconds["total"] < 1100
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
