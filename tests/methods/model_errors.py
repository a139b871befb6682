"""Output errors of whole tiny models: what second-order methods promise to keep below round-to-nearest's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from src.calib.statistics import measure
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.quant.loss import relative_output_error
from tests.calib.clips import noise_calibration
from tests.composed import composed


def block_errors(build: Callable[[], SpeechModel], *overrides: str) -> Tensor:
    """Mean relative output error of the linears of every block, on statistics of the full-precision model."""
    original = build()
    statistics = measure(original, noise_calibration(original, 2), gram=True)
    settings = composed(*overrides, "calib.propagate=fp")
    calibration = noise_calibration(original, 2)
    quantizer = Quantizer(build(), build_method(settings.method), settings, calibration, lambda _: statistics)
    quantizer.run()

    def error(path: str) -> float:
        W, gram = original.module.get_parameter(f"{path}.weight"), statistics[original.graph.link_of(path).name].gram
        assert gram is not None
        return relative_output_error(W, quantizer.weights[path].dequantize(), gram)

    blocks = original.graph.blocks
    return torch.tensor([sum(error(each.path) for each in block.linears) / len(block.linears) for block in blocks])
