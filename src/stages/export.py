"""Export: the quantized model as files for another runtime, without rounding anything again in silence."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.export.base import Exportable
from src.export.build import build_runtime
from src.export.checks import check_model, check_packages, check_plan, check_settings, check_stored
from src.methods.asked import weight_plan
from src.models.loading import load_graph
from src.quant.checkpoint import load_weights
from src.settings import TORCH, NoExport
from src.stages.base import Stage
from src.stages.point import MODEL_WINDOW, Point
from src.stages.quantize import CHECKPOINT
from src.storage.store import Entry
from src.tracking import Tracker

log = logging.getLogger(__name__)

FOLDER = "model"  # inside the entry: all that a user copies away


class Export(Stage):
    """See the module docstring. It runs where ``export`` is chosen; ``stages`` does not name it."""

    name = "export"

    def wanted(self, point: Point) -> bool:
        return not isinstance(point.settings.export, NoExport)

    def entry(self, point: Point) -> Entry:
        """One entry per quantized model, runtime and its options."""
        return point.exported

    def needs(self, point: Point) -> dict[str, Entry]:
        return {"quantize": point.quantized}

    def check(self, point: Point) -> None:
        """Whether the runtime can hold what will be made, as far as settings and method tell. Raises UserError."""
        try:
            self._check(point)
        except UserError as error:
            if point.simulated is point:
                raise
            remedy = error.remedy.replace("export=none", f"evaluate.runtime={TORCH}")
            remedy = remedy.replace("export=onnx", "evaluate.runtime=onnx export=onnx")
            raise UserError("evaluate.runtime", error.problem, remedy) from None

    def _check(self, point: Point) -> None:
        runtime, settings = build_runtime(point.settings.export), point.settings
        check_packages(runtime)
        check_model(runtime, settings.model)
        check_settings(runtime, settings, point.method)
        graph = load_graph(settings.model)
        check_plan(runtime, graph, weight_plan(graph, settings))

    def run(self, point: Point) -> None:
        """Also says where the files are. Raises UserError."""
        super().run(point)
        log.info("export: %s", self.entry(point).path / FOLDER)

    def build(self, point: Point, folder: Path) -> dict[str, Any]:
        """The runtime's files, their sizes, and in words what differs from the quantized model."""
        runtime, entry = build_runtime(point.settings.export), self.entry(point)
        log.info("export: %s for %s", point.label, runtime.name)
        settings, stored = point.settings, load_weights(point.quantized.path / CHECKPOINT)
        model = Exportable(
            settings.model,
            stored,
            settings.abits,
            settings.seed,
            suppress=settings.evaluate.suppress_tokens,
            truncate=settings.evaluate.long_form == "truncate",
            by_clip=settings.evaluate.window != MODEL_WINDOW,
            dtype=settings.dtype,
        )
        check_stored(runtime, model.graph, model.stored)
        files = folder / FOLDER
        files.mkdir()
        notes = runtime.write(model, files)
        if model.dtype != "float32":
            notes.insert(0, f"evaluate computed in {model.dtype}, which the files know nothing of")
        for note in notes:
            log.warning("export: %s", note)
        sizes = {file.name: file.stat().st_size for file in sorted(files.iterdir())}
        where = (entry.path / FOLDER).relative_to(entry.root.parent)
        return {**point.settings.export.model_dump(), "folder": str(where), "files": sizes, "notes": notes}

    def log(self, point: Point, tracker: Tracker) -> None:
        tracker.log(self.name, {"bytes": sum(self.result(point)["files"].values())})
