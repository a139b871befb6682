"""Features made ahead are the batches' own, in order, and what goes wrong is told."""

from __future__ import annotations

import threading

import pytest
import torch

from src.data.utterance import Utterance
from src.decoding.prefetch import ahead
from src.errors import UserError
from tests.data.clips import tone
from tests.tiny import tiny_moonshine

CLIPS = [Utterance(id=str(i), text="", samples=4_000 + 800 * i, audio=tone(0.25 + 0.05 * i, 400)) for i in range(7)]
BATCHES = [CLIPS[:3], CLIPS[3:6], CLIPS[6:]]


def test_each_batch_comes_with_its_own_features() -> None:
    speech = tiny_moonshine()
    for batch, ready in zip(BATCHES, ahead(speech, BATCHES), strict=True):
        expected = speech.features([clip.waveform() for clip in batch])
        assert all(torch.equal(each.features, feature) for each, feature in zip(ready, expected, strict=True))
        assert all(each.audio_seconds > 0 and each.feature_seconds > 0 for each in ready)


def test_no_more_than_the_next_batch_is_held() -> None:
    before = threading.active_count()
    started: list[int] = []
    for done, _ in enumerate(ahead(tiny_moonshine(), _Noted(started))):
        assert max(started) <= done + 1
    assert threading.active_count() == before


class _Noted(list[list[Utterance]]):
    """Batches of which it is noted which one was asked for."""

    def __init__(self, started: list[int]) -> None:
        super().__init__(BATCHES)
        self._started = started

    def __iter__(self):  # type: ignore[no-untyped-def]
        for number, batch in enumerate(BATCHES):
            self._started.append(number)
            yield batch


def test_damaged_audio_is_told_by_its_utterance() -> None:
    damaged = Utterance(id="broken", text="", samples=4_000, audio=b"RIFF")
    with pytest.raises(UserError, match="broken"):
        list(ahead(tiny_moonshine(), [CLIPS[:2], [CLIPS[2], damaged]]))


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = ahead(tiny_moonshine(), BATCHES)
    next(batches)
    batches.close()
    assert threading.active_count() == before
