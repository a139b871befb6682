"""Plots of what makes linears hard to quantize, and of what rounding did to each: layer by layer, from records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from src.errors import UserError
from src.records import Layer, Record
from src.reporting import canvas
from src.reporting.marks import COLOURS
from src.reporting.marks import SHAPES as MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORIGINAL: Final = "original model"
SHAPES: Final = {
    "kurtosis": "excess kurtosis\n(normal: 0)",
    "peak": "peak: largest / mean\nmagnitude",
    "outlier_channels": "channels with outliers\n(beyond 6 standard deviations)",
}
NOISE: Final = {
    "weight_sqnr_db": "weights, SQNR in dB",
    "output_sqnr_db": "outputs, SQNR in dB\n(weights rounded, inputs not)",
}
_LINEAR_BELOW: Final = 1.0  # on logarithmic axes: kurtosis may be negative, and there may be no outlier
_BLOCK: Final = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.")
_MOST_TICKS: Final = 24
_ALIKE: Final = 0.1
_FORMS: Final = ("png",)


@dataclass
class _QuantizedModel:
    """One quantized model: its layer table, and the original model's inputs by link."""

    label: str
    layers: Sequence[Layer]
    inputs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def plot_distributions(records: Iterable[Record], folder: Path) -> list[Path]:
    """Writes PNG files about the quantized models of ``records``, and returns their paths.

    For every model ``distributions-MODEL.png``: kurtosis, peak and outlier channels (see
    :class:`src.quant.figures.Distribution`) of the weights as they were rounded and of the inputs that the calibration
    saw, linear by linear. Series that are all but alike share one line, such as methods that leave the weights alone
    until they round them. For every model and bit-config ``sqnr-MODEL-BITS.png``: signal to quantization noise of
    weights and outputs.

    Raises:
        UserError: no record holds figures of this kind.
    """
    models: dict[str, dict[str, list[_QuantizedModel]]] = {}
    for record in sorted(records, key=lambda each: (each.method, each.bits)):
        made = record.results
        layers = [row for row in made.quantize.layers if row.weight_distribution] if made.quantize else []
        if not layers:
            continue
        inputs = made.calibrate.distributions if made.calibrate else {}
        points = models.setdefault(record.model, {}).setdefault(record.bits, [])
        if all(point.layers != layers for point in points):  # the same model on another test set
            points.append(_QuantizedModel(record.method, layers, inputs))
    if not models:
        problem = "no record tells how its weights are distributed: nothing was rounded, or an older version did it"
        raise UserError("outputs", problem, "Run the points again with another output_dir")
    written = []
    for model, configs in models.items():
        everything = [
            _QuantizedModel(f"{point.label} {bits}", point.layers, point.inputs)
            for bits, points in configs.items()
            for point in points
        ]
        written += canvas.write(_shapes(model, everything), folder, f"distributions-{model}", _FORMS)
        for bits, points in configs.items():
            written += canvas.write(_noise(f"{model}, {bits}", points), folder, f"sqnr-{model}-{bits}", _FORMS)
    return written


def _shapes(model: str, points: Sequence[_QuantizedModel]) -> Figure:
    """A row a figure; weights on the left, inputs on the right."""
    linears = _linears(points)
    drawn, axes = _figure(f"{model}: what is hard to quantize, linear by linear", len(SHAPES), 2, linears)
    weights = {point.label: {row.linear: row.weight_distribution or {} for row in point.layers} for point in points}
    inputs = _original_inputs(points)
    inputs |= {
        point.label: {row.linear: row.input_distribution for row in point.layers if row.input_distribution}
        for point in points
    }
    series: list[str] = []
    for column, (what, found) in enumerate({"weights, as they are rounded": weights, "inputs": inputs}.items()):
        merged = _merged(found)
        for name in merged:
            if name not in series:
                series.append(name)
        for row, (shape, label) in enumerate(SHAPES.items()):
            axis = axes[row][column]
            for name, by_linear in merged.items():
                values = [by_linear[each][shape] if each in by_linear else None for each in linears]
                _line(axis, values, series.index(name))
            _logarithmic(axis)
            axis.set_ylabel(label)
        axes[0][column].set_title(what, fontsize=9)
    return _with_legend(drawn, series)


