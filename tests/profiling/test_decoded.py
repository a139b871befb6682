"""The average cost of what evaluate decoded is the mean of the costs of its utterances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from src.data.transcripts import Transcript
from src.models.speech import SpeechModel
from src.profiling.bitops import products, total_bops, total_macs
from src.profiling.cost_model import Workload
from src.profiling.decoded import average
from src.profiling.memory_io import memory_io
from tests.profiling.profiling_points import point_of, uniform_bits
from tests.tiny import tiny_moonshine, tiny_whisper


def _transcript(seconds: float, tokens: int, capped: bool = False, long_form: str | None = None) -> Transcript:
    return Transcript("id", "a", "a", seconds, tokens, capped, None, long_form)  # type: ignore[arg-type]


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_means_are_over_each_utterances_own_length_and_tokens(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    point = point_of(speech, bits=uniform_bits(speech.graph, 4, 8), kv_bits=8)
    heard = [(1.0, 4), (1.5, 9), (1.5, 9), (0.7, 0)]
    found = average(point, [_transcript(*each) for each in heard])
    assert found is not None
    alone = [replace(point, workload=Workload(*each, prompt=len(speech.prompt))) for each in heard]
    moved = [memory_io(each) for each in alone]
    assert found.memory_io_bytes == pytest.approx(fmean(sum(each.values()) for each in moved))
    assert found.memory_io_breakdown == pytest.approx(
        {name: fmean(each[name] for each in moved) for name in found.memory_io_breakdown}
    )
    assert found.macs == pytest.approx(fmean(total_macs(products(each)) for each in alone))
    assert found.bops == pytest.approx(fmean(total_bops(products(each)) for each in alone))
    assert (found.utterances, found.left_out) == (4, 0)
    assert (found.seconds, found.steps) == pytest.approx((4.7 / 4, 22 / 4))


def test_a_capped_transcript_took_one_step_less() -> None:
    point = point_of(tiny_whisper())
    assert average(point, [_transcript(1.0, 5, capped=True)]) == average(point, [_transcript(1.0, 4)])


def test_what_took_several_windows_is_left_out_and_counted() -> None:
    point = point_of(tiny_whisper())
    found = average(point, [_transcript(1.0, 5), _transcript(9.0, 60, long_form="sequential")])
    assert found is not None
    assert (found.utterances, found.left_out, found.steps) == (1, 1, 5)
    assert average(point, [_transcript(9.0, 60, long_form="sequential")]) is None


@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_clips_shorter_than_a_frame_cost_what_they_are_padded_to(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    point = point_of(speech)
    encoded = speech.encode(speech.features([np.zeros(200, np.float32)]))
    found = average(point, [_transcript(200 / 16_000, 1)])
    padded = replace(point, workload=Workload(point.dimensions.shortest / 16_000, 1, len(speech.prompt)))
    assert found is not None
    assert padded.frames == encoded.states.shape[1]
    assert found.macs == total_macs(products(padded))
