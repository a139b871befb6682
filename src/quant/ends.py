"""Weights at the two ends of a model: the convolutional front-end, and the token embedding, which is the head too.

They are rounded after every transform, by a rounder of their own (``ends``). A convolution's weight [out, in, kernel]
is taken as [out, in * kernel], the taps of one input channel side by side; the embedding's is [words, d]. A row (an
output channel, a word) has one grid, or one for every ``group_size`` columns where that divides them. Only weights are
rounded: what enters the front-end and the head stays at 16 bits, as do positions, norms, biases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.lowbit.granularity import PER_CHANNEL, QuantizedWeight, WeightSpec
from src.models.graph import Component, ModelGraph
from src.quant.figures import weight_figures
from src.settings import FULL_PRECISION, Settings

_INPUT = "its input stays at 16 bits"
_TIED = "embedding and head are one matrix"


@dataclass(frozen=True)
class EndWeight:
    """One weight to round: the path of its module, its component and its grid, and what is to be said of it."""

    path: str
    component: Component
    spec: WeightSpec
    notes: tuple[str, ...]


def chosen_ends(graph: ModelGraph, module: nn.Module, settings: Settings) -> tuple[EndWeight, ...]:
    """What ``frontend_bits`` and ``head_bits`` ask for, in execution order; a tied head is there once."""
    if settings.method_name == "fp":
        return ()
    embedding, head = (module.get_parameter(f"{path}.weight") for path in (graph.embedding, graph.head))
    tied = graph.has_embedding and embedding is head
    bits = dict.fromkeys(graph.frontend, (Component.FRONTEND, settings.frontend_bits))
    bits[graph.embedding] = Component.HEAD if tied else Component.EMBEDDING, settings.head_bits
    if not tied:
        bits[graph.head] = Component.HEAD, settings.head_bits
    return tuple(
        _end(path, component, width, flat_weight(module, path).shape[1], settings, tied=tied)
        for path, (component, width) in bits.items()
        if width != FULL_PRECISION
    )


def _end(path: str, component: Component, bits: int, columns: int, settings: Settings, *, tied: bool) -> EndWeight:
    notes: tuple[str, ...] = (_INPUT,)
    size = settings.group_size
    if tied and component is Component.HEAD:
        notes = (*notes, _TIED)
    if size != PER_CHANNEL and columns % size:
        notes = (*notes, f"one grid per row: group size {size} does not divide {columns} columns")
        size = PER_CHANNEL
    return EndWeight(path, component, WeightSpec(bits, size, settings.symmetric), notes)


def flat_weight(module: nn.Module, path: str) -> Tensor:
    """View of the weight at ``path`` as [rows, columns]."""
    weight = module.get_parameter(f"{path}.weight").detach()
    return weight.view(len(weight), -1)


def write_weight(module: nn.Module, path: str, weight: QuantizedWeight) -> None:
    """Puts the dequantized ``weight`` [rows, columns] in place of the one at ``path``; what is tied stays tied."""
    with torch.no_grad():
        flat_weight(module, path).copy_(weight.dequantize())


class RoundedEnds:
    """Rounds the ends of one model in place.

    After :meth:`round`, ``weights`` holds the codes by path and ``rows`` one row of the layer table each.

    Args:
        module: the model.
        ends: which of its weights, in execution order, and what makes codes of each one's values [rows, columns], and
            notes about them.
    """

    def __init__(
        self, module: nn.Module, ends: Mapping[EndWeight, Callable[[Tensor], tuple[QuantizedWeight, tuple[str, ...]]]]
    ) -> None:
        self._module = module
        self._ends = ends
        self._originals: dict[str, Tensor] = {}
        self.weights: dict[str, QuantizedWeight] = {}
        self.rows: list[dict[str, Any]] = []

    @property
    def paths(self) -> list[str]:
        return [end.path for end in self._ends]

    def round(self) -> None:
        """Replaces every chosen weight by its dequantized self."""
        for end, rounded in self._ends.items():
            W = flat_weight(self._module, end.path).float().clone()
            weight, notes = rounded(W)
            self._originals[end.path] = self._module.get_parameter(f"{end.path}.weight").data.clone()
            write_weight(self._module, end.path, weight)
            self.weights[end.path] = weight
            self.rows.append(_row(end, W, weight, notes))

    @contextmanager
    def unrounded(self) -> Iterator[None]:
        """The model with its ends at full precision, until the end of the context."""
        rounded = _exchanged(self._module, self._originals)
        try:
            yield
        finally:
            _exchanged(self._module, rounded)


def _exchanged(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Puts ``weights`` (by module path) into the model and returns those that were there."""
    found = {}
    for path, weight in weights.items():
        parameter = module.get_parameter(f"{path}.weight")
        found[path], parameter.data = parameter.data, weight
    return found


def _row(end: EndWeight, W: Tensor, weight: QuantizedWeight, notes: tuple[str, ...]) -> dict[str, Any]:
    """A row of the layer table, with the columns of a linear's."""
    return {
        "linear": end.path,
        "component": end.component.value,
        "shape": list(weight.shape),
        "wbits": end.spec.bits,
        "abits": FULL_PRECISION,
        "rows": 0,
        "bits_per_weight": weight.bits_per_weight,
        "stored_bytes": weight.nbytes,
        "link": None,
        "input_distribution": None,
        **weight_figures(W, weight.dequantize()),
        "notes": [*notes, *end.notes],
    }
