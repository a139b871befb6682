"""The rows of what was measured: which runtimes, the bytes that a decode step reads in each, and the bandwidth reached.

The analytic count of :mod:`src.profiling.memory_io` takes what is not quantized as 16 bits. A runtime that computes in
float32 reads twice that, so each runtime's own widths are put into the same count: weights as its files hold them, and
caches in the type it keeps them in. Biases and norms (a thousandth) stay at 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from src.export.base import Runtime
from src.lowbit.granularity import WeightSpec
from src.profiling.cost_model import FULL_BITS, CostModel, LinearBits
from src.profiling.kv_cache import cross_cache_bytes
from src.profiling.memory_io import memory_io
from src.profiling.runtimes.job import Measurement

CACHE_BITS: Final = {
    "torch": 32,
    "onnx": 32,
    "whisper_cpp": 16,
}  # of keys and values, by engine, if not Runtime.cross_bytes


@dataclass(frozen=True)
class MeasuredRow:
    """One runtime's line of the table.

    Attributes:
        runtime: ``torch``, ``onnx`` or ``whisper_cpp``.
        precision: of the weights: ``float32``, or the point's bits and the form they are written in.
        file_bytes: of the exported files that hold weights; for torch, None.
        step_bytes: that one decode step reads, on average over the utterance's steps.
        measurement: times and memory.
        bandwidth_gbs: ``step_bytes`` over the median time of a step, GB/s.
        bandwidth_share: that over what the memory gives.
    """

    runtime: str
    precision: str
    file_bytes: int | None
    step_bytes: int
    measurement: Measurement
    bandwidth_gbs: float
    bandwidth_share: float


def build_row(
    runtime: str, precision: str, file_bytes: int | None, step_bytes: int, measured: Measurement, limit_gbs: float
) -> MeasuredRow:
    """The row, with the bandwidth that follows; ``limit_gbs`` is what the memory gives."""
    reached = step_bytes / (measured.token_ms / 1e3) / 1e9
    return MeasuredRow(runtime, precision, file_bytes, step_bytes, measured, reached, reached / limit_gbs)


def step_bytes(point: CostModel, engine: str, runtime: Runtime, specs: Mapping[str, WeightSpec]) -> int:
    """Bytes of one decode step of ``point`` in an engine whose files hold weights as ``runtime`` writes them.

    Args:
        point: sizes and reference utterance; its own bits are not read.
        engine: see :data:`CACHE_BITS`.
        runtime: the exporter; for torch, one that writes float32.
        specs: grids of the quantized weights by path.
    """
    weights = (*point.graph.linears, *point.ends)
    read = {each.path: runtime.read_bytes(each, specs.get(each.path)) for each in weights}
    bits = {path: LinearBits(size, FULL_BITS, FULL_BITS) for path, size in read.items()}
    work = point.workload
    held = replace(point, bits=bits, kv_bits=CACHE_BITS[engine], edits=(), key_group=None)
    none = replace(held, workload=replace(work, tokens=0))
    steps = (sum(memory_io(held).values()) - sum(memory_io(none).values())) // work.tokens
    decoder = point.dimensions.decoder
    cross = runtime.cross_bytes(decoder.kv_heads, point.dimensions.head_dim, point.frames)
    return steps if cross is None else steps - cross_cache_bytes(held) + decoder.layers * cross
