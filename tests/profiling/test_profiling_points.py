"""What a point refuses, and how many frames an utterance has."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from src.errors import UserError
from src.models.families import dimensions_of
from src.models.moonshine.graph import moonshine_graph
from src.profiling.cost_model import CostModel, LinearBits, Workload
from tests.profiling.profiling_points import THREE_FRAMES, page_config, point_of
from tests.tiny import tiny_moonshine, tiny_whisper


@pytest.mark.parametrize("samples", [895, 900, 1663, 16_000, 16_001, 47_999, 80_000])
def test_moonshine_frames_are_those_of_the_front_end(samples: int) -> None:
    speech = tiny_moonshine()
    frames = speech.encode([torch.zeros(samples)]).states.shape[1]
    assert dimensions_of(speech.module.config).frames(samples / 16_000) == frames


def test_workload_passes_positions_and_attended() -> None:
    workload = Workload(seconds=1.0, tokens=3, prompt=4)
    assert (workload.positions, workload.embedded) == (7, 7)
    beams = Workload(seconds=1.0, tokens=3, prompt=4, batch=2, beams=5)
    assert (beams.positions, beams.sequences) == (7, 10)
    assert beams.embedded == 2 * 4 + 10 * 3


def test_clip_longer_than_whispers_window_is_refused_with_its_length() -> None:
    with pytest.raises(UserError, match=r"profile\.seconds.*2\.5 s.*at most 2"):
        point_of(tiny_whisper(), seconds=2.5)


def test_clip_without_a_frame_is_refused() -> None:
    with pytest.raises(UserError, match=r"profile\.seconds"):
        point_of(tiny_moonshine(), seconds=0.05)


def test_more_tokens_than_positions_are_refused_with_the_limit() -> None:
    with pytest.raises(UserError, match=r"profile\.tokens.*at most 30"):
        point_of(tiny_whisper(), tokens=31)
    assert point_of(tiny_whisper(), tokens=30).workload.positions == 32


def test_bits_of_an_unknown_linear_are_refused() -> None:
    config = page_config()
    with pytest.raises(KeyError, match="no_such_linear"):
        CostModel(
            dimensions_of(config),
            moonshine_graph(config),
            Workload(THREE_FRAMES, 2, 1),
            {"no_such_linear": LinearBits(1, 4, 16)},
        )


def test_other_architectures_are_refused() -> None:
    with pytest.raises(UserError, match="bert"):
        dimensions_of(BertConfig())
