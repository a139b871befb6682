"""What the utterance's processing consists of: phases, and the passes of the decoder.

With ``batch`` utterances and ``beams`` hypotheses each, the encoder, the keys and values of the cross-attention and the
prompt are processed once per utterance, and every decode step works on ``batch x beams`` sequences at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from src.profiling.cost_model import CostModel


class Phase(StrEnum):
    """Part of the utterance's processing."""

    ENCODER = "encoder"  # front-end and encoder blocks, once
    CROSS_KV = "cross_kv"  # keys and values of the cross-attention, once
    PREFILL = "prefill"  # the prompt, in one pass
    DECODE = "decode"  # the steps, one per text token


@dataclass(frozen=True)
class DecoderPass:
    """One run of the decoder over the new tokens of some sequences.

    Attributes:
        phase: prefill or decode.
        sequences: that run together.
        before: tokens of each in the self-attention cache before the pass.
        after: the same after it; the new tokens are the difference.
    """

    phase: Phase
    sequences: int
    before: int
    after: int

    @property
    def rows(self) -> int:
        """New tokens of all sequences."""
        return self.sequences * (self.after - self.before)

    @property
    def pairs(self) -> int:
        """(new token, cached token) pairs in the self-attention of all sequences, causally masked ones included."""
        return self.rows * self.after


def prefill(point: CostModel) -> DecoderPass:
    return DecoderPass(Phase.PREFILL, point.workload.batch, 0, point.workload.prompt)


def decode_step(point: CostModel, number: int) -> DecoderPass:
    """The ``number``-th decode step, counted from 1."""
    after = point.workload.prompt + number
    return DecoderPass(Phase.DECODE, point.workload.sequences, after - 1, after)


def decode_steps(point: CostModel) -> tuple[DecoderPass, ...]:
    return tuple(decode_step(point, number) for number in range(1, point.workload.tokens + 1))
