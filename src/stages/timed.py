"""One runtime that ``profile.runtimes`` names for a point: what it runs, what that depends on, and whether it can."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch

from src.errors import UserError
from src.export.base import Runtime
from src.export.build import build_runtime
from src.lowbit.granularity import WeightSpec
from src.machine.provenance import installed, machine
from src.models.families import family_of
from src.profiling.runtimes.job import TimingJob
from src.quant.checkpoint import load_weights
from src.runtimes.folder import require_installed
from src.settings import GgmlExport, OnnxExport
from src.stages.export import FOLDER, Export
from src.stages.point import FP_METHOD, VERSIONS, Point, open_point
from src.stages.quantize import CHECKPOINT, Quantize
from src.storage.store import Entry

FLOAT32: Final = OnnxExport(runtime="onnx", weights="float32", accuracy_level=None, cross_cache="float32")
_VERSIONS: Final = {"torch": "torch", "onnx": "onnxruntime", "whisper_cpp": "pywhispercpp"}


@dataclass(frozen=True)
class Timed:
    """A point in one of the runtimes of ``profile.runtimes``."""

    point: Point
    name: str

    @property
    def engine(self) -> str:
        """The module of :mod:`src.profiling.runtimes` that runs it: ``torch``, ``onnx`` or ``whisper_cpp``."""
        return "onnx" if self.name == "onnx_float32" else self.name

    @property
    def threads(self) -> int:
        """That the runtime computes with."""
        return self.point.settings.profile.threads or torch.get_num_threads()

    @cached_property
    def exported(self) -> Point | None:
        """The point whose export is timed; None for torch, which times the original."""
        if self.name == "torch":
            return None
        whole = self.point.baseline.settings if self.name == "onnx_float32" else self.point.settings
        chosen = FLOAT32 if self.name == "onnx_float32" else getattr(whole.profile, self.name)
        return open_point(whole.model_copy(update={"export": chosen}))

    @property
    def key(self) -> dict[str, Any]:
        """What the measurement depends on, the machine and the load that is allowed on it included."""
        what = self.point.prompt if self.exported is None else self.exported.exported  # one names the original model
        cost = self.point.settings.profile.model_dump(include={"seconds", "tokens", "repeats", "max_load"})
        where = {"machine": {**machine(self.point.settings.device), "threads": self.threads}}
        engine = {"engine": self.engine, "version": installed(_VERSIONS[self.engine])}
        return {"schema": VERSIONS["measured"], **engine, "model": what.fingerprint, **where, **cost}

    @property
    def entry(self) -> Entry:
        return self.point.store.entry("measured", self.key)

    @property
    def precision(self) -> str:
        """Of the weights: ``float32``, or the point's bits and the form they are written in."""
        if self.exported is None or self.exported.settings.method == FP_METHOD:
            return "float32"
        export = self.exported.settings.export
        assert isinstance(export, OnnxExport | GgmlExport), "as in profile"
        return f"{self.exported.settings.bits_name} {export.form}"

    @property
    def runtime(self) -> Runtime:
        """What says how many bytes a weight has there."""
        return build_runtime(FLOAT32 if self.exported is None else self.exported.settings.export)

    def check(self) -> None:
        """Whether the runtime is installed and can hold the model.

        Raises:
            UserError: it is not, or cannot.
        """
        model = self.point.settings.model
        if not family_of(model.family).has_decoder:
            problem = f"{self.name} is timed while it decodes token by token, and {model.name} has no decoder"
            raise UserError("profile.runtimes", problem, "Use profile.runtimes=[]; the profile times its encoder here")
        require_installed(self.engine, "profile.runtimes", self.name)
        if self.exported is None:
            return
        try:
            Export().check(self.exported)
        except UserError as error:
            remedy = error.remedy.replace("export.", f"profile.{self.name}.")
            raise UserError("profile.runtimes", f"{self.name}: {error.problem}", remedy) from None

    def export(self) -> Path | None:
        """Makes the files unless they are stored, and returns their folder."""
        if self.exported is None:
            return None
        Quantize().run(self.exported)
        Export().run(self.exported)
        return self.exported.exported.path / FOLDER

    def specs(self) -> dict[str, WeightSpec]:
        """Grids of the exported model's quantized weights by path."""
        if self.exported is None:
            return {}
        stored = load_weights(self.exported.quantized.path / CHECKPOINT)
        return {path: weight.spec for path, weight in stored.weights.items()}

    def job(self, folder: Path | None, prompt: int) -> TimingJob:
        """What a process of its own is asked to measure."""
        settings = self.point.settings
        return TimingJob(
            engine=self.engine,
            source="" if folder is None else str(folder),
            model=settings.model.model_dump(mode="json"),
            seconds=settings.profile.seconds,
            prompt=prompt,
            tokens=settings.profile.tokens,
            repeats=settings.profile.repeats,
            seed=settings.seed,
            threads=self.threads,
            device=settings.device,
        )


def timed(point: Point) -> list[Timed]:
    """Those that are asked for; where two are the same model in the same runtime, one of them."""
    named = [Timed(point, name) for name in point.settings.profile.runtimes]
    return list({str(each.key): each for each in named}.values())
