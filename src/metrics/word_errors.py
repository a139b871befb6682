"""The word error rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from src.metrics.metric import Counts, Metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jiwer import WordOutput

    from src.text.normalizers import Rules


def edits(chunks: Iterable[Any]) -> list[int]:
    """Substitutions, deletions and insertions of one alignment; inserted words are counted in the hypothesis."""
    counts = dict.fromkeys(("substitute", "delete", "insert", "equal"), 0)
    for chunk in chunks:
        reference, hypothesis = chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
        counts[chunk.type] += hypothesis if chunk.type == "insert" else reference
    return [counts["substitute"], counts["delete"], counts["insert"]]


def _counts(aligned: WordOutput, _: Rules) -> Counts:
    return [sum(edits(chunks)) for chunks in aligned.alignments], [len(words) for words in aligned.references]


WER = Metric(
    name="wer",
    stage="evaluate",
    unit="%",
    meaning="word error rate; of a composite, the unweighted mean over its test sets",
    label="WER, %",
    heading="WER",
    digits=2,
    counts=_counts,
)
