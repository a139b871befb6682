"""What the decoder is fed on calibration clips: the fp model's transcripts, or the references of the corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.calib.capture import capture
from src.data.utterance import Utterance
from src.models.loading import load
from src.models.speech import SpeechModel
from src.stages.point import open_point
from tests.composed import composed


@pytest.fixture(scope="module", params=["sandbox_whisper", "sandbox_moonshine"])
def speech(request: pytest.FixtureRequest) -> SpeechModel:
    return load(composed(f"model={request.param}").model, "cpu", 0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    output = tmp_path_factory.mktemp("outputs")
    return open_point(composed(f"output_dir={output}", "calib.n=6")).calibration_corpus.utterances()


def test_tokens_are_what_text_reads(speech: SpeechModel) -> None:
    for text in ("norway and mexico play gymnastics", " spaces around "):
        assert speech.text(speech.tokens(text)).strip() == text.strip()


def test_references_are_fed_behind_the_prompt(speech: SpeechModel, clips: list[Utterance], tmp_path: Path) -> None:
    by_id = {clip.id: clip for clip in clips}
    found = capture(speech, clips, tmp_path / "journal", batch_size=4, suppress=True, references=True)
    for name, tokens in zip(found.ids, found.tokens, strict=True):
        assert tuple(tokens[: len(speech.prompt)]) == speech.prompt
        assert speech.text(tokens[len(speech.prompt) :]).strip() == by_id[name].text


def test_a_clip_that_is_recognised_is_fed_the_same_either_way(
    speech: SpeechModel, clips: list[Utterance], tmp_path: Path
) -> None:
    generated, given = (
        capture(speech, clips, tmp_path / str(both), batch_size=4, suppress=True, references=both)
        for both in (False, True)
    )
    assert generated.ids == given.ids
    equal = [
        one == two
        for one, two in zip(generated.tokens, given.tokens, strict=True)
        if speech.text(one[len(speech.prompt) :]) == speech.text(two[len(speech.prompt) :])
    ]
    assert equal
    assert all(equal)


def test_a_reference_ends_at_the_cap_on_tokens(speech: SpeechModel, clips: list[Utterance], tmp_path: Path) -> None:
    long = Utterance("long", "one two three " * 200, clips[0].samples, clips[0].audio)
    (tokens,) = capture(speech, [long], tmp_path / "journal", batch_size=1, suppress=True, references=True).tokens
    assert len(tokens) == len(speech.prompt) + speech.max_new_tokens(long.samples)


def test_random_weights_have_no_tokenizer_for_references(tmp_path: Path) -> None:
    from src.errors import UserError
    from src.stages.calibrate import Calibrate

    changes = ("model.random_weights=true", "calib.decoder_inputs=reference", "model=moonshine_tiny")
    with pytest.raises(UserError, match=r"^calib\.decoder_inputs: .*no tokenizer"):
        Calibrate().check(open_point(composed(f"output_dir={tmp_path}", *changes)))
