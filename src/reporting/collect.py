"""Records as one data frame: a row a point, a column a figure or a setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import pandas as pd

from src.errors import UserError, did_you_mean
from src.machine.provenance import PACKAGES, separate
from src.metrics import METRICS
from src.records import Evaluated, Record

IDENTITY: Final = ("fingerprint", "model", "method", "bits", "wbits", "abits", "kvbits", "group_size", "dataset")
VERSIONS: Final = ("schema", "normalizer", "scorer")  # scores of different ones are never shown in one table
BESIDE: Final = " + "  # between values of one point that was made in several places
PACKAGE: Final = "packages."  # columns of versions of packages
SOURCES: Final = {"data": "dataset", "weights": "model"}  # versions of what has the same name: they differ by name only
SCORES: Final = ("fp_wer", "utterances")
EDITS: Final = ("words", "substitutions", "deletions", "insertions")
MODES: Final = ("loops", "empty", "capped")  # see src.scoring.failure_modes
# What a score rests on, of the results that a record tells the provenance of; the rest is cost and time.
_UNSCORED: Final = ("prompt", "decoded_cost", "profile", "latency", "measure", "export")
_COMMIT: Final = 12  # characters of a digest or commit that are shown


def collect(records: Sequence[Record], *, means: bool = False) -> pd.DataFrame:
    """Every evaluated point of :func:`~src.reporting.reading.read_records`, a row each, or every mean over test sets.

    Columns are the point's names and bits, the figures of :mod:`src.metrics` (where ``metric`` is CER, what is called
    WER is over characters), ``diff`` of the WER and its interval against full precision in points, how it fails,
    versions, and its settings with dots (``calib.n``). ``data`` and ``weights`` tell test sets and
    models of the same name apart, ``runtime`` what decoded. Where the score was made tell ``code`` (a digest of the
    source), ``commit``, ``packages.torch`` and so on, ``machine``, and ``packages``: those that are not the same for
    all points. ``transcripts`` names the stored ones, those of a mean side by side.

    Raises:
        UserError: none was evaluated, or none is a mean.
    """
    stored = {record.fingerprint: record.transcripts for record in records}
    chosen = [record for record in records if bool(record.members) == means]
    rows = [_row(record, record.results.evaluate, stored) for record in chosen if record.results.evaluate]
    if not rows:
        kind = "is a mean over test sets" if means else "was evaluated"
        remedy = "dataset=librispeech_sample" if means else "stages=[evaluate,profile]"
        raise UserError("outputs", f"none of the {len(records)} records {kind}", f"Run the same points with {remedy}")
    points = pd.DataFrame(rows)
    names = [name for name in points if name.startswith(PACKAGE) and points[name].nunique(dropna=False) > 1]
    packages = [" ".join(f"{name.removeprefix(PACKAGE)}-{row[name]}" for name in names) for _, row in points.iterrows()]
    points.insert(int(points.columns.get_loc("wer")), "packages", packages)
    return points


def composites(records: Sequence[Record]) -> dict[str, set[str]]:
    """The test sets of the means among the records, by the mean's name."""
    found: dict[str, set[str]] = {}
    for record in records:
        if record.members:
            found.setdefault(record.dataset, set()).update(member.dataset for member in record.members)
    return found


def choose(points: pd.DataFrame, filters: Iterable[str], means: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """The points that match every ``column=pattern[,pattern ...]``; patterns as in a shell.

    The name of one of the ``means`` (:func:`composites`) stands for its test sets.

    Raises:
        UserError: no such column, or nothing matches.
    """
    for text in filters:
        column, equals, patterns = text.partition("=")
        if not equals:
            raise UserError("filter", f"{text!r} is not column=value", "Write e.g. method=rtn,gptq")
        if column not in points:
            raise UserError("filter", f"records have no {column!r}", did_you_mean(column, points.columns))
        values, wanted = points[column].astype(str), patterns.split(",")
        if column == "dataset":
            named = [name for name in means if any(fnmatchcase(name, each) for each in wanted)]
            wanted += [member for name in named for member in means[name]]
        chosen = points[[any(fnmatchcase(value, each) for each in wanted) for value in values]]
        if chosen.empty:
            problem = f"{column} matches no record with {patterns!r}"
            raise UserError("filter", problem, f"There are {', '.join(sorted(values.unique()))}")
        points = chosen
    return points


def _row(record: Record, scores: Evaluated, stored: Mapping[str, str | None]) -> dict[str, Any]:
    versions = {"schema": record.schema_, **dict(record.versions)}
    identity = record.versions.model
    versus_fp = {"diff" if name == "difference" else f"diff_{name}": value for name, value in scores.versus_fp}
    return {
        **record.flat_settings,
        **{name: getattr(record, name) for name in IDENTITY},
        "runtime": record.runtime,
        **{name: str(versions[name]) for name in VERSIONS},
        "data": _data(record, scores),
        "weights": str(identity.get("sha256") or identity.get("revision") or "unknown")[:_COMMIT],
        **_made(record),
        "metric": scores.metric,
        **{name: figure for each in METRICS.values() for name, figure in record.results.figures(each).items()},
        **{name: getattr(scores, name) for name in (*SCORES, *EDITS)},
        **versus_fp,
        **{name: getattr(scores.failures, name) for name in MODES},
        "transcripts": _transcripts(record, stored),
        **{f"changed_{name}": value for name, value in scores.changed_from_fp.items()},
    }


def _made(record: Record) -> dict[str, str]:
    """Where what the score rests on was made; several values stand side by side."""
    scored = {
        name: places
        for name, places in separate(record.provenance).items()
        if (own := name.rpartition("/")[2]) not in _UNSCORED and not own.startswith("measure")
    }
    places = [place for each in scored.values() for place in each]
    return {
        "code": _several(place.get("source") for place in places),
        "commit": _several(_commit(place) for place in places),
        **{f"{PACKAGE}{name}": _several(place.get("packages", {}).get(name) for place in places) for name in PACKAGES},
        "machine": _several(_machine(place) for place in places),
    }


def _transcripts(record: Record, stored: Mapping[str, str | None]) -> str | None:
    if not record.members:
        return record.transcripts
    return BESIDE.join(str(stored.get(member.fingerprint)) for member in record.members)


def _several(values: Iterable[object]) -> str:
    return BESIDE.join(sorted({str(value) for value in values if value is not None})) or "unknown"


def _commit(place: Mapping[str, Any]) -> str | None:
    commit = place.get("commit")
    return commit and commit[:_COMMIT] + ("-dirty" if place.get("dirty") else "")


def _machine(place: Mapping[str, Any]) -> str | None:
    if "processor" not in place:
        return None
    device = "" if place.get("device") == "cpu" else f" and {place.get('device')}"
    return f"{place['processor']}{device}, {place.get('threads')} threads"


def _data(record: Record, scores: Evaluated) -> str:
    """What was transcribed, as far as a record can tell: two of them that differ are not of the same utterances."""
    drawn = "" if record.subset is None else f"seed_{record.seed}"
    size = (f"{scores.utterances}_utterances", f"{scores.words}_words")
    parts = (record.settings["dataset"].get("revision"), *size, drawn)
    return "_".join(filter(None, parts))  # a word that a filter can name
