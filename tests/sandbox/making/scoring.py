"""Word error rate of a sandbox model through plain transformers, for watching training and for the final numbers."""

from __future__ import annotations

from typing import Any

import jiwer
import torch

from src.text.normalizers import ENGLISH_RULES
from tests.sandbox.making.corpus import SpokenLine
from tests.sandbox.making.recipe import Recipe

_BATCH = 32


def transcribe(recipe: Recipe, model: Any, utterances: list[SpokenLine]) -> list[str]:
    """Greedy transcripts, in the order of ``utterances``."""
    model.eval()
    texts: list[str] = []
    with torch.inference_mode():
        for start in range(0, len(utterances), _BATCH):
            texts += recipe.generate(model, [utterance.audio for utterance in utterances[start : start + _BATCH]])
    return texts


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Per cent, pooled over words, both sides put through Whisper's English normalizer."""
    normalize = ENGLISH_RULES.normalize
    pairs = [(normalize(reference), normalize(text)) for reference, text in zip(references, hypotheses, strict=True)]
    spoken = [pair for pair in pairs if pair[0]]
    return 100 * float(jiwer.wer([reference for reference, _ in spoken], [text for _, text in spoken]))


def score(recipe: Recipe, model: Any, utterances: list[SpokenLine]) -> float:
    """WER in per cent of a model on some utterances."""
    return word_error_rate([utterance.text for utterance in utterances], transcribe(recipe, model, utterances))
