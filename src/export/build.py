"""From the settings to a runtime's exporter."""

from __future__ import annotations

from src.export.base import Runtime
from src.export.compressed_tensors import CompressedTensors
from src.export.ggml import Ggml
from src.export.onnx import Onnx
from src.settings import ExportSettings

# Those that hold most first: what one cannot hold is offered the first that can.
RUNTIMES: dict[str, type[Runtime]] = {each.name: each for each in (Onnx, CompressedTensors, Ggml)}


def build_runtime(chosen: ExportSettings) -> Runtime:
    """The exporter of ``chosen.runtime``, which is not ``none``."""
    return RUNTIMES[chosen.runtime](chosen)
