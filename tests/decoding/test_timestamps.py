"""Time tokens: the rules are those of transformers' processor, and only complete segments stand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from src.decoding.decode import greedy
from src.decoding.longform import sequential
from src.decoding.timestamps import complete, time_rules
from src.models.speech import TimeTokens
from src.models.whisper.speech import WhisperSpeech
from tests.decoding.long_audio import NO_TIMESTAMPS, POSITIONS, modulated, timed_whisper
from tests.tiny import tiny_whisper

EOS, VOCABULARY = 89, 197
TIMES = TimeTokens(prompt=(90,), first=96, last=196, latest_start=50, cap=31, frames=2)
ZERO, ONE, TWO = 96, 146, 196  # tokens of the times 0, 1 and 2 s


def transformers_rules(logits: torch.Tensor, emitted: torch.Tensor) -> torch.Tensor:
    config = GenerationConfig(
        eos_token_id=EOS, no_timestamps_token_id=TIMES.first - 1, max_initial_timestamp_index=TIMES.latest_start
    )
    prompt = torch.full((len(logits), 1), TIMES.prompt[0])
    rules = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    forbidden: torch.Tensor = rules(torch.cat([prompt, emitted], dim=1), logits)
    return forbidden


@pytest.mark.parametrize("spread", [0.5, 4.0])  # flat logits, with which the times' mass wins; and peaked ones
def test_rules_are_those_of_transformers_along_whole_transcripts(spread: float) -> None:
    random = torch.Generator().manual_seed(0)
    emitted = torch.empty(64, 0, dtype=torch.long)
    kinds = set()
    for _ in range(20):
        logits = spread * torch.randn(64, VOCABULARY, generator=random)
        found = time_rules(TIMES, EOS, logits, emitted)
        torch.testing.assert_close(found, transformers_rules(logits, emitted), atol=0, rtol=0)
        assert torch.isfinite(found).any(dim=1).all()
        chosen = found.argmax(dim=1, keepdim=True)
        kinds |= {(token >= TIMES.first, token == EOS) for token in chosen.flatten().tolist()}
        emitted = torch.cat([emitted, chosen], dim=1)
    assert len(kinds) == 3  # times, text and the end were all chosen


def test_tokens_behind_the_times_are_words() -> None:
    """As a fine-tune adds them (transformers#33082): they may follow what text may, and end no segment."""
    random = torch.Generator().manual_seed(1)
    word, added = 7, TIMES.last + 1
    emitted = torch.empty(32, 0, dtype=torch.long)
    for _ in range(12):
        logits = 3 * torch.randn(32, VOCABULARY, generator=random)
        silent = torch.full((32, 1), float("-inf"))
        plain = time_rules(TIMES, EOS, logits, torch.where(emitted == added, word, emitted))
        torch.testing.assert_close(time_rules(TIMES, EOS, torch.cat([logits, silent], 1), emitted)[:, :-1], plain)
        louder = torch.cat([logits.index_fill(1, torch.tensor([word]), float("-inf")), logits[:, [word]]], 1)
        found = time_rules(TIMES, EOS, louder, emitted)
        assert torch.equal(found[:, added], plain[:, word])
        emitted = torch.cat([emitted, found.argmax(dim=1, keepdim=True)], dim=1)
    assert (emitted == added).any()
    assert complete([ZERO, 5, added, ONE, ONE, added], TIMES, 170) == ([ZERO, 5, added, ONE, ONE], 100)


def test_a_fine_tune_with_one_more_word_writes_what_it_wrote_before() -> None:
    """The added token, behind the times, takes the place of the word that is written most."""
    speech, waveforms = timed_whisper(seed=1, eos=28), [modulated(5.3, 10), modulated(3.7, 12)]
    times, tuned = speech.time_tokens, timed_whisper(seed=1, eos=28)
    assert times is not None
    before = [
        course.tokens for course in sequential(speech, times, waveforms, 2, partial(greedy, speech, suppress=True))
    ]
    spoken = [token for tokens in before for token in tokens if not times.holds(token)]
    word = max(set(spoken), key=spoken.count)
    tuned.module.resize_token_embeddings(VOCABULARY + 1, mean_resizing=False)
    weights = tuned.module.model.decoder.embed_tokens.weight
    with torch.no_grad():
        weights[-1], weights[word] = weights[word].clone(), weights[EOS - 1]  # another row, so that it is not written
    assert tuned.time_tokens == times
    found = [course.tokens for course in sequential(tuned, times, waveforms, 2, partial(greedy, tuned, suppress=True))]
    assert [[word if token == VOCABULARY else token for token in tokens] for tokens in found] == before


def test_the_logits_given_stay_as_they_are() -> None:
    logits = torch.zeros(2, VOCABULARY)
    time_rules(TIMES, EOS, logits, torch.empty(2, 0, dtype=torch.long))
    assert not logits.any()


@pytest.mark.parametrize(
    ("tokens", "standing", "frames"),
    [
        ([ZERO, 5, 6, ONE, ONE, 7], 5, 100),  # an unfinished segment: back to its beginning
        ([ZERO, 5, ONE, ONE, 7, TWO, TWO, 8], 7, 200),
        ([ZERO, 5, 6, ONE, ONE], 5, 100),
        ([ZERO, 5, ONE, ONE, 7, TWO], 6, 170),  # a single time at the end: nothing is said after it
        ([ZERO, 5, 6, ONE], 4, 170),  # one segment and no other: the rest of the window is silent
        ([ZERO, 5, 6, 7], 4, 170),  # no pair to go back to
        ([], 0, 170),
    ],
)
def test_what_stands_and_where_the_next_window_begins(tokens: list[int], standing: int, frames: int) -> None:
    assert complete(tokens, TIMES, 170) == (tokens[:standing], frames)


def test_every_window_goes_on_by_a_time_token_at_least() -> None:
    """Even where the model closes a segment as early as the rules let it."""
    emitted = torch.empty(1, 0, dtype=torch.long)
    for step in range(4):
        logits = torch.zeros(1, VOCABULARY)
        logits[0, 5 if step == 1 else slice(TIMES.first, None)] = 9
        logits[0, TIMES.first :] -= torch.arange(VOCABULARY - TIMES.first)
        emitted = torch.cat([emitted, time_rules(TIMES, EOS, logits, emitted).argmax(dim=1, keepdim=True)], dim=1)
    assert emitted.tolist() == [[ZERO, 5, ZERO + 1, ZERO + 1]]
    assert complete(emitted[0].tolist(), TIMES, 170)[1] == TIMES.frames


def test_a_whisper_says_whether_it_knows_times() -> None:
    speech = timed_whisper(seed=0)
    first, last = NO_TIMESTAMPS + 1, NO_TIMESTAMPS + 1 + POSITIONS
    assert speech.time_tokens == TimeTokens(
        prompt=speech.prompt[:-1], first=first, last=last, latest_start=50, cap=31, frames=2
    )
    assert speech.time_tokens.window == POSITIONS * TIMES.frames
    del speech.module.generation_config.max_initial_timestamp_index
    assert speech.time_tokens.latest_start == 50  # 1 s, where the checkpoint does not say
    assert without_times().time_tokens is None
    assert tiny_whisper().time_tokens is None


def without_times() -> WhisperSpeech:
    """Its vocabulary ends with "no timestamps"."""
    speech = tiny_whisper()
    speech.module.generation_config.no_timestamps_token_id = speech.module.config.vocab_size - 1
    return speech
