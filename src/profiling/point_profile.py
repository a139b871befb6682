"""The profile of one point: sizes, analytic costs of the reference utterance, and measured times."""

from __future__ import annotations

from dataclasses import dataclass

from src.models.dimensions import Dimensions
from src.models.graph import Linear
from src.profiling.additions import added_biases, stored_factor_bytes
from src.profiling.cost_model import FULL_BITS, FULL_BYTES, CostModel
from src.profiling.decoded import Costs, breakdowns, with_totals
from src.profiling.energy import Energy, energy
from src.profiling.memory_io import activation_bytes
from src.profiling.roofline import Roofline, roofline
from src.profiling.steps import Steps, steps
from src.profiling.streaming import Streaming, streaming
from src.settings import EdgeDeviceSettings


@dataclass(frozen=True, kw_only=True)
class PointProfile(Costs):
    """What one point costs on the reference utterance or batch. ``dataclasses.asdict`` of it is valid JSON.

    Attributes:
        seconds: length of the reference utterance.
        tokens: its text tokens.
        batch: such utterances that are processed together; costs are those of all of them.
        beams: hypotheses of each.
        frames: encoder frames of one.
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
        activation_io_bytes: unfused upper bound for activations, not part of ``memory_io_bytes``.
        steps: bytes, multiply-accumulates and bit operations of every decode step.
        roofline: what the edge device could do at best; None without one.
        energy_j: joules that one utterance takes there, estimated; None where the device's yaml tells no energies.
        energy: what that consists of.
        streaming: what encoding costs while audio comes in; None where the encoder has no windows.
    """

    seconds: float
    tokens: int
    batch: int
    beams: int
    frames: int
    parameters: int
    quantized_parameters: int
    parameter_bytes: int
    parameter_breakdown: dict[str, int]
    bits_per_weight: float
    model_bits_per_weight: float
    disk_bytes: int
    activation_io_bytes: int
    steps: Steps
    roofline: Roofline | None
    energy_j: float | None
    energy: Energy | None
    streaming: Streaming | None


def profile_point(point: CostModel, *, disk_bytes: int, device: EdgeDeviceSettings | None = None) -> PointProfile:
    """Counts all costs of ``point``. Bits, bytes and milliseconds throughout."""
    work, parameters, stored = point.workload, parameter_count(point), stored_bytes(point)
    quantized = _quantized(point)
    weights = sum(linear.out_features * linear.in_features for linear in quantized)
    packed = stored["codes"] + stored["grids_and_outliers"]
    estimate = None if device is None else energy(point, device)
    return PointProfile(
        seconds=work.seconds,
        tokens=work.tokens,
        batch=work.batch,
        beams=work.beams,
        frames=point.frames,
        parameters=parameters,
        quantized_parameters=weights - sum(_at_full_precision(point, linear) for linear in quantized),
        parameter_bytes=sum(stored.values()),
        parameter_breakdown=stored,
        bits_per_weight=8 * packed / weights if weights else float(FULL_BITS),
        model_bits_per_weight=8 * sum(stored.values()) / parameters,
        disk_bytes=disk_bytes,
        activation_io_bytes=activation_bytes(point),
        **with_totals(breakdowns(point)),
        steps=steps(point),
        roofline=None if device is None else roofline(point, device),
        energy_j=None if estimate is None else estimate.joules,
        energy=estimate,
        streaming=streaming(point, device),
    )


def stored_bytes(point: CostModel) -> dict[str, int]:
    """Bytes of all tensors of the stored model by what they hold; see :attr:`PointProfile.parameter_breakdown`."""
    quantized = _quantized(point)
    codes = sum(_code_bytes(point, linear) for linear in quantized)
    weights = sum(linear.out_features * linear.in_features for linear in quantized)
    return {
        "codes": codes,
        "grids_and_outliers": sum(point.of(linear).stored_bytes for linear in quantized) - codes,
        "unquantized": FULL_BYTES * (parameter_count(point) - weights),
        "rotations": stored_factor_bytes(point),
        "input_grids": sum(bits.input_bytes for bits in point.bits.values()),
    }


def parameter_count(point: CostModel) -> int:
    """Parameters of the whole model, as ``sum(p.numel() for p in module.parameters())`` counts them."""
    weights = sum(linear.out_features * linear.in_features for linear in point.graph.linears)
    return weights + _other_parameters(point.dimensions) + sum(bias.size for bias in added_biases(point))


def _quantized(point: CostModel) -> list[Linear]:
    """Weights of fewer than 16 bits, in the blocks and at the ends."""
    return [each for each in (*point.graph.linears, *point.ends) if point.of(each).weight_bits < FULL_BITS]


def _code_bytes(point: CostModel, linear: Linear) -> int:
    """Bytes of the packed codes: every row is padded to a byte, and columns of exact inputs have none."""
    bits = point.of(linear)
    return linear.out_features * -(-(linear.in_features - bits.exact_inputs) * bits.weight_bits // 8)


def _at_full_precision(point: CostModel, linear: Linear) -> int:
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
        + dimensions.adapter
        + dimensions.frame_positions * dimensions.frame_width
        + dimensions.head_biases
        + (matrices * dimensions.vocab + dimensions.token_positions) * dimensions.width
    )
