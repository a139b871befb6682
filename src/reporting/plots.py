"""Plots of word error rates: against bits, against costs, and by the kind of error. Nothing is averaged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from src.metrics import COSTS
from src.reporting import canvas
from src.reporting.collect import EDITS, MODES
from src.reporting.marks import COLOURS, UNSEEN, Mark, front
from src.reporting.panels import Panel, rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EDITS: Final = EDITS[1:]
_EDIT_COLOURS: Final = dict(zip(_EDITS, (COLOURS[5], COLOURS[1], COLOURS[4]), strict=True))
_HATCHES: Final = dict(zip(_EDITS, ("", "///", "..."), strict=True))
_FP_LINE: Final[dict[str, Any]] = {"color": UNSEEN, "linewidth": 1.0, "linestyle": (0, (5, 3))}
_FRONT_LINE: Final[dict[str, Any]] = {"color": UNSEEN, "linewidth": 1.0, "drawstyle": "steps-post"}
_MODES: Final = dict(zip(MODES, ("loops", "empty", "cut off"), strict=True))


def wer_against_bits(panel: Panel, series: dict[str, Mark]) -> Figure:
    """A line a series over the weight bits, with 95 % intervals; one axes for each choice of the other bits."""
    kinds = panel.points.assign(kind=[_without_weights(bits) for bits in panel.points["bits"]])
    names = sorted(kinds["kind"].unique(), key=lambda kind: (-_leading(kind), kind))
    drawn, axes = canvas.figure(3.4 * len(names), 3.8, len(names), legend=True, sharey=True)
    for ax, kind in zip(axes, names, strict=True):
        points = kinds[kinds["kind"] == kind]
        widths = sorted(points["wbits"].unique(), reverse=True)
        _error_axis(ax, panel.points)
        step = 0.6 / max(len(series), 1)
        for number, (name, mark) in enumerate(series.items()):
            own = points[points["series"] == name].sort_values("wbits", ascending=False)
            at = [widths.index(bits) + (number - len(series) / 2) * step for bits in own["wbits"]]
            ax.plot(at, own["wer"], linewidth=0.7, markersize=4, alpha=0.9, **canvas.style(mark))
            canvas.whiskers(ax, at, own["wer_low"], own["wer_high"], COLOURS[mark.colour])
        ax.set_xticks(range(len(widths)), [str(bits) for bits in widths])
        ax.set_xlim(-0.6, len(widths) - 0.4)
        ax.set(xlabel=f"weight bits ({kind})", title=panel.name if ax is axes[0] else "")
        ax.title.set_ha("left")
        ax.title.set_x(0)
    axes[0].set_ylabel(f"{panel.metric}, % (95 % interval)")
    canvas.show_legend(drawn, _shown(panel, series), **{"full precision": _FP_LINE})
    return drawn


def pareto(panel: Panel, series: dict[str, Mark]) -> Figure:
    """WER against each cost, with 95 % intervals, the front as steps and its points named."""
    known = [cost for cost in COSTS if cost.heading and panel.points[cost.name].notna().any()]
    drawn, axes = canvas.figure(3.9 * max(len(known), 1), 3.9, max(len(known), 1), legend=True, sharey=True)
    for ax, cost in zip(axes, known, strict=False):
        points = panel.points[panel.points[cost.name].notna()]
        at = points[cost.name] / cost.scale
        _error_axis(ax, panel.points)
        for name, mark in series.items():
            own = points["series"] == name
            canvas.whiskers(ax, at[own], points["wer_low"][own], points["wer_high"][own], COLOURS[mark.colour])
            ax.plot(at[own], points["wer"][own], linestyle="none", markersize=4.5, alpha=0.85, **canvas.style(mark))
        best = points.iloc[front(at, points["wer"])]
        ax.plot(at.loc[best.index], best["wer"], **_FRONT_LINE)
        names = (best["series"] + " " + best["bits"]).tolist()
        canvas.name_points(ax, at.loc[best.index].to_numpy(float), best["wer"].to_numpy(float), names)
        ax.set(xlabel=cost.label, title=panel.name if ax is axes[0] else "")
        ax.title.set_ha("left")
        ax.title.set_x(0)
    axes[0].set_ylabel(f"{panel.metric}, % (95 % interval)")
    lines = {"full precision": _FP_LINE, "Pareto front": _FRONT_LINE}
    canvas.show_legend(drawn, _shown(panel, series), **lines)
    return drawn


def failure_modes(panel: Panel) -> Figure:
    """WER split into substitutions, deletions and insertions; beside it the loops, empty and cut-off transcripts."""
    points = panel.points[panel.points[[*EDITS]].notna().all(axis=1)]
    bits, names = (sorted(points[column].unique(), key=rank) for column in ("bits", "series"))
    height = 0.95 + 0.19 * max(len(names), 3)
    margin = 0.35 + 0.065 * max(map(len, names), default=0)  # inches that the names take
    drawn, axes = canvas.figure(
        margin + 0.2 + 2.5 * max(len(bits), 1), height, max(len(bits), 1), legend=True, sharey=True
    )
    drawn.subplots_adjust(left=margin / drawn.get_figwidth())
    for ax, config in zip(axes, bits, strict=False):
        own = points[points["bits"] == config].set_index("series")
        at, left = [names.index(name) for name in own.index], np.zeros(len(own))
        for edit in _EDITS:
            rates = (100 * own[edit] / own["words"]).to_numpy(float)
            ax.add_collection(_bars(at, left, rates, edit))
            left += rates
        _name_modes(ax, own, at, left)
        _fp_lines(ax.axvline, own)
        ax.set(title=config, xlabel=f"{panel.metric}, %", xlim=(0, max(left.max() * 1.35, 1.0)))
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    drawn.text(0.01, 1 - 0.16 / height, panel.name, fontsize=9, va="center")
    _edit_legend(drawn)
    return drawn


def _bars(at: Sequence[int], left: np.ndarray, width: np.ndarray, edit: str) -> Any:
    """All bars of one kind of error as one artist, which is drawn several times as fast as one for each."""
    from matplotlib.collections import PolyCollection

    corners = [
        [(x, y - 0.37), (x + w, y - 0.37), (x + w, y + 0.37), (x, y + 0.37)]
        for y, x, w in zip(at, left, width, strict=True)
    ]
    return PolyCollection(corners, facecolor=_EDIT_COLOURS[edit], hatch=_HATCHES[edit], edgecolor="white", linewidth=0)


def _name_modes(ax: Axes, points: pd.DataFrame, at: Sequence[int], ends: np.ndarray) -> None:
    """Counts of the transcripts that failed as a whole, after the bars."""
    for row, end, (_, point) in zip(at, ends, points.iterrows(), strict=True):
        counts = [f"{name} {point[mode]:.0f}" for mode, name in _MODES.items() if point[mode] > 0]
        ax.annotate(", ".join(counts), (end, row), (3, 0), textcoords="offset points", fontsize=5.5, va="center")


def _edit_legend(drawn: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Patch(label=edit, facecolor=_EDIT_COLOURS[edit], hatch=_HATCHES[edit], edgecolor="white") for edit in _EDITS
    ]
    handles.append(Line2D([], [], label="full precision", **_FP_LINE))
    drawn.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1 - (canvas.LEGEND_INCHES - 0.05) / drawn.get_figwidth(), 0.5),
        title="loops: repetition; empty: no word;\ncut off: at the limit of tokens",
        title_fontsize=6.5,
        alignment="left",
    )


def _error_axis(ax: Axes, points: pd.DataFrame) -> None:
    """Limits that hold all points, their intervals and full precision, which gets a line."""
    rates = points[["wer", "fp_wer"]].to_numpy(float)
    canvas.error_axis(ax, rates, points["wer_low"].to_numpy(float), points["wer_high"].to_numpy(float))
    _fp_lines(ax.axhline, points)


def _fp_lines(line: Any, points: pd.DataFrame) -> None:
    """One line; several where the baseline differs within a panel, as by the type it was computed in."""
    for value in points["fp_wer"].unique():
        line(value, zorder=0, **_FP_LINE)


def _shown(panel: Panel, series: dict[str, Mark]) -> dict[str, Mark]:
    present = set(panel.points["series"])
    return {name: mark for name, mark in series.items() if name in present}


def _without_weights(bits: str) -> str:
    """``a16`` of ``w4a16``, ``syma16`` of ``w4syma16``: what lines of a plot over the weight bits have in common."""
    return re.sub(r"^w\d+", "", bits) or bits


def _leading(kind: str) -> int:
    found = re.match(r"(?:sym)?a(\d+)", kind)
    return int(found[1]) if found else 0
