"""Bytes moved between memory and the arithmetic for one utterance at batch 1.

The model: a machine whose fast memory holds one pass's activations but no weights and no cache from one pass to the
next, which is what makes decoding on an edge device bound by memory.

- Encoder and front-end weights are read once per utterance, as are the cross-attention's k and v projections.
- All other decoder weights and the head are read once per decoder pass (prefill and every step).
- The token embedding is read one row per position (so is Whisper's table of decoder positions), the tied head in full.
  A row of a quantized embedding is its codes, scales and zero points.
- Keys and values are written once: the cross-attention's for every frame, the self-attention's for every position.
  Every pass reads the cross-attention cache in full and the self-attention cache up to and including its last position.
- Keys that are rounded per channel carry a 16-bit scale and minimum per channel and group (one group for all frames);
  those of an incomplete group move 16 bits a value, and are written once more, packed, when it is complete.
- Quantized weights move their packed size with scales and zero points; everything else moves 16 bits a value, biases
  and norms included. Quantized caches carry a 16-bit scale and one zero point of the cache's width per token and head,
  and each layer's row of keys (or values) of one position is padded to a byte.
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

from src.models.graph import Component, Linear, Rows
from src.profiling.additions import added_biases, online_rotations
from src.profiling.point import FULL_BITS, FULL_BYTES, Point

KV_CACHE = "kv_cache"
_SCALE_BITS = 16


def memory_io(point: Point) -> dict[str, int]:
    """Bytes moved, by component name and ``kv_cache``; their sum is the utterance's memory I/O."""
    moved = {component.value: 0 for component in Component}
    for linear in point.graph.linears:
        moved[linear.component.value] += _reads(point, linear) * point.of(linear).stored_bytes
    for component, size in _end_bytes(point).items():
        moved[component.value] += size
    for component, parameters in _vector_reads(point).items():
        moved[component.value] += parameters * FULL_BYTES
    for bias_place, size in added_biases(point):
        moved[bias_place.component.value] += _passes(point, bias_place.rows) * size * FULL_BYTES
    for rotation in online_rotations(point):
        moved[rotation.place.component.value] += _passes(point, rotation.place.rows) * rotation.factor_bytes
    moved[KV_CACHE] = kv_cache_bytes(point)
    return moved


def kv_cache_bytes(point: Point) -> int:
    """Bytes written to and read from the decoder's two caches."""
    layers, work = point.dimensions.decoder.layers, point.workload
    cross = point.frames * (1 + work.passes)
    own = work.positions + work.attended
    values = layers * _kv_row_bytes(point) * (cross + own)
    return values + (values if point.key_group is None else layers * _channel_key_bytes(point, point.key_group))


def _channel_key_bytes(point: Point, group: int) -> int:
    """Bytes written to and read from one layer's keys, of frames and of tokens, where they are rounded per channel."""
    work, width = point.workload, point.dimensions.decoder.kv_heads * point.dimensions.head_dim

    def packed(tokens: int) -> int:
        return -(-width * (tokens * point.kv_bits + 2 * _SCALE_BITS) // 8)

    def stored(positions: int) -> int:
        left = point.residual(positions)
        return (positions - left) // group * packed(group) + left * width * FULL_BYTES

    completed = work.positions // group - work.prompt // group
    written = stored(work.prompt) + work.tokens * width * FULL_BYTES + completed * packed(group)
    read = sum(stored(work.prompt + step) for step in range(work.passes))
    return packed(point.frames) * (1 + work.passes) + written + read


def activation_bytes(point: Point) -> int:
    """Upper bound for activations, nothing fused: each product reads its input and writes its output.

    Counted are linears, convolutions, the head, and every factor of a rotation on the fly; attention scores are not.
    Inputs of linears move at their activation bits, those that a method keeps exact and all else at 16 bits.
    """
    bits = sum(_linear_activation_bits(point, linear) for linear in point.graph.linears)
    for rotation in online_rotations(point):
        bits += rotation.moved_bits * _rows(point, rotation.place.rows)
    dimensions = point.dimensions
    lengths = dimensions.lengths(point.workload.seconds)
    for conv, inputs, outputs in zip(dimensions.frontend, lengths, lengths[1:], strict=False):
        bits += FULL_BITS * (inputs * conv.in_channels + outputs * conv.out_channels)
    bits += FULL_BITS * point.workload.passes * (dimensions.width + dimensions.vocab)
    return -(-bits // 8)


def _reads(point: Point, linear: Linear) -> int:
    """How often the weights of ``linear`` are read."""
    return _passes(point, _kind_of_rows(point, linear))


def _passes(point: Point, rows: Rows) -> int:
    return 1 if rows is Rows.FRAME else point.workload.passes


def _rows(point: Point, rows: Rows) -> int:
    return point.frames if rows is Rows.FRAME else point.workload.positions


def _kind_of_rows(point: Point, linear: Linear) -> Rows:
    return Rows.FRAME if linear.path in point.frame_linears else Rows.TOKEN


def _vector_reads(point: Point) -> dict[Component, int]:
    """Vectors (biases, norms, positions) in parameters, times how often each is read."""
    dimensions, work = point.dimensions, point.workload
    encoder, decoder = dimensions.encoder, dimensions.decoder
    return {
        Component.FRONTEND: sum(conv.biases for conv in dimensions.frontend) + dimensions.frontend_vectors,
        Component.ENCODER: encoder.layers * encoder.vectors + encoder.final_norm,
        Component.CROSS_ATTENTION: decoder.layers
        * (dimensions.cross_frame_vectors + work.passes * dimensions.cross_vectors),
        Component.DECODER: work.passes * (decoder.layers * decoder.vectors + decoder.final_norm),
        Component.EMBEDDING: work.positions * dimensions.width if dimensions.token_positions else 0,
    }


def _end_bytes(point: Point) -> dict[Component, int]:
    """Bytes of the weights outside the blocks, times how often each is read."""
    work = point.workload
    # Rows are alike but for the zero points' padding to a whole byte, which is less than a bit a row.
    row_bits = 8 * point.of(point.embedding).stored_bytes // point.dimensions.vocab
    return {
        Component.FRONTEND: sum(point.of(conv).stored_bytes for conv in point.convolutions),
        Component.EMBEDDING: -(-work.positions * row_bits // 8),
        Component.HEAD: work.passes * point.of(point.head).stored_bytes,
    }


def _kv_row_bytes(point: Point) -> int:
    """Bytes of one layer's keys (or values) of one position."""
    quantized = point.kv_bits < FULL_BITS
    overhead = _SCALE_BITS + point.kv_bits if quantized else 0
    heads = point.dimensions.decoder.kv_heads
    return -(-heads * (point.dimensions.head_dim * point.kv_bits + overhead) // 8)


def _linear_activation_bits(point: Point, linear: Linear) -> int:
    bits = point.of(linear)
    rounded = (linear.in_features - bits.exact_inputs) * bits.activation_bits
    at_full = (bits.exact_inputs + linear.out_features) * FULL_BITS
    return _rows(point, _kind_of_rows(point, linear)) * (rounded + at_full)
