"""Applies a method to a model: every planned linear is rounded, replaced by its dequantized self, and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.calib.capture import Calibration
from src.calib.walk import Walker
from src.methods.base import LinkStatistics, Method
from src.models.graph import Block, Linear, ModelGraph
from src.models.speech import SpeechModel
from src.quant.checkpoint import load_weights
from src.quant.granularity import QuantizedWeight, WeightSpec
from src.quant.linear import install
from src.quant.loss import output_error
from src.quant.plan import in_scope, uniform_plan
from src.runtime import progress
from src.settings import FULL_PRECISION, Settings


def weight_plan(graph: ModelGraph, settings: Settings) -> dict[str, WeightSpec | None]:
    """Grid of every linear's weight by path; ``None`` where it keeps 16 bits.

    Raises:
        UserError: nothing is in scope, or the group size does not divide a layer's input.
    """
    if settings.method_name == "fp" or settings.wbits == FULL_PRECISION:
        return dict.fromkeys((linear.path for linear in graph.linears), None)
    spec = WeightSpec(settings.wbits, settings.group_size, settings.symmetric)
    return uniform_plan(graph, settings.scope, spec)


def input_bits(graph: ModelGraph, settings: Settings) -> dict[str, int]:
    """Bits of every linear's input by path."""
    scope = settings.scope
    return {each.path: settings.abits if in_scope(each, scope) else FULL_PRECISION for each in graph.linears}


def restore(speech: SpeechModel, checkpoint: Path, abits: Mapping[str, int]) -> None:
    """Puts a stored quantized model into ``speech``, a freshly loaded model of the same architecture."""
    weights, leftovers = load_weights(checkpoint)
    parameters = {**dict(speech.module.named_parameters()), **dict(speech.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in leftovers.items():
            parameters[name].copy_(tensor)
    for path, bits in abits.items():
        install(speech.module, path, weights[path].dequantize() if path in weights else None, bits)


class Quantizer:
    """Quantizes one model in place.

    ``weights`` holds the codes of what was quantized; ``rows`` is the layer table.
    """

    def __init__(self, speech: SpeechModel, method: Method, settings: Settings) -> None:
        self._speech = speech
        self._method = method
        self._plan = weight_plan(speech.graph, settings)
        self._abits = input_bits(speech.graph, settings)
        self._reason = "out of scope" if any(self._plan.values()) else "weights stay at 16 bits"
        self.weights: dict[str, QuantizedWeight] = {}
        self.rows: list[dict[str, Any]] = []

    def round_from(self, statistics: Mapping[str, LinkStatistics]) -> None:
        """Rounds every linear from statistics of the fp model's link inputs, or from none at all."""
        for block in progress(self._speech.graph.blocks, "quantize"):
            self.round_block(block, statistics)

    def walk(self, calibration: Calibration) -> None:
        """Rounds block by block; each block sees inputs from its quantized predecessors."""
        gram = "gram" in self._method.statistics
        Walker(self._speech, calibration, gram=gram, refresh=True).walk(self.round_block)

    def round_block(self, block: Block, statistics: Mapping[str, LinkStatistics]) -> None:
        """Rounds the linears of one block and adds one row each to the layer table."""
        for linear in block.linears:
            link = self._speech.graph.link_of(linear.path).name
            self.rows.append(self._round(linear, self._plan[linear.path], statistics.get(link)))

    def _round(self, linear: Linear, spec: WeightSpec | None, statistics: LinkStatistics | None) -> dict[str, Any]:
        row = {
            "linear": linear.path,
            "component": linear.component.value,
            "shape": [linear.out_features, linear.in_features],
            "wbits": spec.bits if spec else FULL_PRECISION,
            "abits": self._abits[linear.path],
            "rows": statistics.count if statistics else 0,
        }
        if spec is None:
            install(self._speech.module, linear.path, None, self._abits[linear.path])
            return {**row, "bits_per_weight": float(FULL_PRECISION), "skipped": self._reason, "notes": []}
        W = self._speech.module.get_parameter(f"{linear.path}.weight").detach().float().clone()
        rounded = self._method.round(W, spec, statistics)
        Q = rounded.weight.dequantize()
        install(self._speech.module, linear.path, Q, self._abits[linear.path])
        self.weights[linear.path] = rounded.weight
        gram = statistics.gram if statistics else None
        return {
            **row,
            "bits_per_weight": rounded.weight.bits_per_weight,
            "stored_bytes": rounded.weight.nbytes,
            "weight_error": float(torch.linalg.norm(W - Q) / torch.linalg.norm(W)),
            "output_error": None if gram is None else relative_output_error(W, Q, gram),
            "notes": list(rounded.notes),
        }


def relative_output_error(W: Tensor, Q: Tensor, H: Tensor) -> float:
    """``||(W - Q) X|| / ||W X||`` for ``W``, ``Q`` [out, in] and inputs with Gram matrix ``H = X X^T`` [in, in]."""
    power = output_error(W, torch.zeros_like(W), H)
    return math.sqrt(max(output_error(W, Q, H), 0.0) / power) if power > 0 else 0.0
