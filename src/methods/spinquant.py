"""SpinQuant: rotations learned so that the quantized network says what the original says.

Liu et al., *SpinQuant: LLM Quantization with Learned Rotations* (arXiv 2405.16406). ``R1`` of both residual streams and
``R2`` of every attention start from randomised Hadamard matrices and follow the gradient of the network's loss over the
orthogonal matrices (:mod:`src.methods.parts.cayley`); then they are folded, and a rounder takes over, as in QuaRot.

Three things differ from the authors' code. The loss is that of the teacher's tokens on the calibration clips, for there
is no text corpus; the KV cache is not rounded inside the loop; and the rotations are made exactly orthogonal after
every step, where theirs drift and are corrected in about one step of a hundred.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from src.calib.capture import Calibration
from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.machine.process import release_memory
from src.machine.progress import progress
from src.methods.base import Needs
from src.methods.parameters import Count, Positive
from src.methods.parts.cayley import cayley_step, retract
from src.methods.parts.rotate import OnlineRotations, Rotations
from src.methods.parts.rotated_network import one_step, rotated_network, scored_tokens, teacher_loss
from src.methods.quarot import QuaRot
from src.methods.workbench import Workbench
from src.settings import FULL_PRECISION

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpinQuant(QuaRot):
    """Learns ``R1`` and ``R2``, then does what QuaRot does.

    Attributes:
        lr: first step length; falls linearly to 0.
        iterations: steps.
        batch_size: clips a step.
        round_weights: round weights inside the loop, to nearest, even where activations are rounded.
    """

    lr: Positive
    iterations: Count
    batch_size: Count
    round_weights: bool

    @property
    def needs(self) -> Needs:
        """Rotations are fitted to the clips, with inputs rounded per token."""
        return super().needs | Needs(clips=True, simulates_inputs=True, decoder=True)

    def fitted(self, bench: Workbench, drawn: Rotations, online: OnlineRotations) -> Rotations:
        """The learned rotations; those drawn where no iterate is better on the calibration clips, which is logged.

        Raises:
            UserError: neither weights nor activations are quantized.
        """
        plan = self.loop_plan(bench)
        learned = self.learn(bench, drawn, online, plan)
        release_memory()
        before, after = (calibration_loss(bench, each, online, plan) for each in (drawn, learned))
        log.info("%s: loss on the calibration clips %.4f before, %.4f after learning", self.name, before, after)
        if after < before:
            return learned
        log.warning("%s: learning did not lower the loss; the rotations stay randomised Hadamards", self.name)
        note = "the learned rotations were no better than those they started from, which are used"
        return replace(drawn, notes=dict.fromkeys((linear.path for linear in bench.graph.linears), note))

    def loop_plan(self, bench: Workbench) -> dict[str, WeightSpec | None]:
        """Grids of the weights inside the loop: the bit-config's, or none (the authors' choice before GPTQ)."""
        rounds_inputs = any(bits != FULL_PRECISION for bits in bench.abits.values())
        if not rounds_inputs and not any(bench.plan.values()):
            raise UserError("bits", "nothing is quantized, so there is nothing to learn", "Use e.g. bits=w4a8")
        if self.round_weights or not rounds_inputs:
            return dict(bench.plan)
        return dict.fromkeys(bench.plan, None)

    def learn(
        self,
        bench: Workbench,
        start: Rotations,
        online: OnlineRotations,
        plan: Mapping[str, WeightSpec | None],
    ) -> Rotations:
        """Rotations after all steps of Cayley SGD from ``start``; the model's parameters stay as they are."""
        learning = _with_gradients(start)
        matrices = [*learning.streams.values(), *learning.heads.values()]
        with rotated_network(bench, learning, online, plan) as linears, torch.enable_grad():
            batches = self._batches(bench)
            for step in progress(range(self.iterations), "learn rotations"):
                with one_step(linears):
                    for clip, share in _parts(bench, next(batches)):
                        (_loss(bench, learning, clip) * share).backward()  # type: ignore[no-untyped-call]
                lr = self.lr * (1 - step / self.iterations)
                with torch.no_grad():
                    for R in matrices:
                        G, R.grad = R.grad, None
                        assert G is not None  # every rotation has a part in the loss
                        R.copy_(retract(cayley_step(R, G, lr)))
                release_memory()  # steps differ in their clips' lengths, and so in the sizes of what they free
        return _without_gradients(learning)

    def _batches(self, bench: Workbench) -> Iterator[list[int]]:
        """Clips of each step, without end: every clip once, in random order, then all again."""
        generator = torch.Generator().manual_seed(bench.seed)
        count = len(_clips(bench).ids)
        while True:
            order = torch.randperm(count, generator=generator).tolist()
            for start in range(0, count, self.batch_size):
                yield order[start : start + self.batch_size]


def calibration_loss(
    bench: Workbench, rotations: Rotations, online: OnlineRotations, plan: Mapping[str, WeightSpec | None]
) -> float:
    """The objective, :func:`teacher_loss`, over all tokens of all calibration clips."""
    with rotated_network(bench, rotations, online, plan) as linears, torch.no_grad(), one_step(linears):
        parts = _parts(bench, range(len(_clips(bench).ids)))
        return sum(float(_loss(bench, rotations, clip)) * share for clip, share in progress(parts, "loss"))


def _parts(bench: Workbench, clips: Iterable[int]) -> list[tuple[int, float]]:
    """Clips one by one, as the graph of a long one takes half a gigabyte, and their shares of all tokens."""
    counts = {clip: scored_tokens(bench.speech, _clips(bench).tokens[clip]) for clip in clips}
    return [(clip, count / sum(counts.values())) for clip, count in counts.items()]


def _loss(bench: Workbench, rotations: Rotations, clip: int) -> Tensor:
    calibration = _clips(bench)
    return teacher_loss(bench.speech, rotations.streams, [calibration.features[clip]], calibration.tokens[clip])


def _clips(bench: Workbench) -> Calibration:
    if bench.calibration is None:
        raise ValueError("SpinQuant needs calibration clips")
    return bench.calibration


def _with_gradients(rotations: Rotations) -> Rotations:
    streams = {rows: R.clone().requires_grad_() for rows, R in rotations.streams.items()}
    return Rotations(streams, {name: R.clone().requires_grad_() for name, R in rotations.heads.items()}, {})


def _without_gradients(rotations: Rotations) -> Rotations:
    streams = {rows: R.detach() for rows, R in rotations.streams.items()}
    return Rotations(streams, {name: R.detach() for name, R in rotations.heads.items()}, rotations.notes)
