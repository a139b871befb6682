"""What the reference utterance (``profile``) takes, of a model whose weights have such bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from src.lowbit.granularity import WeightSpec
from src.methods.asked import input_bits
from src.methods.workbench import ReferenceCost, Taken
from src.models.families import dimensions_of
from src.models.loading import load_config, load_graph
from src.profiling.bitops import products, total_bops
from src.profiling.cost_model import CostModel, LinearBits, Workload
from src.profiling.memory_io import memory_io
from src.quant.structure import Edit
from src.settings import FULL_PRECISION
from src.stages.point import Point

_STATIC_GRID_BYTES = 5  # see src.quant.inputs.InputGrid


def cost_model(point: Point, prompt: int, layers: Sequence[Mapping[str, Any]], edits: Sequence[Edit]) -> CostModel:
    """The reference utterance, in the point's model with these rows of a layer table and structural changes.

    ``prompt`` is the number of tokens that every transcript starts with.
    """
    settings, chosen = point.settings, point.settings.profile
    graph = load_graph(settings.model)
    return CostModel(
        dimensions=dimensions_of(load_config(settings.model)),
        graph=graph,
        workload=Workload(chosen.seconds, chosen.tokens, prompt, chosen.batch, chosen.beams),
        bits=linear_bits(layers, input_bits(graph, settings), static=settings.static_inputs),
        kv_bits=settings.kvbits,
        edits=tuple(edits),
        key_group=settings.key_group,
    )


def reference_cost(point: Point, prompt: int) -> ReferenceCost:
    """What a plan of grids takes, for a method that chooses one."""
    empty = cost_model(point, prompt, (), ())
    abits = input_bits(empty.graph, point.settings)

    def cost(edits: Sequence[Edit], weights: Mapping[str, tuple[WeightSpec, int]]) -> Taken:
        rows = [{"linear": path, "wbits": spec.bits, "stored_bytes": size} for path, (spec, size) in weights.items()]
        bits = linear_bits(rows, abits, static=point.settings.static_inputs)
        model = replace(empty, bits=bits, edits=tuple(edits))
        return Taken(sum(memory_io(model).values()), total_bops(products(model)))

    return cost


def linear_bits(
    layers: Sequence[Mapping[str, Any]], abits: Mapping[str, int], *, static: bool = False
) -> dict[str, LinearBits]:
    """Stored bytes and operand widths of every weight by path, from the layer table and the widths of the inputs.

    ``static``: quantized inputs have one grid each, which is stored: a float32 scale and a zero point of a byte.
    """
    bits = {}
    for row in layers:
        stored = row.get("stored_bytes")
        if stored is None:
            out_features, in_features = row["shape"]
            stored = out_features * in_features * FULL_PRECISION // 8
        kept = row.get("exact_inputs", 0), row.get("outliers", 0)  # rows that are not rounded have neither
        width = abits.get(row["linear"], FULL_PRECISION)
        grid = _STATIC_GRID_BYTES if static and width != FULL_PRECISION else 0
        bits[row["linear"]] = LinearBits(stored, row["wbits"], width, *kept, grid)
    return bits
