"""Bytes moved between memory and the arithmetic for one utterance, or a batch of them.

The model: a machine whose fast memory holds one pass's activations but no weights and no cache from one pass to the
next, which is what makes decoding on an edge device bound by memory.

- Encoder and front-end weights are read once per utterance, as are the cross-attention's k and v projections, an
  adapter between encoder and decoder, and of its table of positions a row a frame.
- All other decoder weights and the head are read once per decoder pass (prefill and every step).
- The token embedding is read one row per token (so is Whisper's table of decoder positions), the tied head in full.
  A row of a quantized embedding is its codes, scales and zero points, padded to a byte.
- Keys and values are written once: the cross-attention's for every frame, the self-attention's for every position.
  Every pass reads the cross-attention cache in full and the self-attention cache up to and including its last position.
- A batch runs in lockstep: weights are read once for all its utterances, and each has caches of its own. Of several
  hypotheses of an utterance (beams), each has its own self-attention cache from the first step on; they share the
  cross-attention's, which a pass reads once for all of them. Beams change places by exchanging pointers.
- Keys that are rounded per channel carry a 16-bit scale and minimum per channel and group (one group for all frames);
  those of an incomplete group move 16 bits a value, and are written once more, packed, when it is complete.
- Quantized weights move their packed size with scales and zero points; everything else moves 16 bits a value, biases
  and norms included. Quantized caches carry a 16-bit scale and one zero point of the cache's width per token and head,
  and each layer's row of keys (or values) of one position is padded to a byte.
- A static grid of a linear's input is read with its weight.
- Biases that a method added are read with the module they belong to, as are the factors of rotations on the fly; the
  one rotation of the keys, where the cache is quantized, once for the cross-attention's and once per decoder pass.
  (Hadamard factors need not be read at all by a fast Hadamard transform; this counts what is stored.)

Activations are not part of the total. How many reach memory is a property of a runtime's fusion and tiling, not of the
quantization; unfused, they would hide the weights in the encoder (1500 frames) and be noise in the decoder (1 row).
:func:`activation_bytes` reports that unfused upper bound for those who need it.

arXiv 2507.07877 reports "memory I/O" too; the definition above is our own, so compare ratios to the
16-bit baseline rather than absolute values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from src.models.graph import Component, Linear, RowKind
from src.profiling.additions import Place, added_biases, online_rotations
from src.profiling.cost_model import FULL_BITS, FULL_BYTES, CostModel
from src.profiling.kv_cache import cross_cache_bytes, self_cache_bytes, self_cache_held
from src.profiling.passes import DecoderPass, Phase, decode_step, decode_steps, prefill

KV_CACHE = "kv_cache"
FRAME_POSITIONS = "positions of frames"


@dataclass(frozen=True)
class Move:
    """Bytes of one stored thing that a phase reads and writes.

    Attributes:
        part: name of its component, or :data:`KV_CACHE`.
        phase: which.
        size: bytes moved.
        what: names the thing, the same in every phase: a weight's path, or words.
        held: bytes that it takes in memory; of the self-attention cache, at the end of the utterance.
    """

    part: str
    phase: Phase
    size: int
    what: str
    held: int


def moves(point: CostModel) -> tuple[Move, ...]:
    """Everything the utterance (or batch) moves, all four phases; without a decoder there is one."""
    if not point.graph.decoder:
        return (*_once_moves(point), _read_once(Component.HEAD, _head_bytes(point), point.head.path))
    return (
        *_once_moves(point),
        *_cross_cache_moves(point, Phase.CROSS_KV, 1),
        *_decoder_moves(point, [prefill(point)]),
        *(_decoder_moves(point, decode_steps(point)) if point.workload.tokens else ()),
    )


def step_moves(point: CostModel, number: int) -> tuple[Move, ...]:
    """What the ``number``-th decode step moves, counted from 1."""
    return tuple(_decoder_moves(point, [decode_step(point, number)]))


def growing_bytes(point: CostModel, number: int) -> int:
    """Of what the ``number``-th decode step moves, what depends on the number: the self-attention cache."""
    step = decode_step(point, number)
    return step.sequences * self_cache_bytes(point, step.before, step.after)


def memory_io(point: CostModel) -> dict[str, int]:
    """Bytes moved, by component name and ``kv_cache``; their sum is the utterance's memory I/O."""
    return bytes_by_part(moves(point))


