"""Heat maps of the error that quantization made in every linear, as the records tell it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from src.records import read_record
from src.reporting import canvas
from src.reporting.panels import Panel, rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERRORS: Final = {
    "output_error": "relative error of the outputs, ||(W - Q) X|| / ||W X||",
    "weight_error": "relative error of the weights, ||W - Q|| / ||W||",
}
_SCALE_TICKS: Final = 4
_TALLEST: Final = 130  # rows; more are put together by block
_SHORT: Final = {"encoder.layers.": "enc ", "decoder.layers.": "dec ", "encoder_attn": "cross", "self_attn": "self"}


def layer_errors(output_dir: Path, panels: Iterable[Panel]) -> pd.DataFrame:
    """A row a linear and quantized model: ``model``, ``weights``, ``bits``, ``series``, ``linear`` and the two errors.

    A model that was quantized once and evaluated on several test sets is there once.
    """
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, ...]] = set()
    for panel in panels:
        for point in panel.points.to_dict("records"):
            name = {key: str(point[key]) for key in ("model", "weights", "schema", "bits", "series")}
            if tuple(name.values()) not in seen:
                seen.add(tuple(name.values()))
                rows += [{**name, **row} for row in _layers(output_dir / "records" / f"{point['fingerprint']}.json")]
    return pd.DataFrame(rows, columns=["model", "weights", "schema", "bits", "series", "linear", *ERRORS])


def _layers(record: Path) -> Iterator[Mapping[str, Any]]:
    quantized = read_record(record).results.quantize if record.exists() else None
    for row in quantized.layers if quantized else ():
        yield {"linear": row.linear, **{error: getattr(row, error) for error in ERRORS}}


def sensitivity(errors: pd.DataFrame, error: str) -> Iterator[tuple[str, Figure]]:
    """A heat map for every model: a row a linear, a column a series, side by side for the bit-configs.

    Methods that do not measure an error are not in its map.
    """
    measured = errors[errors[error].notna()]
    for names, own in measured.groupby(["model", "weights", "schema"], sort=True):
        model = measured["model"] == names[0]
        title = names[0] if len(measured[model].groupby(["weights", "schema"])) == 1 else " ".join(map(str, names))
        yield title, _heat_map(f"{title}: {ERRORS[error]}", own, error)


def _heat_map(title: str, errors: pd.DataFrame, error: str) -> Figure:
    """One image; the bit-configs are parted by an empty column."""
    from matplotlib.colors import LogNorm

    linears = list(dict.fromkeys(errors["linear"]))
    if len(linears) > _TALLEST:
        errors = errors.assign(linear=[linear.rpartition(".")[0] for linear in errors["linear"]])
        linears = list(dict.fromkeys(errors["linear"]))
    bits, series = (sorted(errors[column].unique(), key=rank) for column in ("bits", "series"))
    columns = [(config, name) for config in bits for name in (*series, "")][:-1]
    grid = errors.pivot_table(index="linear", columns=["bits", "series"], values=error)
    values = grid.reindex(index=linears, columns=pd.MultiIndex.from_tuples(columns)).to_numpy(float)
    width, height = max(1.7 + 0.17 * len(columns), 5.5), 2.0 + 0.115 * max(len(linears), 8)
    drawn, (ax,) = canvas.figure(width, height, 1)
    drawn.subplots_adjust(left=1.4 / width, bottom=1.4 / height)
    positive = errors[error][errors[error] > 0]
    low, high = positive.quantile([0.01, 0.99]) if len(positive) else (0.1, 1.0)
    ax.grid(False)
    scale = LogNorm(low, high, clip=True)
    image = ax.imshow(np.ma.masked_invalid(values), norm=scale, cmap="cividis", aspect="auto")
    ax.set_xticks([at for at, (_, name) in enumerate(columns) if name], series * len(bits), rotation=90, fontsize=6)
    ax.set_yticks(range(len(linears)), [_short(name) for name in linears], fontsize=5.5)
    for number, config in enumerate(bits):
        ax.text(number * (len(series) + 1) - 0.5, -1.2, config, fontsize=8)
    drawn.text(0.1 / width, 1 - 0.14 / height, title, fontsize=8, va="center")
    bar = drawn.colorbar(
        image, cax=drawn.add_axes((1.4 / width, 0.28 / height, 2.6 / width, 0.09 / height)), orientation="horizontal"
    )
    bar.ax.tick_params(labelsize=6)
    at = np.geomspace(low, high, _SCALE_TICKS).tolist()
    bar.set_ticks(at, labels=[f"{value:.2g}" for value in at], minor=False)
    bar.minorticks_off()
    return drawn


def _short(linear: str) -> str:
    name = re.sub(r"^model\.", "", linear)
    for long, short in _SHORT.items():
        name = name.replace(long, short)
    return name
