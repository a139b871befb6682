"""All figures of a report, drawn in several processes where there are many."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from src.machine.progress import progress, working
from src.reporting.marks import Mark
from src.reporting.panels import Panel

_LABEL: Final = "report, plots of a model and test set"
_PANELS_A_PROCESS: Final = 2  # at least: a new process imports for as long as it takes to draw one


def draw(output_dir: Path, folder: Path, panels: Sequence[Panel], series: dict[str, Mark], most: int) -> list[Path]:
    """Writes the plots of the ``most`` panels with most points, and the heat maps of their models; returns the files.

    Files are ``wer-bits-*``, ``pareto-*``, ``failures-*`` and ``layers-*``, each as PNG and as SVG.
    """
    chosen = sorted(panels, key=lambda panel: -len(panel.points))[:most]
    workers = min(len(os.sched_getaffinity(0)), len(chosen) // _PANELS_A_PROCESS)
    of_panel = partial(_of_panel, folder, series)
    if workers <= 1:
        written = [path for panel in progress(chosen, _LABEL) for path in of_panel(panel)]
        return written + (_of_models(output_dir, folder, chosen) if chosen else [])
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        maps = pool.submit(_of_models, output_dir, folder, chosen)
        with working(_LABEL, len(chosen)) as done:
            written = []
            for paths in pool.map(of_panel, chosen):
                written += paths
                done(1)
        return written + maps.result()


def _of_panel(folder: Path, series: dict[str, Mark], panel: Panel) -> list[Path]:
    from src.reporting import canvas, plots

    own = set(panel.points["series"])
    present = {name: mark for name, mark in series.items() if name in own}
    written = []
    for name, drawn in (
        ("wer-bits", plots.wer_against_bits(panel, present)),
        ("pareto", plots.pareto(panel, present)),
        ("failures", plots.failure_modes(panel)),
    ):
        written += canvas.write(drawn, folder, f"{name}-{panel.name}")
    return written


def _of_models(output_dir: Path, folder: Path, panels: Sequence[Panel]) -> list[Path]:
    from src.reporting import canvas, layers

    errors = layers.layer_errors(output_dir, panels)
    written = []
    for error in layers.ERRORS:
        for model, drawn in layers.sensitivity(errors, error):
            written += canvas.write(drawn, folder, f"layers-{error.replace('_', '-')}-{model}")
    return written
