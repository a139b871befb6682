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

from src.lowbit.granularity import WeightSpec
from src.methods.parts.center import linear_at
from src.methods.parts.head_loss import head_loss
from src.methods.parts.rotate import OnlineRotations, Rotations, Sides, door, rotated_sides
from src.methods.workbench import Workbench
from src.models.graph import RowKind
from src.models.products import FastLinears
from src.models.speech import SpeechModel
from src.quant.fake import fake_quantize_tokens, straight_through
from src.quant.grid import round_to_nearest
from src.quant.rotation import Rotation
from src.settings import FULL_PRECISION


class RotatedLinear(nn.Linear):
    """A linear whose weight is rotated, then rounded to ``spec``, whose input is rotated on the fly, then rounded.

    Attributes:
        made: weight and bias of this step, where they are kept; see :func:`one_step`.
    """

    def __init__(
        self, linear: nn.Linear, sides: Sides, online: Rotation | None, spec: WeightSpec | None, abits: int
    ) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._sides, self._online, self._spec, self._abits = sides, online, spec, abits
        self.made: tuple[Tensor, Tensor | None] | None = None

    def make(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias for the rotations as they are."""
        W = self._sides.weight(self.weight)
        if self._online is not None:
            W = self._online(W)
        if self._spec is not None:
            W = straight_through(W, round_to_nearest(W.detach().float(), self._spec).dequantize().to(W))
        return W, None if self.bias is None else self._sides.bias(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """``input`` [..., in]; returns [..., out]."""
        x = input if self._online is None else self._online(input)
        if self._abits != FULL_PRECISION:
            x = straight_through(x, fake_quantize_tokens(x.detach(), self._abits))
        return nn.functional.linear(x, *(self.made or self.make()))


@contextmanager
def rotated_network(
    bench: Workbench, rotations: Rotations, online: OnlineRotations, plan: Mapping[str, WeightSpec | None]
) -> Iterator[list[RotatedLinear]]:
    """Inside, every linear is rotated by ``rotations`` as they are at each pass, and rounded as ``plan`` says."""
    like = next(bench.module.parameters())
    inputs = {path: deepcopy(rotation).to(like) for path, rotation in online.inputs.items()}
    sides = rotated_sides(bench.graph, rotations)
    originals = {path: linear_at(bench, path) for path in sides}
    learning = {
        path: RotatedLinear(linear, sides[path], inputs.get(path), plan[path], bench.abits[path])
        for path, linear in originals.items()
    }
    for path, rotated in learning.items():
        bench.module.set_submodule(path, rotated)
    try:
        yield list(learning.values())
    finally:
        for path, linear in originals.items():
            bench.module.set_submodule(path, linear)


@contextmanager
def one_step(linears: Sequence[RotatedLinear]) -> Iterator[None]:
    """Inside, weights are made once, however often the network runs.

    What gradients the runs left with the weights passes on to the rotations at the end.
    """
    made, kept = [], []
    for linear in linears:
        tensors = linear.make()
        linear.made = tensors[0].detach(), None if tensors[1] is None else tensors[1].detach()
        for tensor, leaf in zip(tensors, linear.made, strict=True):
            if tensor is not None and leaf is not None and tensor.requires_grad:
                made.append(tensor)
                kept.append(leaf.requires_grad_())
    try:
        yield
    finally:
        for linear in linears:
            linear.made = None
    if made:
        torch.autograd.backward(made, [leaf.grad for leaf in kept])


def scored_tokens(speech: SpeechModel, tokens: Sequence[int]) -> int:
    """How many predictions :func:`teacher_loss` is the mean over, for one clip: all after the prompt, and the end."""
    return len(tokens) - len(speech.prompt) + 1


def teacher_loss(
    speech: SpeechModel, streams: Mapping[RowKind, Tensor], features: list[Tensor], tokens: Sequence[int]
) -> Tensor:
    """Mean cross-entropy of the teacher's tokens and of the end token after them, inside :func:`rotated_network`.

    Args:
        speech: the recogniser.
        streams: ``R1`` of both streams.
        features: of one clip.
        tokens: decoder inputs of the clip: the prompt, on which there is no loss, and the teacher's tokens.
    """
    with FastLinears():
        states = _states(speech, streams, features, torch.tensor([tokens], device=speech.device))
    scored = scored_tokens(speech, tokens)
    targets = torch.tensor([*tokens[1:], speech.eos], device=speech.device)
    head = speech.module.get_submodule(speech.graph.head)
    return head_loss(states[-scored:], head.weight, targets[-scored:])


def _states(speech: SpeechModel, streams: Mapping[RowKind, Tensor], features: list[Tensor], tokens: Tensor) -> Tensor:
    """What the head reads of one clip, [tokens, width]."""
    graph, module = speech.graph, speech.module
    with torch.no_grad():
        hidden, arguments, mask = speech.encoder_inputs(features)
    hidden = hidden @ door(streams[RowKind.FRAME]).to(hidden)
    for block in graph.encoder:
        hidden = speech.block(block)(hidden, **arguments)
    if not graph.is_folded(graph.encoder_norm):
        hidden = hidden @ streams[RowKind.FRAME].T.to(hidden)
    encoded = speech.encoded(hidden, mask)
    hidden, arguments = speech.decoder_inputs(tokens, encoded)
    hidden = hidden @ door(streams[RowKind.TOKEN]).to(hidden)
    for block in graph.decoder:
        hidden = speech.block(block)(hidden, **arguments)
    states: Tensor = module.get_submodule(graph.decoder_norm)(hidden @ streams[RowKind.TOKEN].T.to(hidden))
    return states[0]
