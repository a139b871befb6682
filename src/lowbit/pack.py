"""Dense bit packing: codes of b bits take b bits.

A row of codes is one stream of bits, least significant bit first: code ``j`` occupies bits ``j b .. (j + 1) b - 1``,
and bit ``k`` of the stream is bit ``k mod 8`` of byte ``k div 8``. Each row is padded with zero bits to a whole byte,
so eight codes take ``b`` bytes and a row of n codes ``ceil(n b / 8)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from src.lowbit.double_quantization import QuantizedStatistic, QuantizedStatistics, StatisticsSpec
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.outliers import DenseColumns, SparseOutliers

PARTS = (
    *("codes", "perm", "scale", "zero"),
    *(f"{statistic}_{part}" for statistic in ("scale", "zero") for part in ("codes", "step", "lowest")),
    *("sparse_values", "sparse_columns", "sparse_rows", "dense_values", "dense_columns"),
)


def packed_width(columns: int, bits: int) -> int:
    """Bytes of one packed row of ``columns`` codes."""
    return -(-columns * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Packs ``codes`` uint8 [rows, columns], each below ``2^bits``, into uint8 [rows, ceil(columns bits / 8)]."""
    rows, columns = codes.shape
    padded = torch.nn.functional.pad(codes, (0, -columns % 8)).view(rows, -1, 8)
    words = torch.zeros(padded.shape[:2], dtype=torch.int64, device=codes.device)
    for position in range(8):
        words |= padded[:, :, position].to(torch.int64) << (position * bits)
    octets = torch.stack([(words >> (8 * octet)) & 0xFF for octet in range(bits)], dim=2)
    return octets.to(torch.uint8).view(rows, -1)[:, : packed_width(columns, bits)].contiguous()


def unpack(packed: Tensor, bits: int, columns: int) -> Tensor:
    """Inverse of :func:`pack`: uint8 [rows, columns]."""
    rows = packed.shape[0]
    padded = torch.nn.functional.pad(packed, (0, -packed.shape[1] % bits)).view(rows, -1, bits)
    words = torch.zeros(padded.shape[:2], dtype=torch.int64, device=packed.device)
    for octet in range(bits):
        words |= padded[:, :, octet].to(torch.int64) << (8 * octet)
    mask = (1 << bits) - 1
    codes = torch.stack([(words >> (position * bits)) & mask for position in range(8)], dim=2)
    return codes.to(torch.uint8).view(rows, -1)[:, :columns].contiguous()


def pack_weight(weight: QuantizedWeight) -> dict[str, Tensor]:
    """The tensors that store ``weight``, named as in :data:`PARTS`; together they take ``weight.nbytes``.

    ``codes`` [out, bytes] as :func:`pack` makes them, without dense columns, and ``perm`` int32 [in], a column order.
    Grids: ``scale`` [out, groups], and ``zero``: real zero points as they are, those of asymmetric grids packed as one
    row. Quantized statistics have ``codes`` (packed as one row), ``step`` and ``lowest`` each, under ``scale_`` and
    ``zero_``, instead. 16-bit weights: see :mod:`src.lowbit.outliers`.
    """
    tensors = {"codes": pack(_stored_columns(weight), weight.spec.bits), **_pack_grids(weight)}
    if weight.perm is not None:
        tensors["perm"] = weight.perm.to(torch.int32)
    for part in (weight.sparse, weight.dense):
        if part is not None:
            tensors.update(part.tensors())
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def unpack_weight(
    tensors: dict[str, Tensor], spec: WeightSpec, shape: tuple[int, int], statistics: StatisticsSpec | None = None
) -> QuantizedWeight:
    """Inverse of :func:`pack_weight` for a weight of ``shape`` (out, in).

    Raises:
        ValueError: the packed codes do not have the size that ``spec`` and ``shape`` imply.
    """
    dense = DenseColumns.from_tensors(tensors)
    perm = tensors["perm"].to(torch.int64) if "perm" in tensors else None
    codes = _unpack_codes(tensors["codes"], spec, shape, _kept(shape[1], perm, dense))
    scale, zero, quantized = _unpack_grids(tensors, spec, shape, statistics)
    return QuantizedWeight(codes, scale, zero, spec, perm, quantized, SparseOutliers.from_tensors(tensors), dense)


