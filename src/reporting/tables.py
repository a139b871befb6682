"""Tables of one metric: what is compared in rows and columns, a table for everything else that differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final, Literal

import pandas as pd

from src.errors import UserError, did_you_mean
from src.metrics import METRICS, WER, Metric
from src.reporting.collect import IDENTITY
from src.reporting.escape import latex, markdown, spreadsheet
from src.reporting.panels import differing, made_apart, rank, require_same_versions
from src.reporting.significance import PairedTests, Verdicts

Format = Literal["markdown", "latex", "csv"]

_MEAN: Final = "mean"
_SEEDS: Final = ("seed", "calib.seed")  # what points of one cell may differ in
_APART: Final = ("model", "bits", "dataset", "method")
_ESCAPE: Final = {"markdown": markdown, "latex": latex}
_STRONG: Final = {"markdown": "**{}**", "latex": r"\textbf{{{}}}"}
_STAR: Final = {"markdown": r"\*", "latex": "$^*$"}  # a bare one would end what is bold
_SPREAD: Final = {"markdown": "±", "latex": r"$\pm$"}
_DAGGER: Final = {"markdown": "†", "latex": r"$^\dagger$"}
_TIED: Final = {"markdown": " ≈", "latex": r" $\approx$"}


@dataclass(frozen=True)
class Layout:
    """Names of the columns of :func:`~src.reporting.collect.collect` that make rows and columns, and fill the cells."""

    rows: str
    columns: str
    metric: str = WER.name

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UserError("metric", f"there is no {self.metric!r}", did_you_mean(self.metric, METRICS))
        for field, name in (("rows", self.rows), ("columns", self.columns)):
            if name not in IDENTITY[1:]:
                raise UserError(field, f"{name!r} cannot be laid out", did_you_mean(name, IDENTITY[1:]))

    @property
    def shown(self) -> Metric:
        """What cells hold."""
        return METRICS[self.metric]

    @property
    def tables(self) -> list[str]:
        """What every table has one value of."""
        return [name for name in _APART if name not in (self.rows, self.columns)]


def render(points: pd.DataFrame, layout: Layout, form: Format, tests: PairedTests | None = None) -> str:
    """All tables in one of the formats; ``csv`` is one line a point with every figure, for other programs.

    Cells hold the metric with its 95 % interval, a WER a star where its difference to full precision is significant;
    the best of a column is bold. Points that differ in nothing but the seed share a cell: their mean and its sample
    standard deviation, and a star where every one's difference is significant. Tables with data sets as columns end in
    their unweighted mean. What may not be averaged (:mod:`src.reporting.panels`) stands side by side with a dagger, and
    the title says what differs. With ``tests`` stars obey Holm's correction over their table, and what is not told from
    the best of its column has a sign.

    Raises:
        UserError: points of different versions, several points for one cell, or none that has the metric; ``tests`` are
            asked for with another metric than the WER.
    """
    if form == "csv":
        ordered = points.sort_values([*layout.tables, layout.rows, layout.columns])
        return str(spreadsheet(ordered).to_csv(index=False))
    require_same_versions(points)
    if points[layout.metric].isna().all():
        raise UserError("metric", f"no record has a {layout.metric}", "Run the points again with all stages")
    if tests and layout.shown is not WER:
        raise UserError(
            "--best", f"it tells of the WER, not of {layout.metric}", "Leave out one of --best and --metric"
        )
    return "\n\n".join(_titled(title, cells, form) for title, cells in _tables(points, layout, form, tests)) + "\n"


def _tables(
    points: pd.DataFrame, layout: Layout, form: Format, tests: PairedTests | None
) -> Iterator[tuple[str, pd.DataFrame]]:
    for names, group in points.groupby(layout.tables, sort=True):
        fp = sorted({f"{value:.2f}" for value in group["fp_wer"]})
        baseline = f" (fp {fp[0]})" if len(fp) == 1 else ""
        if layout.shown is not WER:
            baseline = f": {_ESCAPE[form](layout.shown.label)}"
        seeds = group.groupby([layout.rows, layout.columns]).size().max()
        spread = f", mean {_SPREAD[form]} standard deviation over {seeds} seeds" if seeds > 1 else ""
        metrics = set(group["metric"]) - {"WER"}
        counted = "".join(f", {metric}: characters are counted, not words" for metric in metrics)
        averaged = [layout.rows] if layout.columns == "dataset" else [layout.rows, layout.columns]
        apart = sorted({name for _, same in group.groupby(averaged) for name in made_apart(same)})
        dagger = f"; {_DAGGER[form]} not averaged: of different {', '.join(apart)}" if apart else ""
        signs = f"; {_STAR[form]} told from fp,{_TIED[form]} not told from the column's best (Holm's correction)"
        title = (
            ", ".join(_ESCAPE[form](str(name)) for name in names)
            + baseline
            + spread
            + counted
            + dagger
            + (signs if tests else "")
        )
        yield title, _cells(group, layout, form, tests)


def _cells(points: pd.DataFrame, layout: Layout, form: Format, tests: PairedTests | None) -> pd.DataFrame:
    same = points.groupby([layout.rows, layout.columns])
    metric = layout.shown
    averages = {names: cell[metric.name].mean() if not made_apart(cell) else float("nan") for names, cell in same}
    figures = _ordered(pd.Series(averages).unstack().rename_axis(index=layout.rows))
    if tests:
        verdicts = tests.verdicts({names: cell for names, cell in same if not made_apart(cell)}, averages)
    else:
        verdicts = Verdicts({names for names, cell in same if cell["diff_significant"].all()}, set())
    shown = {
        names: _cell(cell, names, metric, _STAR[form] if metric is WER and names in verdicts.differ else "", form)
        + (_TIED[form] if names in verdicts.best else "")
        for names, cell in same
    }
    text = pd.Series(shown).unstack()
    cells = text.reindex(index=figures.index, columns=figures.columns).rename_axis(index=layout.rows)
    if layout.columns == "dataset" and len(figures.columns) > 1:
        apart = {row for row, same in points.groupby(layout.rows) if made_apart(same)}
        figures[_MEAN] = figures.mean(axis=1, skipna=False).mask(figures.index.isin(apart))
        means = figures[_MEAN].map(metric.text).where(figures[_MEAN].notna(), None)
        cells[_MEAN] = means.mask(figures.index.isin(apart), _DAGGER[form])
    for column in cells:
        best = figures[column] == (figures[column].min() if metric.lower_is_better else figures[column].max())
        cells[column] = cells[column].mask(best, cells[column].map(_STRONG[form].format))
    return cells.fillna("-")


def _cell(points: pd.DataFrame, names: Sequence[object], metric: Metric, star: str, form: Format) -> str:
    """What is known of the points of one cell: one, or one a seed."""
    figures = [float(value) for value in points[metric.name]]
    if len(figures) == 1:
        low, high = (points[name].iloc[0] for name in (*metric.described,)[1:]) if metric.counts else (None, None)
        interval = "" if low is None or isnan(low) else f" ({low:.1f}-{high:.1f})"
        return "-" if isnan(figures[0]) else f"{metric.text(figures[0])}{star}{interval}"
    others = [name for name in differing(points) if name not in _SEEDS]
    if others or points.duplicated(list(_SEEDS)).any():
        raise _several(points, names, others or ["fingerprint"])
    if made_apart(points):
        return " / ".join(map(metric.text, figures)) + _DAGGER[form]
    mean, spread = (metric.text(figure) for figure in (points[metric.name].mean(), points[metric.name].std()))
    return f"{mean}{star} {_SPREAD[form]} {spread}"


def _several(points: pd.DataFrame, names: Sequence[object], found: Sequence[str]) -> UserError:
    """The error that names the setting by which points of one cell differ."""
    problem = f"{len(points)} records are {' '.join(map(str, names))}; they differ in {', '.join(found)}"
    laid = next((name for name in found if name in IDENTITY), None)
    remedy = f"Choose one, e.g. {found[0]}={points[found[0]].iloc[0]}"
    return UserError("filter", problem, remedy if laid is None else f"{remedy}, or lay {laid} out")


def _ordered(wer: pd.DataFrame) -> pd.DataFrame:
    rows = sorted(wer.index, key=rank)
    return wer.reindex(index=rows, columns=sorted(wer.columns, key=rank))


def _titled(title: str, cells: pd.DataFrame, form: Format) -> str:
    def plain(name: object) -> str:
        return _ESCAPE[form](str(name))

    named = cells.rename(columns=plain, index=plain).rename_axis(index=plain(cells.index.name))
    if form == "latex":
        return str(named.to_latex(escape=False, caption=title)).strip()
    names: Sequence[str] = [str(named.index.name), *named.columns]
    return f"### {title}\n\n{named.reset_index().to_markdown(index=False, headers=names, disable_numparse=True)}"
