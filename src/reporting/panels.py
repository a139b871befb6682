"""What may be shown together, what may be averaged, and how points of one method are told apart.

Never side by side in a table: scores by other normalizers, scorers or schemas, of other data or weights under one name.
Never averaged, over seeds or over test sets: scores that also differ in the code or the packages that made them, any of
which may move a figure, so that a spread over seeds would be theirs too. Scores made on other processors or with other
numbers of threads may be averaged, as sums in another order move a token now and then: a report says that they are.
Times, and what was measured besides, are of one machine, and never averaged at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from src.errors import UserError
from src.reporting.collect import PACKAGE, SOURCES, VERSIONS

_FIRST: Final = ("fp", "rtn")  # what the others are read against
_NOT_COMPARED: Final = (  # settings, and groups of them, that say where a point ran or what was done besides
    *("output_dir", "dataset.root", "device", "stages", "tracking", "export"),
    "evaluate.runtime",  # which the column runtime tells
    *(f"profile.{name}" for name in ("repeats", "runtimes", "threads", "max_load", "onnx", "whisper_cpp")),
)
_PLAIN: Final = ("model", "dataset", "method", "bits")  # what names a point
_MADE: Final = ("code", "commit", "packages", "machine")  # where it was made
_APART: Final = (*VERSIONS, *SOURCES)


@dataclass(frozen=True)
class Panel:
    """Points that one plot may compare.

    Attributes:
        name: model and test set, and their versions where others of the same name exist.
        points: rows of :func:`~src.reporting.collect.collect` with the added column ``series``: the method, and the
            settings in which it was run more than once. A series has one point a bit-config.
    """

    name: str
    points: pd.DataFrame

    @property
    def metric(self) -> str:
        """What its error rates are: WER or, where characters are counted, CER; one normalizer has one."""
        return str(self.points["metric"].iloc[0])


def panels(points: pd.DataFrame) -> list[Panel]:
    """All points, apart by model, test set, normalizer, scorer, schema, data and weights; nothing is averaged."""
    found = []
    for (model, dataset), same_name in points.groupby(["model", "dataset"], sort=True):
        varying = [name for name in _APART if same_name[name].nunique() > 1]
        parts = same_name.groupby(varying, sort=True) if varying else [((), same_name)]
        for versions, part in parts:
            told = [f"{name} {value}" for name, value in zip(varying, versions, strict=True)]
            series = part["method"].copy()
            for method in part.loc[part.duplicated(["method", "bits"]), "method"].unique():
                series.update(_series(part[part["method"] == method]))
            found.append(Panel(", ".join([f"{model}, {dataset}", *told]), part.assign(series=series)))
    return found


def corpus(panel: Panel) -> str:
    """Names the utterances of a panel: the test set and its version."""
    first = panel.points.iloc[0]
    return f"{first['dataset']} {first['data']}"


def _series(method: pd.DataFrame) -> pd.Series[Any]:
    """Names of the points of a method with several in one bit-config, unique in each."""
    repeated = [same for _, same in method.groupby("bits") if len(same) > 1]
    varying = list(dict.fromkeys(name for same in repeated for name in differing(same)))
    told = ["".join(f" {name}={point[name]}" for name in varying) for _, point in method.iterrows()]
    names = method["method"].str.cat(told)
    ambiguous = pd.DataFrame({"name": names, "bits": method["bits"]}).duplicated(keep=False)
    return names.mask(ambiguous, names + " " + method["fingerprint"].str[:6])


def differing(points: pd.DataFrame) -> list[str]:
    """Settings that are not the same for all of these points."""
    columns = [str(name) for name in points]
    known = {*_PLAIN, *_APART, "fingerprint", "metric", *_MADE}
    groups = (PACKAGE, *(f"{name}." for name in _NOT_COMPARED))
    settings = [
        name for name in columns[: columns.index("wer")] if name not in known and not f"{name}.".startswith(groups)
    ]
    return [name for name in settings if points[name].nunique(dropna=False) > 1]


def made_apart(points: pd.DataFrame) -> list[str]:
    """What keeps the scores of these points from being averaged: columns of code and packages in which they differ."""
    columns = ["code", *(str(name) for name in points if str(name).startswith(PACKAGE))]
    return [name for name in columns if points[name].nunique(dropna=False) > 1]


def require_same_versions(points: pd.DataFrame) -> None:
    """Checks that the scores may be put side by side and averaged.

    Raises:
        UserError: they come from different normalizers, scorers or schemas, or one name stands for different utterances
            or different weights; says which.
    """
    for name in VERSIONS:
        _require_one(points, name, "the records were made with different versions")
    for name, of in SOURCES.items():
        for which, same in points.groupby(of):
            _require_one(same, name, f"the records of {which} are of different {name}")


def _require_one(points: pd.DataFrame, name: str, told: str) -> None:
    found = sorted(points[name].unique())
    if len(found) > 1:
        problem = f"{told} ({', '.join(found)}), which cannot be compared"
        raise UserError(name, problem, f"Add {name}={found[-1]}")


def rank(name: Any) -> tuple[Any, ...]:
    """Sorts references first; bit-configs from many to few bits, weight-only ones first; the rest by name."""
    if isinstance(name, str) and (bits := _bits(name)):
        return (1, *bits, name)
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), 0, 0, str(name))


def _bits(name: str) -> tuple[int, int] | None:
    """(-abits, -wbits) of a bit-config's name such as ``w4a16g32``."""
    found = re.match(r"w(\d+)(?:sym)?a(\d+)", name)
    return (-int(found[2]), -int(found[1])) if found else None
