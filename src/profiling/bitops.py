"""Multiply-accumulates (MACs) and bit operations (BOPs) of one utterance or batch, counted from shapes.

Counted: convolutions, linears, the two attention products, the head, and rotations on the fly. Not counted, as in
torch's ``FlopCounterMode`` (2 FLOPs per MAC), which the tests compare with exactly: feature extraction, norms,
soft-max, biases, rotary positions, other element-wise work, and the multiplications of (de)quantization itself.

Four conventions. Causal attention in the prefill is counted in full (prompt x prompt), as eager attention runs it.
An encoder's attention within sliding windows is counted within the windows, which is what a runtime that streams
computes; transformers, and so torch's counter, multiplies frames x frames and masks what is outside.
The head runs on the last position of a pass only, which is all that decoding needs. Cross-attention keys and values
are computed once per utterance, also with several beams: see :mod:`src.profiling.passes`.

BOPs are MACs times the widths of both operands: weight bits x activation bits for a linear; for attention in the
decoder, cache bits x 16 for queries and probabilities, which nothing here quantizes. The encoder's self-attention has
no cache and stays at 16 x 16. What enters the front-end and the head has 16 bits, whatever their weights have. Inputs
that a method keeps at 16 bits meet weights of 16 bits; single weights at 16 bits (outliers) meet inputs of the
activation's width.

Rotations on the fly are counted as this code runs them, as products with their stored factors at 16 x 16: a row of
``n`` values costs ``n (l + r)`` multiply-accumulates for a Kronecker product of factors of sides ``l`` and ``r``, and
``n^2`` for a dense matrix. That is an upper bound. Where a factor is a Hadamard matrix, a fast Hadamard transform would
need ``n log2 n`` additions of 16 bits and no multiplications instead (learned rotations have no such shortcut), and
reads no factor. Keys are rotated and rotated back as they enter a quantized cache; a runtime that keeps them rotated
would rotate every query instead of rotating back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from src.models.graph import Component, Linear, RowKind
from src.profiling.additions import OnlineRotation, Place, online_rotations
from src.profiling.cost_model import FULL_BITS, CostModel
from src.profiling.passes import DecoderPass, Phase, decode_steps, prefill


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
        return self.macs * self.left_bits * self.right_bits


def products(point: CostModel) -> tuple[Product, ...]:
    """Every product of the utterance (or batch), all four phases; without a decoder there is one."""
    if not point.graph.decoder:
        return (*encoder_products(point), *frame_head_products(point))
    steps = decode_steps(point)
    return (
        *encoder_products(point),
        *cross_kv_products(point),
        *decoder_products(point, [prefill(point)]),
        *(decoder_products(point, steps) if steps else ()),
    )


def encoder_products(point: CostModel) -> Iterator[Product]:
    dimensions, batch = point.dimensions, point.workload.batch
    frames = batch * point.frames
    outputs = dimensions.lengths(point.workload.seconds)[1:]
    listed = iter(point.convolutions)
    for conv, length in zip(dimensions.frontend, outputs, strict=True):
        rows = batch * length * conv.bands_after
        if conv.is_quantizable:
            yield from _linear(point, next(listed), rows, Phase.ENCODER)
        else:
            macs = rows * conv.out_channels * conv.window
            yield Product(Component.FRONTEND, Phase.ENCODER, macs, FULL_BITS, FULL_BITS)
    for block in point.graph.encoder:
        for linear in block.linears:
            yield from _linear(point, linear, point.rows(point.row_kind(linear)), Phase.ENCODER)
    yield from _rotations(point, _on_encoder_frames, frames, Phase.ENCODER)
    yield from _rotations(point, _on_positions, point.rows(RowKind.POSITION), Phase.ENCODER)
    stack = dimensions.encoder
    attended = dimensions.encoder_attended_head_dim or dimensions.attended_head_dim
    macs = 2 * stack.heads * attended * batch * dimensions.encoder_pairs(point.frames)
    distances = stack.heads * attended * (2 * point.frames - 1) * stack.relative
    macs += stack.layers * frames * (distances + stack.depthwise * dimensions.frame_width)
    yield Product(Component.ENCODER, Phase.ENCODER, macs + frames * dimensions.adapter, FULL_BITS, FULL_BITS)


def frame_head_products(point: CostModel) -> Iterator[Product]:
    """The head of a model without a decoder, which reads every frame."""
    yield from _linear(point, point.head, point.rows(RowKind.FRAME), Phase.ENCODER)


def cross_kv_products(point: CostModel) -> Iterator[Product]:
    """Keys and values of every decoder block's cross-attention, and their way into the cache."""
    frames = point.workload.batch * point.frames
    for block in point.graph.decoder:
        for linear in block.linears:
            if linear.path in point.frame_linears:
                yield from _linear(point, linear, frames, Phase.CROSS_KV)
    yield from _rotations(point, _in_cross_kv, frames, Phase.CROSS_KV)


