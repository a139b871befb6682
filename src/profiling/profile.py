"""The profile of one point: sizes, analytic costs of the reference utterance, and measured times."""

from __future__ import annotations

from dataclasses import dataclass

from src.models.graph import Linear
from src.profiling.additions import added_biases, stored_factor_bytes
from src.profiling.bitops import Product, by_component, by_phase, products, total_bops, total_macs
from src.profiling.latency import Latency
from src.profiling.memory_io import activation_bytes, memory_io
from src.profiling.point import FULL_BITS, FULL_BYTES, Point
from src.profiling.shapes import Dimensions


@dataclass(frozen=True)
class Profile:
    """What one point costs on the reference utterance at batch 1. ``dataclasses.asdict`` of it is valid JSON.

    Attributes:
        seconds: length of the reference utterance.
        tokens: its text tokens.
        frames: its encoder frames.
        parameters: of the whole model, added biases included; a tied embedding counts once. Scales, zero points and
            factors of rotations are not parameters, but count in all bytes and bits below.
        quantized_parameters: weights stored in fewer than 16 bits.
        parameter_bytes: all tensors of the stored model, as computed from its layers and edits; ``disk_bytes`` is this
            and the file's header.
        bits_per_weight: stored bits per weight of the quantized linears and ends, scales and zero points included; 16
            when nothing is quantized.
        model_bits_per_weight: the same over all parameters, the unquantized ones at 16 bits; above 16 where rotations
            are stored and nothing is quantized.
        disk_bytes: size of the stored model.
        memory_io_bytes: bytes moved; see :mod:`src.profiling.memory_io` for the model.
        memory_io_breakdown: the same by component, and the caches.
        activation_io_bytes: unfused upper bound for activations, not part of ``memory_io_bytes``.
        macs: multiply-accumulates.
        macs_breakdown: by component.
        macs_phases: by phase.
        bops: bit operations; see :mod:`src.profiling.bitops`.
        bops_breakdown: by component.
        bops_phases: by phase.
        encoder_ms: median time of the encoder.
        token_ms: median time of one decode step.
        peak_memory_mib: peak resident set size of the process in MiB.
        latency: all that was measured, with percentiles, threads and device.
    """

    seconds: float
    tokens: int
    frames: int
    parameters: int
    quantized_parameters: int
    parameter_bytes: int
    bits_per_weight: float
    model_bits_per_weight: float
    disk_bytes: int
    memory_io_bytes: int
    memory_io_breakdown: dict[str, int]
    activation_io_bytes: int
    macs: int
    macs_breakdown: dict[str, int]
    macs_phases: dict[str, int]
    bops: int
    bops_breakdown: dict[str, int]
    bops_phases: dict[str, int]
    encoder_ms: float
    token_ms: float
    peak_memory_mib: float
    latency: Latency


def profile_point(point: Point, *, disk_bytes: int, latency: Latency) -> Profile:
    """Combines the analytic costs of ``point`` with a measurement. Bits, bytes and milliseconds throughout."""
    parts = products(point)
    moved = memory_io(point)
    parameters = parameter_count(point)
    quantized = [each for each in (*point.graph.linears, *point.ends) if point.of(each).weight_bits < FULL_BITS]
    weights = sum(linear.out_features * linear.in_features for linear in quantized)
    stored = sum(point.of(linear).stored_bytes for linear in quantized)
    parameter_bytes = stored + FULL_BYTES * (parameters - weights) + stored_factor_bytes(point)
    return Profile(
        seconds=point.workload.seconds,
        tokens=point.workload.tokens,
        frames=point.frames,
        parameters=parameters,
        quantized_parameters=weights - sum(_at_full_precision(point, linear) for linear in quantized),
        parameter_bytes=parameter_bytes,
        bits_per_weight=8 * stored / weights if weights else float(FULL_BITS),
        model_bits_per_weight=8 * parameter_bytes / parameters,
        disk_bytes=disk_bytes,
        memory_io_bytes=sum(moved.values()),
        memory_io_breakdown=moved,
        activation_io_bytes=activation_bytes(point),
        macs=total_macs(parts),
        macs_breakdown=by_component(parts, _macs),
        macs_phases=by_phase(parts, _macs),
        bops=total_bops(parts),
        bops_breakdown=by_component(parts, _bops),
        bops_phases=by_phase(parts, _bops),
        encoder_ms=latency.encoder_ms,
        token_ms=latency.token_ms,
        peak_memory_mib=latency.peak_memory_mib,
        latency=latency,
    )


def parameter_count(point: Point) -> int:
    """Parameters of the whole model, as ``sum(p.numel() for p in module.parameters())`` counts them."""
    weights = sum(linear.out_features * linear.in_features for linear in point.graph.linears)
    return weights + _other_parameters(point.dimensions) + sum(size for _, size in added_biases(point))


def _at_full_precision(point: Point, linear: Linear) -> int:
    """Weights of a quantized linear that have 16 bits."""
    bits = point.of(linear)
    return linear.out_features * bits.exact_inputs + bits.outliers


def _other_parameters(dimensions: Dimensions) -> int:
    """Everything but the blocks' weight matrices."""
    encoder, decoder = dimensions.encoder, dimensions.decoder
    cross = dimensions.cross_vectors + dimensions.cross_frame_vectors
    matrices = 1 if dimensions.tied else 2
    return (
        sum(conv.parameters for conv in dimensions.frontend)
        + dimensions.frontend_vectors
        + encoder.layers * encoder.vectors
        + encoder.final_norm
        + decoder.layers * (decoder.vectors + cross)
        + decoder.final_norm
        + (matrices * dimensions.vocab + dimensions.token_positions) * dimensions.width
    )


def _macs(product: Product) -> int:
    return product.macs


def _bops(product: Product) -> int:
    return product.bops