def memory_io_phases(point: CostModel) -> dict[str, int]:
    return bytes_by_phase(moves(point))


def bytes_by_part(parts: Iterable[Move]) -> dict[str, int]:
    """Sums by component name and ``kv_cache``; 0 where nothing moves."""
    moved = dict.fromkeys([*(component.value for component in Component), KV_CACHE], 0)
    for move in parts:
        moved[move.part] += move.size
    return moved


def bytes_by_phase(parts: Iterable[Move]) -> dict[str, int]:
    moved: dict[str, int] = {}
    for move in parts:
        moved[move.phase.value] = moved.get(move.phase.value, 0) + move.size
    return moved


def activation_bytes(point: CostModel) -> int:
    """Upper bound for activations, nothing fused: each product reads its input and writes its output.

    Counted are linears, convolutions, the head, and every factor of a rotation on the fly; attention scores are not.
    Inputs of linears move at their activation bits, those that a method keeps exact and all else at 16 bits.
    """
    bits = sum(_linear_activation_bits(point, linear) for linear in point.graph.linears)
    for rotation in online_rotations(point):
        bits += rotation.moved_bits * point.rows(rotation.place.rows)
    dimensions, work = point.dimensions, point.workload
    lengths = dimensions.lengths(work.seconds)
    for conv, inputs, outputs in zip(dimensions.frontend, lengths, lengths[1:], strict=False):
        read, written = conv.in_channels * conv.bands_before, conv.out_channels * conv.bands_after
        bits += FULL_BITS * work.batch * (inputs * read + outputs * written)
    # The last one of every pass, or every frame.
    positions = work.batch + work.sequences * work.tokens if point.graph.decoder else point.rows(RowKind.FRAME)
    bits += FULL_BITS * positions * (dimensions.width + dimensions.vocab)
    return -(-bits // 8)


def _once_moves(point: CostModel) -> Iterator[Move]:
    """Weights that are read once: front-end, encoder, and the cross-attention's k and v."""
    dimensions = point.dimensions
    encoder, decoder = dimensions.encoder, dimensions.decoder
    fixed = (conv.biases if conv.is_quantizable else conv.parameters for conv in dimensions.frontend)
    frontend = sum(fixed) + dimensions.frontend_vectors
    for conv in point.convolutions:
        yield _read_once(Component.FRONTEND, point.of(conv).read_bytes, conv.path)
    yield _read_once(Component.FRONTEND, frontend * FULL_BYTES, "vectors of the front-end")
    vectors = encoder.layers * encoder.vectors + encoder.final_norm
    yield _read_once(Component.ENCODER, vectors * FULL_BYTES, "vectors of the encoder")
    yield _read_once(Component.ENCODER, dimensions.adapter * FULL_BYTES, "adapter")
    row = dimensions.frame_width * FULL_BYTES
    read = min(dimensions.frame_positions, point.frames) * row
    yield Move(Component.ENCODER.value, Phase.ENCODER, read, FRAME_POSITIONS, dimensions.frame_positions * row)
    if point.graph.decoder:
        cross = decoder.layers * dimensions.cross_frame_vectors
        yield _read_once(Component.CROSS_ATTENTION, cross * FULL_BYTES, "vectors of the cross-attention's k and v")
    for weight in _weights(point):
        if weight.place.rows is not RowKind.TOKEN:
            yield _read_once(weight.place.component, weight.size, weight.what)


def _read_once(component: Component, size: int, what: str) -> Move:
    """Of the encoder's phase, but for the cross-attention's k and v."""
    phase = Phase.CROSS_KV if component is Component.CROSS_ATTENTION else Phase.ENCODER
    return Move(component.value, phase, size, what, size)


def _decoder_moves(point: CostModel, passes: Sequence[DecoderPass]) -> Iterator[Move]:
    """Weights and caches that one or several passes of one phase read, and what they write to the cache."""
    dimensions, decoder, phase = point.dimensions, point.dimensions.decoder, passes[0].phase

    def move(component: Component, a_pass: int, what: str) -> Move:
        return Move(component.value, phase, len(passes) * a_pass, what, a_pass)

    cross = decoder.layers * dimensions.cross_vectors
    yield move(Component.CROSS_ATTENTION, cross * FULL_BYTES, "vectors of the cross-attention")
    vectors = decoder.layers * decoder.vectors + decoder.final_norm
    yield move(Component.DECODER, vectors * FULL_BYTES, "vectors of the decoder")
    for weight in _weights(point):
        if weight.place.rows is RowKind.TOKEN:
            yield move(weight.place.component, weight.size, weight.what)
    yield move(Component.HEAD, _head_bytes(point), point.head.path)
    embedded, embedding = sum(each.rows for each in passes), point.embedding
    rows = embedded * _embedding_row_bytes(point)
    yield Move(Component.EMBEDDING.value, phase, rows, embedding.path, point.of(embedding).read_bytes)
    if dimensions.token_positions:
        row = dimensions.width * FULL_BYTES
        table = dimensions.token_positions * row
        yield Move(Component.EMBEDDING.value, phase, embedded * row, "positions of tokens", table)
    yield from _cross_cache_moves(point, phase, len(passes))
    held = point.workload.sequences * self_cache_held(point)
    moved = sum(each.sequences * self_cache_bytes(point, each.before, each.after) for each in passes)
    yield from _of_each_layer(point, phase, moved, "self-attention cache", held)


def _cross_cache_moves(point: CostModel, phase: Phase, times: int) -> Iterator[Move]:
    held = cross_cache_bytes(point)
    yield from _of_each_layer(point, phase, times * held, "cross-attention cache", held)


def _of_each_layer(point: CostModel, phase: Phase, moved: int, what: str, held: int) -> Iterator[Move]:
    """Shares of the decoder's layers, whose caches are alike, in what all of them move and hold."""
    layers = point.dimensions.decoder.layers
    for layer in range(layers):
        yield Move(KV_CACHE, phase, moved // layers, f"{what} of layer {layer}", held // layers)


@dataclass(frozen=True)
class _Matrix:
    """A matrix of the blocks, or what a method added to a module."""

    place: Place
    size: int
    what: str


def _weights(point: CostModel) -> Iterator[_Matrix]:
    for linear in point.graph.linears:
        place = Place(linear.component, point.row_kind(linear))
        yield _Matrix(place, point.of(linear).read_bytes, linear.path)
    for bias in added_biases(point):
        yield _Matrix(bias.place, bias.size * FULL_BYTES, f"added bias of {bias.path}")
    for rotation in online_rotations(point):
        yield _Matrix(rotation.place, rotation.factor_bytes, rotation.name)


def _embedding_row_bytes(point: CostModel) -> int:
    """Bytes of one token's row."""
    # Rows are alike but for the zero points' padding to a whole byte, which is less than a bit a row.
    row_bits = 8 * point.of(point.embedding).stored_bytes // point.dimensions.vocab
    return -(-row_bits // 8)


def _head_bytes(point: CostModel) -> int:
    return point.of(point.head).read_bytes + point.dimensions.head_biases * FULL_BYTES


def _linear_activation_bits(point: CostModel, linear: Linear) -> int:
    bits = point.of(linear)
    rounded = (linear.in_features - bits.exact_inputs) * bits.activation_bits
    at_full = (bits.exact_inputs + linear.out_features) * FULL_BITS
    return point.rows(point.row_kind(linear)) * (rounded + at_full)
