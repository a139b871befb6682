"""Word and character error rates, pooled over a test set.

For languages without spaces the words are characters (see :mod:`src.text.normalizers`), and both rates the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import jiwer
import numpy as np
from numpy.typing import NDArray

from src.machine.progress import progress
from src.metrics import WER
from src.metrics.word_errors import edits
from src.scoring.rates import Ratio, counted
from src.text.normalizers import Rules

SCORER: Final = f"jiwer/{version('jiwer')}"

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class WerResult:
    """Errors of one system on one test set.

    Attributes:
        wer: (substitutions + deletions + insertions) / words, in percent; pooled, not a mean of utterances.
        words: words of all references after normalisation.
        cer: the same over characters, in percent.
        utterance_edits: substitutions, deletions and insertions per utterance, int64 ``[utterances, 3]``.
        rates: counts of the rates of :mod:`src.metrics` that there are, by name; that of ``wer`` is.
    """

    wer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    cer: float
    utterance_edits: Counts
    rates: Mapping[str, Ratio]

    @property
    def utterance_errors(self) -> Counts:
        """Word errors per utterance, int64 ``[utterances]``; their sum is the numerator of ``wer``."""
        return self.rates[WER.name][0]

    @property
    def utterance_words(self) -> Counts:
        """Reference words per utterance, int64 ``[utterances]``; their sum is ``words``."""
        return self.rates[WER.name][1]


def score(references: Sequence[str], hypotheses: Sequence[str], rules: Rules) -> WerResult:
    """Normalises both sides, aligns them utterance by utterance, and counts.

    A hypothesis may be empty.

    Raises:
        ValueError: the lists differ in length, are empty, or a reference is empty after normalisation.
    """
    if len(references) != len(hypotheses) or not references:
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses cannot be scored")
    texts = [rules.normalize(text) for text in progress([*references, *hypotheses], "score, texts")]
    expected, said = texts[: len(references)], texts[len(references) :]
    if "" in expected:
        raise ValueError(f"the reference at {expected.index('')} is empty after normalisation; drop it beforehand")
    words = jiwer.process_words(expected, said)
    cer = words.wer if rules.by_characters else jiwer.process_characters(expected, said).cer
    return WerResult(
        wer=100.0 * words.wer,
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        words=sum(map(len, words.references)),
        cer=100.0 * cer,
        utterance_edits=np.array([edits(chunks) for chunks in words.alignments], dtype=np.int64),
        rates=counted(words, rules),
    )
