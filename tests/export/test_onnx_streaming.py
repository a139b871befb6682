"""Moonshine Streaming in other runtimes: windows, pieces of audio and positions are those of the quantized model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor
from transformers.generation import GenerationMixin

from src.export.onnx_generate import Recogniser
from src.models.speech import SpeechModel
from src.stages.point import Point
from tests import commands
from tests.export.exporting import export, opened, quantized, tiny_model, tokens, utterances, written
from tests.tiny.moonshine_streaming import UNEVEN, streaming_checkpoint

FAMILY = "moonshine_streaming"
KINDS = pytest.mark.parametrize("encoder", [{}, UNEVEN], ids=["as wide", "projected"])
CODES = ("method=rtn", "wbits=4", "group_size=32")
PROMPT = torch.tensor([[1, 9, 4, 33, 60, 7]])


def point_of(folder: Path, encoder: dict[str, int], *overrides: str, positions: int = 256) -> Point:
    """A clip fits 5 s of positions."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        streaming_checkpoint(checkpoint, encoder=encoder, max_position_embeddings=positions)
    return opened(folder, *tiny_model(FAMILY, checkpoint), *overrides)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@torch.inference_mode()
def expected(speech: SpeechModel, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Logits after a prompt, each clip alone."""
    encoded = (speech.encode(speech.features([clip])) for clip in clips)
    return torch.cat([speech.forward_tokens(PROMPT, each)[:, -1] for each in encoded]).numpy()


def found(recogniser: Recogniser, clips: Sequence[np.ndarray]) -> np.ndarray:
    """The same of clips heard together."""
    return recogniser.step(np.tile(PROMPT.numpy(), (len(clips), 1)), recogniser.start(recogniser.encode(clips)))


@KINDS
@pytest.mark.parametrize(
    "chosen",
    [
        CODES,
        ("method=osplus", "wbits=4", "group_size=16", "export.weights=float32"),  # shifts: norms with biases
        ("method=smoothquant", "wbits=3", "head_bits=4", "group_size=32", "export.cross_cache=float32"),
    ],
    ids=["codes", "shifts as float32", "scales in the adapter, and a head of 4 bits"],
)
def test_onnxruntime_writes_the_same_tokens(chosen: tuple[str, ...], encoder: dict[str, int], tmp_path: Path) -> None:
    point = point_of(tmp_path, encoder, "export=onnx", *chosen)
    recogniser, clips = Recogniser(export(point), threads=1), [clip.waveform() for clip in utterances(point)]
    together, ours = recogniser.generate(clips), tokens(point, quantized(point))
    assert together == ours
    assert [recogniser.generate([clip])[0] for clip in clips] == ours
    assert len({token for ids in ours for token in ids}) > 5


@KINDS
def test_clips_of_every_length_are_heard_as_they_are_alone(encoder: dict[str, int], tmp_path: Path) -> None:
    """Less than a piece of 5 ms, parts of pieces and of frames, longer than the windows, and all positions."""
    point = point_of(tmp_path, encoder, "export=onnx", *CODES)
    recogniser, speech = Recogniser(export(point), threads=1), quantized(point)
    lengths = (7, 80, 81, 159, 160, *range(240, 3000, 111), 9_017, 16_000, speech.window - 1, speech.window)
    clips = [noise(samples, seed=samples) for samples in lengths]
    encoded = recogniser.encode(clips)
    frames = [speech.encode(speech.features([clip])).states.shape[1] for clip in clips]
    assert encoded["frame_mask"].sum(axis=1).tolist() == frames
    assert (frames[0], frames[-1]) == (1, 256)
    ours = expected(speech, clips)
    np.testing.assert_allclose(found(recogniser, clips), ours, atol=2e-5)
    assert np.abs(ours[0] - ours[-1]).max() > 0.1


@KINDS
def test_integer_products_are_those_that_were_simulated(encoder: dict[str, int], tmp_path: Path) -> None:
    """But for inputs that fall on another code, which moves logits far less than rounding did."""
    plain = ("export=onnx", "method=rtn", "wbits=8")
    point = point_of(tmp_path, encoder, *plain, "abits=4", "export.weights=int8_dynamic")
    unrounded = point_of(tmp_path, encoder, *plain, "export.weights=float32")
    folder, _ = export(point), export(unrounded)
    clips = [noise(samples) for samples in (16_000, 9_017)]
    ours, theirs = expected(quantized(point), clips), found(Recogniser(folder, threads=1), clips)
    moved = np.abs(expected(quantized(unrounded), clips) - ours).mean()
    assert np.abs(theirs - ours).mean() < 0.2 * moved


def test_long_audio_is_heard_in_segments(tmp_path: Path) -> None:
    point = point_of(tmp_path, {}, "export=onnx", *CODES)
    waveform = np.concatenate([clip.waveform() for clip in utterances(point)[:5]])
    theirs = Recogniser(export(point), threads=1).transcribe(waveform)
    [transcript] = written(quantized(point), waveform, tmp_path)
    assert theirs == (transcript.hypothesis, transcript.tokens, transcript.capped, "segments")


@KINDS
@pytest.mark.parametrize("chosen", [("method=rtn", "wbits=4"), ("method=smoothquant", "wbits=3")], ids=" ".join)
def test_transformers_loads_and_writes_the_same_tokens(
    chosen: tuple[str, ...], encoder: dict[str, int], tmp_path: Path
) -> None:
    """Of a checkpoint whose processor tells which samples are padding, without which transformers knows no windows."""
    point = point_of(tmp_path, encoder, "export=compressed_tensors", "group_size=32", *chosen)
    folder, speech = export(point), quantized(point)
    loaded, processor = AutoModelForSpeechSeq2Seq.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert loaded.dtype == torch.float32
    ids = []
    for clip in utterances(point):
        waveform = clip.waveform()
        given = processor(waveform, sampling_rate=16_000, padding=True, pad_to_multiple_of=80, return_tensors="pt")
        cap = speech.max_new_tokens(len(waveform))
        row = GenerationMixin.generate(loaded, **given, max_new_tokens=cap, do_sample=False)[0].tolist()
        ids.append([token for token in row[1:] if token != speech.eos])
    assert ids == tokens(point, speech)


def test_a_published_shape_writes_the_same_tokens(tmp_path: Path) -> None:
    """Moonshine Streaming tiny with random weights, of which the logits tell more than the tokens."""
    model = ("model=moonshine_streaming_tiny", "model.random_weights=true", "dataset.limit=1")
    point = opened(tmp_path, "export=onnx", *model, *CODES)
    recogniser, speech = Recogniser(export(point), threads=1), quantized(point)
    clips = [clip.waveform() for clip in utterances(point)]
    assert recogniser.generate(clips) == tokens(point, speech)
    ours = expected(speech, clips)
    np.testing.assert_allclose(found(recogniser, clips), ours, atol=1e-4 * np.abs(ours).max())


def test_commands_score_and_transcribe_with_the_graphs(tmp_path: Path) -> None:
    """Scored as the simulation is; one clip heard with src.transcribe and with the loop beside the graphs."""
    model = tiny_model(FAMILY, streaming_checkpoint(tmp_path / "checkpoint", max_position_embeddings=256))
    asked = ("evaluate.runtime=onnx", "evaluate.probe_clips=0", "evaluate.bootstrap_samples=200", "tracking=none")
    data = ("dataset=sandbox_other", "dataset.limit=2", "stages=[quantize,evaluate]", f"output_dir={tmp_path}")
    done = commands.run("src.main", *model, "export=onnx", *CODES, *asked, *data)
    assert done.returncode == 0, done.stderr
    [record] = (tmp_path / "records").glob("*.json")
    assert '"changed_from_simulated": {' in (text := record.read_text())
    assert '"transcripts": 0' in text.partition('"changed_from_simulated": {')[2].partition("}")[0]
    [folder] = (tmp_path / "cache/export").glob("*/model")
    soundfile.write(tmp_path / "speech.wav", noise(32_000), 16_000, subtype="PCM_16")
    heard = commands.run("src.transcribe", "--threads", "1", "--model", folder, tmp_path / "speech.wav")
    assert heard.returncode == 0, heard.stderr
    beside = [sys.executable, "generate.py", str(tmp_path / "speech.wav")]
    process = subprocess.run(beside, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert heard.stdout.strip() == process.stdout.strip() != ""
