"""Multiply-accumulates (MACs) and bit operations (BOPs) of one utterance, counted from shapes.

Counted: convolutions, linears, the two attention products, the head. Not counted, as in torch's ``FlopCounterMode``
(2 FLOPs per MAC), which the tests compare with exactly: feature extraction, norms, soft-max, biases, rotary positions,
other element-wise work, and the multiplications of (de)quantization itself.

Three conventions. Causal attention in the prefill is counted in full (prompt x prompt), as eager attention runs it.
The head runs on the last position of a pass only, which is all that decoding needs. Cross-attention keys and values
are computed once per utterance.

BOPs are MACs times the widths of both operands: weight bits x activation bits for a linear; for attention in the
decoder, cache bits x 16 for queries and probabilities, which nothing here quantizes. The encoder's self-attention has
no cache and stays at 16 x 16, as do the front-end and the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from src.models.graph import Component, Linear
from src.profiling.point import FULL_BITS, Point


class Phase(StrEnum):
    """Part of the utterance's processing."""

    ENCODER = "encoder"  # front-end and encoder blocks, once
    CROSS_KV = "cross_kv"  # keys and values of the cross-attention, once
    PREFILL = "prefill"  # the prompt, in one pass
    DECODE = "decode"  # the steps, one per text token


@dataclass(frozen=True)
class Product:
    """Multiply-accumulates that share operand widths."""

    component: Component
    phase: Phase
    macs: int
    left_bits: int
    right_bits: int

    @property
    def bops(self) -> int:
        """Bit operations."""
        return self.macs * self.left_bits * self.right_bits


@dataclass(frozen=True)
class DecoderWork:
    """What one or several decoder passes process.

    Attributes:
        rows: new tokens.
        pairs: (new token, cached token) pairs in the self-attention.
        logits: positions the head runs on.
        residual: those of the pairs whose key is at 16 bits in a cache that is rounded group by group.
    """

    rows: int
    pairs: int
    logits: int
    residual: int = 0


def step_work(cached: int) -> DecoderWork:
    """One decode step when the self-attention cache already holds ``cached`` tokens."""
    return DecoderWork(rows=1, pairs=cached + 1, logits=1)


def products(point: Point) -> tuple[Product, ...]:
    """Every product of the utterance, all four phases."""
    prompt, tokens = point.workload.prompt, point.workload.tokens
    prefill = DecoderWork(prompt, prompt * prompt, logits=1, residual=prompt * point.residual(prompt))
    residual = sum(point.residual(prompt + step) for step in range(1, tokens + 1))
    steps = DecoderWork(tokens, point.workload.attended - prompt, logits=tokens, residual=residual)
    return (
        *encoder_products(point),
        *cross_kv_products(point),
        *decoder_products(point, prefill, Phase.PREFILL),
        *decoder_products(point, steps, Phase.DECODE),
    )


def encoder_products(point: Point) -> Iterator[Product]:
    """Front-end and encoder blocks."""
    dimensions, frames = point.dimensions, point.frames
    outputs = dimensions.lengths(point.workload.seconds)[1:]
    for conv, length in zip(dimensions.frontend, outputs, strict=True):
        macs = length * conv.in_channels * conv.out_channels * conv.kernel
        yield Product(Component.FRONTEND, Phase.ENCODER, macs, FULL_BITS, FULL_BITS)
    for block in point.graph.encoder:
        for linear in block.linears:
            yield _linear(point, linear, frames, Phase.ENCODER)
    stack = dimensions.encoder
    macs = 2 * stack.layers * stack.heads * dimensions.attended_head_dim * frames * frames
    yield Product(Component.ENCODER, Phase.ENCODER, macs, FULL_BITS, FULL_BITS)


def cross_kv_products(point: Point) -> Iterator[Product]:
    """Keys and values of every decoder block's cross-attention."""
    for block in point.graph.decoder:
        for linear in block.linears:
            if linear.path in point.frame_linears:
                yield _linear(point, linear, point.frames, Phase.CROSS_KV)


def decoder_products(point: Point, work: DecoderWork, phase: Phase) -> Iterator[Product]:
    """Decoder blocks and head for ``work``."""
    dimensions = point.dimensions
    for block in point.graph.decoder:
        for linear in block.linears:
            if linear.path not in point.frame_linears:
                yield _linear(point, linear, work.rows, phase)
    pair = 2 * dimensions.decoder.layers * dimensions.decoder.heads * dimensions.attended_head_dim
    late = pair * work.residual // 2  # with keys only; the other half of a pair is with values
    yield Product(Component.DECODER, phase, pair * work.pairs - late, point.kv_bits, FULL_BITS)
    if late:
        yield Product(Component.DECODER, phase, late, FULL_BITS, FULL_BITS)
    yield Product(Component.CROSS_ATTENTION, phase, pair * work.rows * point.frames, point.kv_bits, FULL_BITS)
    head = dimensions.vocab * dimensions.width * work.logits
    yield Product(Component.HEAD, phase, head, FULL_BITS, FULL_BITS)


def total_macs(parts: Iterable[Product]) -> int:
    """Sum of multiply-accumulates."""
    return sum(product.macs for product in parts)


def total_bops(parts: Iterable[Product]) -> int:
    """Sum of bit operations."""
    return sum(product.bops for product in parts)


def by_component(parts: Iterable[Product], value: Callable[[Product], int]) -> dict[str, int]:
    """Sums of ``value`` by component name."""
    return _grouped(parts, lambda product: product.component, value)


def by_phase(parts: Iterable[Product], value: Callable[[Product], int]) -> dict[str, int]:
    """Sums of ``value`` by phase name."""
    return _grouped(parts, lambda product: product.phase, value)


def _grouped(
    parts: Iterable[Product], key: Callable[[Product], StrEnum], value: Callable[[Product], int]
) -> dict[str, int]:
    sums: dict[str, int] = {}
    for product in parts:
        name = key(product).value
        sums[name] = sums.get(name, 0) + value(product)
    return sums


def _linear(point: Point, linear: Linear, rows: int, phase: Phase) -> Product:
    bits = point.of(linear)
    macs = rows * linear.out_features * linear.in_features
    return Product(linear.component, phase, macs, bits.weight_bits, bits.activation_bits)
