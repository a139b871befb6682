"""Matplotlib figures in one style, written as PNG and SVG; nothing here knows what is drawn."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from src.reporting.marks import COLOURS, SHAPES, Mark
from src.storage.store import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Final[dict[str, Any]] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # else every draw measures all ticks to place the title: a sixth of the time
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, and a tenth of the size
    "svg.hashsalt": "edge-asr",  # the same records give the same file
    "savefig.dpi": 150,
    "text.parse_math": False,  # a dollar in a name is a dollar
}
LEGEND_INCHES: Final = 2.0
_LONGEST: Final = 200  # characters of a file's name
_WIDE: Final = 4.0  # the highest error rate over the lowest from which on the axis is logarithmic
_NAME_SIZE: Final = 6.0  # of the names of points, in points
_DATE: Final = {"Date": None}  # of an SVG, which would differ from run to run


def figure(width: float, height: float, columns: int, *, legend: bool = False, **options: Any) -> tuple[Figure, Any]:
    """A figure of ``width`` x ``height`` inches with a row of axes; with room for a legend at its right, if any.

    Returns:
        The figure and its axes, ``[columns]``.
    """
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update(STYLE)
    whole = width + (LEGEND_INCHES if legend else 0)
    drawn = Figure(figsize=(whole, height))
    drawn.subplots_adjust(left=0.62 / whole, right=(width - 0.1) / whole, top=1 - 0.5 / height, bottom=0.55 / height)
    return drawn, drawn.subplots(1, columns, squeeze=False, **options)[0]


def show_legend(drawn: Figure, series: dict[str, Mark], **lines: Any) -> None:
    """Names of the series and of further lines, at the right of the figure."""
    from matplotlib.lines import Line2D

    width = drawn.get_figwidth()
    handles = [Line2D([], [], linestyle="none", label=name, markersize=5, **style(m)) for name, m in series.items()]
    handles += [Line2D([], [], label=name, **how) for name, how in lines.items()]
    drawn.legend(handles=handles, loc="center left", bbox_to_anchor=(1 - (LEGEND_INCHES - 0.05) / width, 0.5))


def style(mark: Mark) -> dict[str, Any]:
    """Keywords of :meth:`Axes.plot` for a series."""
    return {"color": COLOURS[mark.colour], "marker": SHAPES[mark.shape]}


def whiskers(axes: Axes, at: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> None:
    """Vertical interval bars, all in one artist."""
    from matplotlib.collections import LineCollection

    segments = [[(x, bottom), (x, top)] for x, bottom, top in zip(at, low, high, strict=True)]
    axes.add_collection(LineCollection(segments, colors=colour, linewidths=0.8, alpha=0.45))


def error_axis(axes: Axes, rates: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Limits that hold all error rates and their intervals; logarithmic for a wide range of rates."""
    from matplotlib.ticker import LogLocator

    if rates.min() > 0 and rates.max() > _WIDE * rates.min():
        axes.set_yscale("log", subs=[])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylim(max(low.min(), rates.min() / 4) * 0.9, high.max() * 1.15)
    else:
        axes.set_ylim(max(low.min() - 0.5, 0), high.max() * 1.05 + 0.1)


def name_points(ax: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Writes a name below each point, from left to right; below each other where the names would overlap."""
    ax.get_xlim()  # which settles the limits
    points = ax.transData.transform(np.column_stack([x, y])) * 72 / ax.figure.dpi
    written = list[tuple[float, float, float]]()  # where names are: left, right, bottom
    for (left, level), name, where in zip(points, names, zip(x, y, strict=True), strict=True):
        right, bottom = left + 0.6 * _NAME_SIZE * len(name), level - 1.5 * _NAME_SIZE
        for other_left, other_right, other in sorted(written, key=lambda each: -each[2]):
            if left < other_right and other_left < right and abs(other - bottom) < _NAME_SIZE:
                bottom = other - 1.1 * _NAME_SIZE
        written.append((left, right, bottom))
        ax.annotate(name, where, (3, bottom - level), textcoords="offset points", fontsize=_NAME_SIZE)


def write(drawn: Figure, folder: Path, name: str, forms: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes ``<name>.png`` and ``<name>.svg``; characters that a file name should not hold become hyphens."""
    stem = re.sub(r"[^\w.=-]+", "-", name).strip("-.")[:_LONGEST]
    written = []
    for form in forms:
        content = BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name in another script: empty boxes
            drawn.savefig(content, format=form, metadata=_DATE if form == "svg" else None)
        path = folder / f"{stem}.{form}"
        write_bytes(path, content.getvalue())
        written.append(path)
    return written