def _noise(title: str, points: Sequence[_QuantizedModel]) -> Figure:
    """Weights above outputs."""
    linears = _linears(points)
    drawn, axes = _figure(f"{title}: signal to quantization noise, linear by linear", len(NOISE), 1, linears)
    for row, (noise, label) in enumerate(NOISE.items()):
        axis = axes[row][0]
        for number, point in enumerate(points):
            by_linear = {each.linear: getattr(each, noise) for each in point.layers}
            _line(axis, [by_linear.get(each) for each in linears], number)
        axis.set_ylabel(label)
        if not any(line.get_ydata().size for line in axis.lines):
            axis.text(0.5, 0.5, "measured by second-order methods only", transform=axis.transAxes, ha="center")
    return _with_legend(drawn, [point.label for point in points])


def _original_inputs(points: Sequence[_QuantizedModel]) -> dict[str, dict[str, Any]]:
    """What the linears of the original model read, by linear; empty where no calibration told."""
    for point in points:
        found = {row.linear: point.inputs[row.link] for row in point.layers if row.link and row.link in point.inputs}
        if found:
            return {ORIGINAL: found}
    return {}


def _merged(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Series without those that :func:`_repeat` another one; a line on top of another line hides it."""
    merged: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for name, values in found.items():
        same = next((known for known, (_, other) in merged.items() if _repeat(values, other)), None)
        if same is None and values:
            merged[name] = ([name], values)
        elif same is not None:
            merged[same][0].append(name)
    return {_joined(names): values for names, values in merged.values()}


def _repeat(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether nine of ten linears have a peak that differs by less than a tenth."""
    if own.keys() != other.keys():
        return False
    alike = [isclose(own[each]["peak"], other[each]["peak"], rel_tol=_ALIKE) for each in own]
    return sum(alike) >= (1 - _ALIKE) * len(alike)


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _linears(points: Sequence[_QuantizedModel]) -> list[str]:
    """Linears of all points in execution order, those of blocks first."""
    names = dict.fromkeys(row.linear for point in points for row in point.layers)
    return sorted(names, key=lambda name: _BLOCK.search(name) is None)


def _figure(title: str, rows: int, columns: int, linears: Sequence[str]) -> tuple[Figure, Any]:
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams["text.parse_math"] = False
    drawn = Figure(figsize=(5.2 * columns + 2.4, 2.0 * rows + 1.1), dpi=150, layout="constrained")
    axes = drawn.subplots(rows, columns, squeeze=False, sharex=True)
    drawn.suptitle(title, fontsize=10, x=0.01, ha="left")
    at, names = _ticks(linears)
    for axis in axes.flat:
        axis.set_xticks(at, names, rotation=90, fontsize=7)
        axis.grid(color="#e4e4e4", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7)
        axis.yaxis.label.set_size(8)
    for axis in axes[-1]:
        axis.set_xlabel("linears in the order they run; ticks at the first of a block", fontsize=8)
    return drawn, axes


def _ticks(linears: Sequence[str]) -> tuple[list[int], list[str]]:
    """Where blocks begin, and their names; of many blocks every second, third ... is named."""
    begin: dict[str, int] = {}
    for number, linear in enumerate(linears):
        block = _BLOCK.search(linear)
        begin.setdefault(f"{block[1][:3]} {block[2]}" if block else linear.rpartition(".")[2], number)
    every = -(-len(begin) // _MOST_TICKS)
    return list(begin.values())[::every], list(begin)[::every]


def _logarithmic(axis: Axes) -> None:
    """Logarithmic above 1, linear below, with numbers that can be read."""
    from matplotlib.ticker import SymmetricalLogLocator

    axis.set_yscale("symlog", linthresh=_LINEAR_BELOW)
    locator = SymmetricalLogLocator(base=10, linthresh=_LINEAR_BELOW, subs=[1, 2, 5])
    axis.yaxis.set_major_locator(locator)
    axis.yaxis.set_major_formatter(lambda value, _: f"{float(f'{value:.2g}'):g}")  # ends of the axis may be ticks, too


def _line(axis: Axes, values: Sequence[float | None], number: int) -> None:
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    axis.plot(
        [at for at, _ in known],
        [value for _, value in known],
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=2.5,
        linewidth=0.7,
        alpha=0.85,
    )


def _with_legend(drawn: Figure, names: Sequence[str]) -> Figure:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], label=name)
        for number, name in enumerate(names)
    ]
    drawn.legend(handles=handles, loc="outside right upper", fontsize=7, frameon=False)
    return drawn
