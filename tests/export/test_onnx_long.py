"""Long audio in the exported loop: what evaluate writes of it, window by window and segment by segment."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from src.decoding import longform, timestamps
from src.export import onnx_generate
from src.export.onnx_generate import Recogniser
from src.models.speech import TimeTokens
from tests.decoding.long_audio import modulated
from tests.decoding.real_generate import sample
from tests.export.exporting import export, opened, quantized, utterances, written

TIMES = TimeTokens(prompt=(90,), first=96, last=196, latest_start=50, cap=30, frames=2)
EOS = 89


def test_a_real_whisper_hears_long_audio_with_the_same_words(tmp_path: Path) -> None:
    """34 s of LibriSpeech, three clips of it: two windows, of which the second begins inside the first."""
    point = opened(tmp_path, "model=embedded_whisper", "method=rtn", "wbits=8", "group_size=32", "export=onnx")
    folder, speech = export(point), quantized(point)
    waveform = np.concatenate([clip.waveform() for clip in sample("clean")[1:4]])
    [expected] = written(speech, waveform, tmp_path)
    found = Recogniser(folder, threads=1).transcribe(waveform)
    assert (found.text, found.tokens, found.long_form) == (expected.hypothesis, expected.tokens, "sequential")
    assert found.tokens > 90


@pytest.mark.parametrize("model", ["sandbox_whisper", "sandbox_moonshine"])
@pytest.mark.parametrize("long_form", ["sequential", "truncate"])
def test_models_without_times_hear_segments(model: str, long_form: str, tmp_path: Path) -> None:
    chosen = (f"model={model}", "method=rtn", "wbits=8", "group_size=32", f"evaluate.long_form={long_form}")
    point = opened(tmp_path, "export=onnx", *chosen)
    folder, speech = export(point), quantized(point)
    waveform = np.concatenate([clip.waveform() for clip in utterances(point)[:5]])
    [expected] = written(speech, waveform, tmp_path, truncate=long_form == "truncate")
    found = Recogniser(folder, threads=1).transcribe(waveform)
    assert found == (expected.hypothesis, expected.tokens, expected.capped, expected.long_form)
    assert found.long_form == ("truncated" if long_form == "truncate" else "segments")


@pytest.mark.parametrize("seed", range(40))
def test_what_may_follow_and_what_stands_are_those_of_the_simulation(seed: int) -> None:
    random = np.random.default_rng(seed)
    row = [96 + seed, *random.choice([*range(80, 89), *range(96 + seed, 197)], size=random.integers(0, 8)).tolist()]
    row = row[: random.integers(0, len(row) + 1)]
    logits = random.normal(0, 2, (1, 200)).astype(np.float32)
    recogniser = Recogniser.__new__(Recogniser)
    recogniser.told = {"times": asdict(TIMES), "eos": EOS}
    found = recogniser._time_rules(logits, np.array([row], np.int64).reshape(1, -1))
    emitted = torch.tensor([row], dtype=torch.long).reshape(1, -1)
    expected = timestamps.time_rules(TIMES, EOS, torch.from_numpy(logits), emitted).numpy()
    assert (np.isfinite(found) == np.isfinite(expected)).all()
    stands, passed = onnx_generate.complete(row, asdict(TIMES), 77)
    assert (list(stands), passed) == timestamps.complete(row, TIMES, 77)


@pytest.mark.parametrize("seconds", [30.1, 44, 61, 95])
def test_audio_is_cut_where_the_simulation_cuts_it(seconds: float) -> None:
    waveform = modulated(seconds, seed=int(seconds))
    assert onnx_generate.cuts(waveform, 480_000) == longform.cuts(waveform, 480_000)
