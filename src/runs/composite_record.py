"""The record of a composite: the scores of its members side by side, and their unweighted mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.machine.provenance import Made, combined, separate
from src.records import Evaluated, Member, Record
from src.scoring.comparison import scored
from src.scoring.mean import mean_scores
from src.stages.base import RESULT, obtain, read_json
from src.stages.decoding import TRANSCRIPTS
from src.stages.point import VERSIONS, Point
from src.storage.store import Entry, fingerprint
from src.tracking import Tracker

SUMS = ("utterances", "words", "audio_seconds", "tokens")
COLUMNS = ("wer", "wer_low", "wer_high", "fp_wer", "words")
SHOWN = ("fingerprint", "model", "method", "bits", "dataset", "results")  # of a member


def build_composite_record(name: str, points: Sequence[Point], records: Sequence[Record]) -> Record:
    """A record in the form of a point's, with ``members``: what is shown of theirs.

    The model is the same for all members, and so are its size, its cost and what was measured of it. ``evaluate`` holds
    the mean over the members (see :func:`~src.scoring.mean.mean_scores`), and sums of what can be added up; it is
    there where all members were evaluated. ``provenance`` is of all of them: what is a member's own is told as
    ``member/result``.

    Raises:
        UserError: the members were evaluated, but transcripts that their mean needs are no longer stored.
    """
    first = records[0].plain
    results = {stage: first["results"][stage] for stage in ("quantize", "profile") if stage in first["results"]}
    if "profile" in results:
        results["profile"] = {**results["profile"], "decoded": None}  # each member has its own
    evaluated = [record.results.evaluate for record in records if record.results.evaluate]
    if len(evaluated) == len(records):
        sums = {figure: sum(getattr(each, figure) for each in evaluated) for figure in SUMS}
        results["evaluate"] = {"metric": evaluated[0].metric, **_mean(points), **sums}
    own = {"evaluate", "others"}  # of a member: how fast it was decoded, and what is not of this machine
    subsets = {record.subset for record in records}
    plain = {
        **{field: value for field, value in first.items() if field != "transcripts"},  # each member has its own
        "fingerprint": composite_fingerprint(name, points),
        "dataset": name,
        "subset": subsets.pop() if len(subsets) == 1 else None,
        "results": results,
        "members": [{field: record.plain[field] for field in SHOWN} for record in records],
        "measured": {name: figures for name, figures in first["measured"].items() if name not in own},
        "times": _shared([record.times for record in records]),
        "entries": _shared([record.entries for record in records]),
        "provenance": combined(_made(records)),
        "settings": {
            **first["settings"],
            "dataset": {"name": name, "members": [record.dataset for record in records]},
        },
    }
    return Record.of(plain)


def _shared(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all have, and have alike."""
    return {name: value for name, value in each[0].items() if all(other.get(name) == value for other in each)}


def _made(records: Sequence[Record]) -> dict[str, Made]:
    """Where the results of all members were made: what they share once, the others by member."""
    entries = _shared([record.entries for record in records])
    found: dict[str, Made] = {}
    for record in records:
        for name, places in separate(record.provenance).items():
            shared = name.partition(".")[0] in entries
            found[name if shared else f"{record.dataset}/{name}"] = places
    return found


def composite_fingerprint(name: str, points: Sequence[Point]) -> str:
    return fingerprint({"composite": name, "members": [point.fingerprint for point in points]})


def log_composite(record: Record, evaluated: Evaluated, tracker: Tracker) -> None:
    """The means, and one table row a member."""
    difference = {f"versus_fp_{name}": value for name, value in evaluated.versus_fp}
    plain = {name: value for name, value in evaluated if isinstance(value, int | float | str)}
    tracker.log("evaluate", {"wbits": record.wbits, **plain, **difference})
    rows = [
        [member.dataset, *(getattr(member.results.evaluate, column) for column in COLUMNS), run_id(member)]
        for member in record.members
    ]
    tracker.table("evaluate", "members", ["dataset", *COLUMNS, "run"], rows)


def run_id(record: Member) -> str:
    return f"{record.method}-{record.bits}-{record.fingerprint}"


def mean_entry(points: Sequence[Point]) -> Entry:
    key = {"schema": VERSIONS["composite"], "evaluations": [point.evaluation.fingerprint for point in points]}
    return points[0].store.entry("composite", key)


def _mean(points: Sequence[Point]) -> dict[str, Any]:
    """The mean scores, computed once for the same evaluations."""
    settings, baselines = points[0].settings, [point.baseline for point in points]
    entry = mean_entry(points)
    if not entry.is_complete():
        for each in (*points, *baselines):
            if not each.transcripts.is_complete():
                problem = f"the mean needs the transcripts of {each.label}, which {each.transcripts.path} does not hold"
                raise UserError("stages", problem, "Add evaluate to stages, which makes them again")

    def build(_: Path) -> dict[str, Any]:
        own, fp = (
            [scored(each.transcripts.path / TRANSCRIPTS, each.rules) for each in systems]
            for systems in (points, baselines)
        )
        labels = [each.blocks.labels for each in own]
        samples = settings.evaluate.bootstrap_samples
        return mean_scores([each.scores for each in own], [each.scores for each in fp], labels, samples, settings.seed)

    return read_json(obtain(entry, build) / RESULT)
