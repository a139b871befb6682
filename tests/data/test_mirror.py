"""Real recordings, where a copy of the leaderboard's data is at hand: EDGE_ASR_ESB_MIRROR names its folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from src.project import ROOT
from tests.data.sets import dataset
from tests.utterances import load_utterances

MIRROR = Path(os.environ.get("EDGE_ASR_ESB_MIRROR", ROOT.parent / "shared" / "data" / "esb-mirror"))

pytestmark = pytest.mark.skipif(not MIRROR.is_dir(), reason="no copy of the leaderboard's data here")


@pytest.mark.parametrize(
    ("config", "split"), [("librispeech", "test.clean"), ("librispeech", "test.other"), ("ami", "test")]
)
def test_recordings_load_at_their_published_length(config: str, split: str) -> None:
    utterances = load_utterances(dataset(MIRROR, config=config, split=split, limit=5), seed=0)
    assert len(utterances) == 5
    for utterance in utterances:
        waveform = utterance.waveform()
        assert len(waveform) == utterance.samples
        assert 0.3 < utterance.seconds < 40
        assert 1e-3 < np.sqrt(np.mean(waveform**2)) < 0.5
