"""Records as one data frame: a row a point, a column a figure or a setting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import pandas as pd

from src.errors import UserError, did_you_mean

IDENTITY: Final = ("fingerprint", "model", "method", "bits", "wbits", "abits", "kvbits", "group_size", "dataset")
VERSIONS: Final = ("schema", "normalizer", "scorer")  # scores of different ones are never shown in one table
SOURCES: Final = {"data": "dataset", "weights": "model"}  # versions of what has the same name: they differ by name only
SCORES: Final = ("wer", "wer_low", "wer_high", "cer", "fp_wer", "utterances")
EDITS: Final = ("words", "substitutions", "deletions", "insertions")
MODES: Final = ("loops", "empty", "capped")  # see src.evaluation.failures
COSTS: Final = ("memory_io_bytes", "bops", "bits_per_weight")
_COMMIT: Final = 12  # characters of a digest or commit that are shown


def collect(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Every evaluated point of :func:`~src.reporting.reading.read_records`, a row each.

    Columns are the point's names and bits, its scores (WER and CER in percent, ``diff`` and its interval against full
    precision in points; where ``metric`` is CER, what is called WER is over characters), how it fails, its cost (bytes,
    bit operations), versions, and its settings with dots (``calib.n``). ``data`` and ``weights`` tell test sets and
    models of the same name apart, ``code`` is the commit.

    Raises:
        UserError: none was evaluated.
    """
    single = [record for record in records if "members" not in record]  # means are made of the points here
    rows = [_row(record) for record in single if "evaluate" in record["results"]]
    if not rows:
        problem = f"none of the {len(records)} records was evaluated"
        raise UserError("outputs", problem, "Run the same points with stages=[evaluate,profile]")
    return pd.DataFrame(rows)


def choose(points: pd.DataFrame, filters: Iterable[str]) -> pd.DataFrame:
    """The points that match every ``column=pattern[,pattern ...]``; patterns as in a shell.

    Raises:
        UserError: no such column, or nothing matches.
    """
    for text in filters:
        column, equals, patterns = text.partition("=")
        if not equals:
            raise UserError("filter", f"{text!r} is not column=value", "Write e.g. method=rtn,gptq")
        if column not in points:
            raise UserError("filter", f"records have no {column!r}", did_you_mean(column, points.columns))
        values = points[column].astype(str)
        chosen = points[[any(fnmatchcase(value, each) for each in patterns.split(",")) for value in values]]
        if chosen.empty:
            problem = f"{column} matches no record with {patterns!r}"
            raise UserError("filter", problem, f"There are {', '.join(sorted(values.unique()))}")
        points = chosen
    return points


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    results = record["results"]
    scores, profile, quantized = (results.get(name, {}) for name in ("evaluate", "profile", "quantize"))
    versus_fp = {
        "diff" if name == "difference" else f"diff_{name}": value for name, value in scores["versus_fp"].items()
    }
    return {
        **dict(_flat(record["settings"])),
        **{name: record[name] for name in IDENTITY},
        **{name: str({**record, **record["versions"]}[name]) for name in VERSIONS},
        "data": _data(record),
        "weights": _weights(record["versions"]["model"]),
        "code": str(record.get("provenance", {}).get("git") or "unknown")[:_COMMIT],
        "metric": scores.get("metric", "WER"),
        **{name: scores[name] for name in SCORES},
        **versus_fp,
        **{name: scores.get(name) for name in EDITS},
        **{name: scores.get("failures", {}).get(name) for name in MODES},
        "transcripts": record.get("transcripts"),
        **{f"changed_{name}": value for name, value in scores.get("changed_from_fp", {}).items()},
        "disk_bytes": quantized.get("disk_bytes"),
        **{name: profile.get(name) for name in COSTS},
    }


def _data(record: Mapping[str, Any]) -> str:
    """What was transcribed, as far as a record can tell: two of them that differ are not of the same utterances."""
    scores, settings = record["results"]["evaluate"], record["settings"]["dataset"]
    subset = record.get("subset")
    drawn = f"seed_{record.get('seed')}" if subset is not None else ""
    size = [f"{scores[name]}_{name}" for name in ("utterances", "words") if name in scores]
    return "_".join(filter(None, (settings.get("revision"), *size, drawn)))  # a word that a filter can name


def _weights(identity: Mapping[str, Any]) -> str:
    """The checkpoint: its digest or its revision."""
    return str(identity.get("sha256") or identity.get("revision") or "unknown")[:_COMMIT]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Settings by dotted name; lists as text, so that every value can be compared."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value) if isinstance(value, list) else value
