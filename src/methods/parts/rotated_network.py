"""The quantized network as a function of its rotations, for learning them.

Weights are rotated and rounded anew in every pass; rounding passes gradients through as the identity, ranges being
constants (the estimator of SpinQuant's code). The norms were folded before: see :mod:`src.methods.parts.center`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from src.calib.capture import Calibration
from src.methods.parts.center import linear_at
from src.methods.parts.rotate import OnlineRotations, Rotations, Sides, door, rotated_sides
from src.methods.workbench import Workbench
from src.models.graph import Rows
from src.models.speech import Encoded, SpeechModel
from src.quant.fake import fake_quantize_tokens
from src.quant.granularity import WeightSpec
from src.quant.grid import round_to_nearest
from src.quant.rotation import Rotation
from src.settings import FULL_PRECISION


class _RotatedLinear(nn.Linear):
    """A linear whose weight is rotated, then rounded to ``spec``, whose input is rotated on the fly, then rounded."""

    def __init__(
        self, linear: nn.Linear, sides: Sides, online: Rotation | None, spec: WeightSpec | None, abits: int
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._sides, self._online, self._spec, self._abits = sides, online, spec, abits

    def forward(self, input: Tensor) -> Tensor:
        x, W = input, self._sides.weight(self.weight)
        if self._online is not None:
            x, W = self._online(x), self._online(W)
        if self._abits != FULL_PRECISION:
            x = _straight_through(x, fake_quantize_tokens(x.detach(), self._abits))
        if self._spec is not None:
            W = _straight_through(W, round_to_nearest(W.detach().float(), self._spec).dequantize().to(W))
        return nn.functional.linear(x, W, None if self.bias is None else self._sides.bias(self.bias))


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    return x + (rounded - x).detach()


@contextmanager
def rotated_network(
    bench: Workbench, rotations: Rotations, online: OnlineRotations, plan: Mapping[str, WeightSpec | None]
) -> Iterator[None]:
    """Inside, every linear is rotated by ``rotations`` as they are at each pass, and rounded as ``plan`` says."""
    like = next(bench.module.parameters())
    inputs = {path: deepcopy(rotation).to(like) for path, rotation in online.inputs.items()}
    sides = rotated_sides(bench.graph, rotations)
    originals = {path: linear_at(bench, path) for path in sides}
    for path, linear in originals.items():
        learning = _RotatedLinear(linear, sides[path], inputs.get(path), plan[path], bench.abits[path])
        bench.module.set_submodule(path, learning)
    try:
        yield
    finally:
        for path, linear in originals.items():
            bench.module.set_submodule(path, linear)


def teacher_loss(
    speech: SpeechModel, streams: Mapping[Rows, Tensor], features: list[Tensor], tokens: Sequence[Sequence[int]]
) -> Tensor:
    """Mean cross-entropy of the teacher's tokens and of the end token after them, inside :func:`rotated_network`.

    Args:
        speech: the recogniser.
        streams: ``R1`` of both streams.
        features: of each clip.
        tokens: decoder inputs of each clip: the prompt, on which there is no loss, and the teacher's tokens.
    """
    graph, module = speech.graph, speech.module
    with torch.no_grad():
        hidden, arguments, mask = speech.encoder_inputs(features)
    hidden = hidden @ door(streams[Rows.FRAME]).to(hidden)
    for block in graph.encoder:
        hidden = speech.block(block)(hidden, **arguments)
    encoded = Encoded(module.get_submodule(graph.encoder_norm)(hidden), mask)
    padded, valid = Calibration.pad(tokens, speech.eos, speech.device)
    hidden, arguments = speech.decoder_inputs(padded, encoded)
    hidden = hidden @ door(streams[Rows.TOKEN]).to(hidden)
    for block in graph.decoder:
        hidden = speech.block(block)(hidden, **arguments)
    states = module.get_submodule(graph.decoder_norm)(hidden @ streams[Rows.TOKEN].T.to(hidden))
    valid[:, : len(speech.prompt) - 1] = False
    targets = nn.functional.pad(padded[:, 1:], (0, 1), value=speech.eos)
    return nn.functional.cross_entropy(module.get_submodule(graph.head)(states[valid]), targets[valid])