def unpack_weights(
    described: Mapping[str, Mapping[str, Any]], tensors: dict[str, Tensor]
) -> dict[str, QuantizedWeight]:
    """Weights by module path: what a file's metadata says of each, and its tensors, which are taken out of ``tensors``.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError: the two do not fit.
    """
    weights = {}
    for path, entry in described.items():
        fields = {name: value for name, value in entry.items() if name not in ("shape", "statistics")}
        names = {part: f"{path}.weight.{part}" for part in PARTS}
        parts = {part: tensors.pop(name) for part, name in names.items() if name in tensors}
        statistics = StatisticsSpec(**entry["statistics"]) if entry.get("statistics") else None
        weights[path] = unpack_weight(parts, WeightSpec(**fields), tuple(entry["shape"]), statistics)
    return weights


def _kept(columns: int, perm: Tensor | None, dense: DenseColumns | None) -> Tensor | None:
    """Bool [in]: which columns, in stored order, have codes; None means all."""
    if dense is None:
        return None
    kept = torch.ones(columns, dtype=torch.bool, device=dense.columns.device)
    kept[dense.columns.long()] = False
    return kept if perm is None else kept[perm]


def _stored_columns(weight: QuantizedWeight) -> Tensor:
    kept = _kept(weight.shape[1], weight.perm, weight.dense)
    return weight.codes if kept is None else weight.codes[:, kept]


def _unpack_codes(packed: Tensor, spec: WeightSpec, shape: tuple[int, int], kept: Tensor | None) -> Tensor:
    columns = shape[1] if kept is None else int(kept.sum())
    expected = (shape[0], packed_width(columns, spec.bits))
    if tuple(packed.shape) != expected:
        raise ValueError(f"packed codes are {tuple(packed.shape)}; {spec.bits} bits of {shape} are {expected}")
    stored = unpack(packed, spec.bits, columns)
    if kept is None:
        return stored
    codes = torch.zeros(shape, dtype=torch.uint8, device=packed.device)
    codes[:, kept] = stored
    return codes


def _pack_grids(weight: QuantizedWeight) -> dict[str, Tensor]:
    if weight.statistics is not None:
        zero = weight.statistics.zero
        scales = _pack_statistic("scale", weight.statistics.scale)
        return scales if zero is None else {**scales, **_pack_statistic("zero", zero)}
    if weight.zero.is_floating_point():
        return {"scale": weight.scale, "zero": weight.zero}
    if weight.spec.symmetric:
        return {"scale": weight.scale}
    return {"scale": weight.scale, "zero": _pack_flat(weight.zero, weight.spec.bits)}


def _unpack_grids(
    tensors: dict[str, Tensor], spec: WeightSpec, shape: tuple[int, int], statistics: StatisticsSpec | None
) -> tuple[Tensor, Tensor, QuantizedStatistics | None]:
    if statistics is not None:
        scales = _unpack_statistic("scale", tensors, statistics, shape[0])
        zeros = _unpack_statistic("zero", tensors, statistics, shape[0]) if "zero_codes" in tensors else None
        scale = scales.values()
        zero = _middle(spec, scale) if zeros is None else zeros.values()
        return scale, zero, QuantizedStatistics(scales, zeros)
    scale = tensors["scale"]
    if "zero" not in tensors:
        return scale, _middle(spec, scale), None
    if tensors["zero"].is_floating_point():
        return scale, tensors["zero"], None
    return scale, _unpack_flat(tensors["zero"], spec.bits, tuple(scale.shape)), None


def _middle(spec: WeightSpec, scale: Tensor) -> Tensor:
    return torch.full(scale.shape, spec.middle_code, dtype=torch.uint8, device=scale.device)


def _pack_statistic(name: str, statistic: QuantizedStatistic) -> dict[str, Tensor]:
    codes = _pack_flat(statistic.codes, statistic.spec.bits)
    return {f"{name}_codes": codes, f"{name}_step": statistic.step, f"{name}_lowest": statistic.lowest}


def _unpack_statistic(name: str, tensors: dict[str, Tensor], spec: StatisticsSpec, rows: int) -> QuantizedStatistic:
    step, lowest = tensors[f"{name}_step"], tensors[f"{name}_lowest"]
    codes = _unpack_flat(tensors[f"{name}_codes"], spec.bits, (rows, step.shape[1]))
    return QuantizedStatistic(codes, step, lowest, spec)


def _pack_flat(codes: Tensor, bits: int) -> Tensor:
    return pack(codes.reshape(1, -1), bits)[0]


def _unpack_flat(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    return unpack(packed.unsqueeze(0), bits, math.prod(shape)).view(shape)
