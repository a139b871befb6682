"""Costs of every single decode step, which grow with the self-attention cache and with nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from src.profiling.bitops import decoder_products, self_attention_products, total_bops, total_macs
from src.profiling.cost_model import CostModel
from src.profiling.memory_io import growing_bytes, step_moves
from src.profiling.passes import decode_steps


@dataclass(frozen=True)
class Steps:
    """Costs by decode step, the first one first; see the modules that they are named after.

    Attributes:
        memory_io_bytes: bytes moved.
        macs: multiply-accumulates.
        bops: bit operations.
    """

    memory_io_bytes: tuple[int, ...]
    macs: tuple[int, ...]
    bops: tuple[int, ...]


def steps(point: CostModel) -> Steps:
    """The steps of the reference utterance; their sums are the costs of its decode phase."""
    passes = decode_steps(point)
    if not passes:
        return Steps((), (), ())
    # What all steps have in common is counted once: models have hundreds of linears, utterances hundreds of tokens.
    first = tuple(decoder_products(point, passes[:1]))
    moved = sum(move.size for move in step_moves(point, 1)) - growing_bytes(point, 1)
    attention = [tuple(self_attention_products(point, [each])) for each in passes]
    macs, bops = (total(first) - total(attention[0]) for total in (total_macs, total_bops))
    return Steps(
        memory_io_bytes=tuple(moved + growing_bytes(point, number) for number in range(1, len(passes) + 1)),
        macs=tuple(macs + total_macs(each) for each in attention),
        bops=tuple(bops + total_bops(each) for each in attention),
    )
