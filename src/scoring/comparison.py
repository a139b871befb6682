"""Scores of stored transcripts, and two systems compared on the same utterances."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.data.transcripts import Transcript, load_transcripts
from src.scoring.bootstrap import Blocks, PairedDifference, blocks, paired
from src.scoring.failure_modes import failures
from src.scoring.legibility import Legibility, legibility
from src.scoring.rates import mean_rates
from src.scoring.sessions import joined
from src.scoring.wer import WerResult, score
from src.text.normalizers import Rules

log = logging.getLogger(__name__)

WORST_COLUMNS = ("id", "reference", "hypothesis", "fp hypothesis", "errors", "fp errors")

_COUNTS = ("cer", "substitutions", "deletions", "insertions", "words")


@dataclass(frozen=True)
class Scored:
    """Transcripts of one system on one test set, with their errors.

    Attributes:
        transcripts: those whose reference has words; of a session, one in all.
        dropped: number of the others.
        scores: of ``transcripts``, in their order.
        blocks: what a bootstrap resample draws.
        rules: that they were scored by.
    """

    transcripts: list[Transcript]
    dropped: int
    scores: WerResult
    blocks: Blocks
    rules: Rules

    @cached_property
    def texts(self) -> Legibility:
        """What the rules could not read."""
        return legibility(self.transcripts, self.rules)

    def rates(self, samples: int, seed: int) -> dict[str, float | None]:
        """The rates of :mod:`src.metrics` with their intervals; None where there are none."""
        return mean_rates([self.scores.rates], [self.blocks.labels], samples, [seed])

    def figures(self, samples: int, seed: int) -> dict[str, Any]:
        """What a record says of one system: error rates with their interval, sizes and failures."""
        scores = self.scores
        overall, by_duration = failures(self.transcripts, scores, self.rules)
        return {
            "metric": self.rules.metric,
            **{name: getattr(scores, name) for name in _COUNTS},
            **self.rates(samples, seed),
            "resampled": self.blocks.unit,
            "speakers": self.blocks.speakers,
            "utterances": len(self.transcripts),
            "dropped": self.dropped,
            "audio_seconds": round(sum(item.seconds for item in self.transcripts), 3),
            "tokens": sum(item.tokens for item in self.transcripts),
            "texts": asdict(self.texts),
            "failures": asdict(overall),
            "failures_by_duration": [asdict(part) for part in by_duration],
        }


def scored(path: Path, rules: Rules) -> Scored:
    """Scores the transcripts in a file by the given rules with the installed scorer.

    References without words are dropped when a test set is loaded; other rules may find more of them here.
    """
    stored = joined(load_transcripts(path))
    kept = [item for item in stored if rules.is_scored(item.reference)]
    if len(kept) < len(stored):
        log.info("evaluate: dropped %d of %d references with nothing to score", len(stored) - len(kept), len(stored))
    return Scored(
        transcripts=kept,
        dropped=len(stored) - len(kept),
        scores=score([item.reference for item in kept], [item.hypothesis for item in kept], rules),
        blocks=blocks([item.id for item in kept], [item.speaker for item in kept]),
        rules=rules,
    )


def difference(own: Scored, base: Scored, samples: int, seed: int) -> PairedDifference:
    """WER of ``own`` minus WER of ``base``, both scored on the same utterances in the same order."""
    errors, base_errors = own.scores.utterance_errors, base.scores.utterance_errors
    return paired(errors, base_errors, own.scores.utterance_words, samples, seed, own.blocks.labels)


@dataclass(frozen=True)
class Changes:
    """How many utterances one system wrote otherwise than another.

    Attributes:
        transcripts: those that differ after normalisation.
        better: those with fewer word errors.
        worse: those with more.
        words: word errors fewer in the better ones plus word errors more in the worse ones.
    """

    transcripts: int
    better: int
    worse: int
    words: int


def changes(own: Scored, base: Scored) -> Changes:
    """What changed from ``base`` to ``own``, which are of the same utterances in the same order."""
    pairs = zip(own.transcripts, base.transcripts, strict=True)
    margins = own.scores.utterance_errors - base.scores.utterance_errors
    return Changes(
        transcripts=sum(own.rules.normalize(a.hypothesis) != own.rules.normalize(b.hypothesis) for a, b in pairs),
        better=int((margins < 0).sum()),
        worse=int((margins > 0).sum()),
        words=int(np.abs(margins).sum()),
    )


def worst(own: Scored, fp: Scored, n: int) -> list[dict[str, Any]]:
    """At most ``n`` utterances in :data:`WORST_COLUMNS`.

    Those that got most errors more than full precision come first, among equals those with most errors.
    """
    errors, fp_errors = own.scores.utterance_errors, fp.scores.utterance_errors
    order: Sequence[int] = np.lexsort((-errors, fp_errors - errors))[:n].tolist()
    rows = []
    for row in order:
        mine, counts = own.transcripts[row], (int(errors[row]), int(fp_errors[row]))
        cells = (mine.id, mine.reference, mine.hypothesis, fp.transcripts[row].hypothesis, *counts)
        rows.append(dict(zip(WORST_COLUMNS, cells, strict=True)))
    return rows
