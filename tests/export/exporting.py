"""Points of the sandbox models, quantized and exported, and the tokens that the quantized model writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from src.data.audio import Waveform
from src.data.transcripts import Transcript
from src.data.utterance import Utterance
from src.decoding.transcribe import transcribe, transcribe_corpus
from src.methods.asked import input_bits
from src.models.loading import load
from src.models.speech import SpeechModel
from src.quant.restore import restore
from src.stages.calibrate import Calibrate
from src.stages.export import FOLDER, Export
from src.stages.point import Point, open_point
from src.stages.quantize import CHECKPOINT, Quantize
from tests.composed import composed
from tests.decoding.long_audio import encoded
from tests.utterances import load_utterances


def opened(folder: Path, *overrides: str) -> Point:
    """A point whose results go below ``folder``; twelve test clips, four calibration clips."""
    plain = (f"output_dir={folder}", "dataset=sandbox_other", "dataset.limit=12", "calib.n=4")
    return open_point(composed(*plain, *overrides))


def tiny_model(family: str, checkpoint: Path) -> tuple[str, ...]:
    """The overrides that name a checkpoint of a family."""
    return ("model=sandbox_whisper", "model.name=tiny", f"model.family={family}", f"model.source={checkpoint}")


def export(point: Point) -> Path:
    """Runs what the pipeline would run to export the point, and returns the folder with the files."""
    stages = [Calibrate(), Quantize(), Export()] if point.uses_calibration else [Quantize(), Export()]
    for stage in stages:
        stage.check(point)
    for stage in stages:
        stage.run(point)
    return point.exported.path / FOLDER


def utterances(point: Point) -> list[Utterance]:
    """The point's test clips."""
    return load_utterances(point.settings.dataset, point.settings.seed)


def quantized(point: Point) -> SpeechModel:
    """The stored quantized model."""
    speech = load(point.settings.model, "cpu", point.settings.seed)
    restore(speech, point.quantized.path / CHECKPOINT, input_bits(speech.graph, point.settings))
    return speech


@torch.inference_mode()
def tokens(point: Point, speech: SpeechModel) -> list[list[int]]:
    """What ``speech`` writes for the point's test clips."""
    return transcribe(speech, utterances(point), suppress=True)[1]


def written(speech: SpeechModel, waveform: Waveform, folder: Path, *, truncate: bool = False) -> list[Transcript]:
    """What evaluate makes of one recording of any length."""
    clip = Utterance("long", "words", len(waveform), encoded(waveform))
    chosen = {"batch_size": 4, "suppress": True, "kv_bits": 16, "truncate": truncate}
    return transcribe_corpus(speech, [clip], folder / "journal", **chosen)


def agreement(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Share of tokens that are equal at equal places; what one side lacks counts as different."""
    pairs = list(zip(ours, theirs, strict=True))
    equal = sum(sum(a == b for a, b in zip(*pair, strict=False)) for pair in pairs)
    return equal / sum(max(map(len, pair)) for pair in pairs)
