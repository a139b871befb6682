"""The table that compares the transcripts of several records with those of the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.errors import UserError
from src.metrics import CER, RATES, WER
from src.reporting.stored import RUN_AGAIN, StoredScores, require_comparable
from src.scoring.bootstrap import PairedDifference
from src.scoring.comparison import Scored, changes, difference, scored
from src.scoring.mean import mean_scores
from src.text.normalizers import Rules


def compared(
    evaluated: Sequence[StoredScores], samples: int | None, seed: int | None
) -> tuple[list[str], list[tuple[str, list[str]]], str]:
    """Names of the records, the rows of the table (label, one cell a record), and what stands below it.

    Raises:
        UserError: the transcripts are not of the same utterances.
    """
    settings = evaluated[0].record.settings
    samples = settings["evaluate"]["bootstrap_samples"] if samples is None else samples
    seed = settings["seed"] if seed is None else seed
    rules = Rules.named(evaluated[0].record.versions.normalizer)
    systems = [_scored(each, rules) for each in evaluated]
    base = systems[0]
    for each, system in zip(evaluated, systems, strict=True):
        if _references(system) != _references(base):
            problem = f"{evaluated[0].name} and {each.name} do not hold the same utterances"
            raise UserError("record", problem, RUN_AGAIN)
    columns = [_column(each, system, base, samples, seed) for each, system in zip(evaluated, systems, strict=True)]
    rows = [(label, [column[label] for column in columns]) for label in columns[0]]
    speakers = f"{base.blocks.speakers} speakers" if base.blocks.unit == "speaker" else "utterances"
    unit = "characters" if rules.by_characters else "words"
    about = (
        f"{evaluated[0].record.dataset}: {len(base.transcripts)} utterances, {base.scores.words} {unit}. "
        f"Differences are to the first record; 95 % intervals are of {samples} resamples of {speakers}, seed {seed}."
    )
    return [each.name for each in evaluated], rows, about


def mean_difference(own: Sequence[StoredScores], base: Sequence[StoredScores]) -> dict[str, Any]:
    """The WER of ``own`` minus that of ``base``, or of their means over test sets in the same order, in points.

    A paired bootstrap with the samples and the seed of ``own``'s intervals: ``difference`` with its 95 % interval,
    ``p_value``, ``significant`` ...

    Raises:
        UserError: they are not of the same utterances.
    """
    for one, other in zip(base, own, strict=True):
        require_comparable(one, other)
    rules = [Rules.named(each.record.versions.normalizer) for each in base]
    systems, bases = (list(map(_scored, sets, rules)) for sets in (own, base))
    settings = own[0].record.settings
    versus: dict[str, Any] = mean_scores(
        [each.scores for each in systems],
        [each.scores for each in bases],
        [each.blocks.labels for each in systems],
        settings["evaluate"]["bootstrap_samples"],
        settings["seed"],
    )["versus_fp"]
    return versus


def _scored(each: StoredScores, rules: Rules) -> Scored:
    return scored(each.folder / "transcripts.jsonl", rules)


def _references(system: Scored) -> list[tuple[str, str]]:
    return [(item.id, item.reference) for item in system.transcripts]


def _column(each: StoredScores, own: Scored, base: Scored, samples: int, seed: int) -> dict[str, str]:
    scores, utterances = own.scores, len(own.transcripts)
    rates = own.rates(samples, seed)
    cells = {
        "model": each.record.model,
        "method": f"{each.record.method} {each.record.precision}",
        f"{own.rules.metric}, %": WER.interval_text(rates),
        "S / D / I": f"{scores.substitutions} / {scores.deletions} / {scores.insertions}",
        **({} if own.rules.by_characters else {CER.label: CER.text(scores.cer)}),
        **{rate.label: rate.interval_text(rates) for rate in RATES if rate is not WER and rate.name in scores.rates},
    }
    versus, changed = difference(own, base, samples, seed), changes(own, base)
    against = {
        "difference, points": f"{versus.difference:+.2f} ({versus.low:+.2f} to {versus.high:+.2f})",
        "relative, %": _relative(versus),
        "p-value": f"{versus.p_value:.4f}",
        "prob. of improvement": f"{versus.improvement_probability:.3f}",
        "other transcripts": f"{changed.transcripts} of {utterances}",
        "better / worse": f"{changed.better} / {changed.worse} utterances",
        f"{'character' if own.rules.by_characters else 'word'} errors changed": str(changed.words),
        "difference is": _verdict(versus),
    }
    return cells | (dict.fromkeys(against, "-") if own is base else against)


def _relative(versus: PairedDifference) -> str:
    if versus.relative is None:
        return "undefined: BASE has no errors"
    if versus.relative_low is None:
        return f"{versus.relative:+.1f} (no interval: too few errors)"
    return f"{versus.relative:+.1f} ({versus.relative_low:+.1f} to {versus.relative_high:+.1f})"


def _verdict(versus: PairedDifference) -> str:
    if not versus.significant:
        return "not significant"
    return "significant: better" if versus.difference < 0 else "significant: worse"
