"""Transcripts of real models on real speech, by transformers' own processors and ``generate``, beside ours.

``python -m tests.decoding.real_generate`` compares every clip of the LibriSpeech sample, a clip at a time there and in
batches here, and prints what differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers import AutoFeatureExtractor

from src.data.utterance import Utterance
from src.decoding.transcribe import transcribe
from src.models.loading import load
from src.models.speech import SpeechModel
from src.project import ROOT
from tests.composed import composed
from tests.utterances import load_utterances

MODELS: Final = ("embedded_whisper", "embedded_moonshine")
_BATCH: Final = 16


def sample(split: str) -> list[Utterance]:
    """The clips of a test set of the sample."""
    return load_utterances(composed(f"dataset=librispeech_sample_{split}").dataset, seed=0)


def generated(speech: SpeechModel, extractor: Any, clip: Utterance) -> list[int]:
    """Text tokens of one clip by transformers alone, but for the weights and Moonshine's cap on a clip's tokens."""
    padding = "max_length" if speech.module.config.model_type == "whisper" else "longest"
    inputs = extractor(clip.waveform(), sampling_rate=16_000, return_tensors="pt", padding=padding)
    with torch.inference_mode():
        output = speech.module.generate(**inputs, max_new_tokens=speech.max_new_tokens(clip.samples), do_sample=False)
    ids: list[int] = output[0].tolist()
    special = {speech.eos, *speech.prompt}
    return [token for token in ids if token not in special]


def differing(model: str, clips: Sequence[Utterance]) -> list[str]:
    """Ids of the clips whose tokens are not those that transformers writes."""
    settings = composed(f"model={model}").model
    speech, ours = load(settings, "cpu", 0), []
    for start in range(0, len(clips), _BATCH):
        ours += transcribe(speech, clips[start : start + _BATCH], suppress=True)[1]
    extractor = AutoFeatureExtractor.from_pretrained(ROOT / settings.source)
    theirs = [generated(speech, extractor, clip) for clip in clips]
    return [clip.id for clip, *pair in zip(clips, ours, theirs, strict=True) if pair[0] != pair[1]]


def main() -> None:
    """Both models on all 100 clips."""
    clips = [*sample("clean"), *sample("other")]
    for model in MODELS:
        apart = differing(model, clips)
        print(f"{model}: {len(clips) - len(apart)} of {len(clips)} clips token for token equal", *apart)


if __name__ == "__main__":
    main()