def decoder_products(point: CostModel, passes: Sequence[DecoderPass]) -> Iterator[Product]:
    """Decoder blocks and head for one or several passes of one phase."""
    phase, rows = passes[0].phase, sum(each.rows for each in passes)
    for block in point.graph.decoder:
        for linear in block.linears:
            if linear.path not in point.frame_linears:
                yield from _linear(point, linear, rows, phase)
    yield from _rotations(point, _on_tokens, rows, phase)
    yield from self_attention_products(point, passes)
    cross = _macs_of_a_pair(point) * rows * point.frames
    yield Product(Component.CROSS_ATTENTION, phase, cross, point.kv_bits, FULL_BITS)
    yield from _linear(point, point.head, sum(each.sequences for each in passes), phase)


def self_attention_products(point: CostModel, passes: Sequence[DecoderPass]) -> Iterator[Product]:
    """Those of queries and probabilities with the self-attention cache: what grows from step to step."""
    phase, pair = passes[0].phase, _macs_of_a_pair(point)
    pairs = pair * sum(each.pairs for each in passes)
    late = pair * sum(each.rows * point.residual(each.after) for each in passes) // 2  # with keys only, not with values
    yield Product(Component.DECODER, phase, pairs - late, point.kv_bits, FULL_BITS)
    if late:
        yield Product(Component.DECODER, phase, late, FULL_BITS, FULL_BITS)


def total_macs(parts: Iterable[Product]) -> int:
    return sum(product.macs for product in parts)


def total_bops(parts: Iterable[Product]) -> int:
    return sum(product.bops for product in parts)


def by_component(parts: Iterable[Product], value: Callable[[Product], int]) -> dict[str, int]:
    return _grouped(parts, lambda product: product.component, value)


def by_phase(parts: Iterable[Product], value: Callable[[Product], int]) -> dict[str, int]:
    return _grouped(parts, lambda product: product.phase, value)


def _grouped(
    parts: Iterable[Product], key: Callable[[Product], StrEnum], value: Callable[[Product], int]
) -> dict[str, int]:
    sums: dict[str, int] = {}
    for product in parts:
        name = key(product).value
        sums[name] = sums.get(name, 0) + value(product)
    return sums


def _macs_of_a_pair(point: CostModel) -> int:
    """Multiply-accumulates of one token with one cached position: with its key and its value, in all layers."""
    return 2 * point.dimensions.decoder.layers * point.dimensions.decoder.heads * point.dimensions.attended_head_dim


def _linear(point: CostModel, linear: Linear, rows: int, phase: Phase) -> Iterator[Product]:
    bits = point.of(linear)
    exact = linear.out_features * bits.exact_inputs
    parts = (
        (linear.out_features * linear.in_features - exact - bits.outliers, bits.weight_bits, bits.activation_bits),
        (exact, FULL_BITS, FULL_BITS),
        (bits.outliers, FULL_BITS, bits.activation_bits),
    )
    for macs, weight_bits, activation_bits in parts:
        if macs:
            yield Product(linear.component, phase, rows * macs, weight_bits, activation_bits)


def _rotations(point: CostModel, runs: Callable[[OnlineRotation], bool], rows: int, phase: Phase) -> Iterator[Product]:
    for rotation in online_rotations(point):
        if runs(rotation):
            yield Product(rotation.place.component, phase, rows * rotation.macs, FULL_BITS, FULL_BITS)


def _on_encoder_frames(rotation: OnlineRotation) -> bool:
    return rotation.place == Place(Component.ENCODER, RowKind.FRAME)


def _on_positions(rotation: OnlineRotation) -> bool:
    return rotation.place.rows is RowKind.POSITION


def _in_cross_kv(rotation: OnlineRotation) -> bool:
    return rotation.place.rows is RowKind.FRAME and not _on_encoder_frames(rotation)


def _on_tokens(rotation: OnlineRotation) -> bool:
    return rotation.place.rows is RowKind.TOKEN
