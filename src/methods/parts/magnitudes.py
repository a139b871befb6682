"""How large the outputs of linears are on calibration clips: histograms, from which medians follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from src.calib.capture import Calibration
from src.machine.progress import progress
from src.models.graph import RowKind
from src.models.speech import SpeechModel

_BINS = 1 << 15


class Magnitudes:
    """Histogram of ``|x|`` with a bin per non-negative bfloat16, so that every figure is right to 0.4 %.

    It takes 256 KiB whatever it has seen; the values themselves are not kept.
    """

    def __init__(self, device: torch.device) -> None:
        self._counts = torch.zeros(_BINS, dtype=torch.int64, device=device)

    def update(self, x: Tensor) -> None:
        """Counts every element of ``x``, of any shape."""
        patterns = x.abs().to(torch.bfloat16).view(torch.int16).flatten()
        self._counts += torch.bincount(patterns, minlength=_BINS)

    @property
    def median(self) -> float:
        """The middle value, the lower of the two middle ones of an even number."""
        seen = self._counts.cumsum(0)
        return self._value(int(torch.searchsorted(seen, (self._total - 1) // 2, right=True)))

    @property
    def mean(self) -> float:
        filled = self._counts.nonzero().flatten()
        return float((self._values[filled] * self._counts[filled]).sum() / self._total)

    @property
    def largest(self) -> float:
        return self._value(int(self._counts.nonzero().max()))

    @property
    def _total(self) -> int:
        return int(self._counts.sum())

    @property
    def _values(self) -> Tensor:
        patterns = torch.arange(_BINS, dtype=torch.int32, device=self._counts.device).to(torch.int16)
        return patterns.view(torch.bfloat16).double()

    def _value(self, pattern: int) -> float:
        return float(self._values[pattern])


@torch.no_grad()
def output_magnitudes(speech: SpeechModel, calibration: Calibration, paths: Iterable[str]) -> dict[str, Magnitudes]:
    """Magnitudes of the outputs of the linears at ``paths`` over all calibration rows, under teacher forcing.

    Rows that are padding are not counted.
    """
    found = {path: Magnitudes(speech.device) for path in paths}
    valid: dict[RowKind, Tensor | slice] = {RowKind.POSITION: slice(None)}
    handles = [
        speech.module.get_submodule(path).register_forward_hook(_recorder(each, valid, speech.graph.link_of(path).rows))
        for path, each in found.items()
    ]
    try:
        batches = list(calibration.batches())
        for features, tokens in progress(batches, "sensitivity"):
            padded, valid[RowKind.TOKEN] = calibration.pad(tokens, speech.eos, speech.device)
            valid[RowKind.FRAME] = speech.encoder_inputs(features)[2]
            speech.logits(features, padded)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _recorder(
    magnitudes: Magnitudes, valid: Mapping[RowKind, Tensor | slice], rows: RowKind
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        magnitudes.update(output[valid[rows]])

    return record
