"""Dense bit packing: codes of b bits take b bits.

A row of codes is one stream of bits, least significant bit first: code ``j`` occupies bits ``j b .. (j + 1) b - 1``,
and bit ``k`` of the stream is bit ``k mod 8`` of byte ``k div 8``. Each row is padded with zero bits to a whole byte,
so eight codes take ``b`` bytes and a row of n codes ``ceil(n b / 8)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.quant.granularity import QuantizedWeight, WeightSpec


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
    """The tensors that store ``weight``; together they take ``weight.nbytes``.

    ``codes`` [out, bytes] as :func:`pack` makes them, ``scale`` [out, groups]; asymmetric grids add ``zero``, all zero
    points as one packed row, and a column order adds ``perm`` int32 [in].
    """
    bits = weight.spec.bits
    tensors = {"codes": pack(weight.codes, bits), "scale": weight.scale.contiguous()}
    if not weight.spec.symmetric:
        tensors["zero"] = pack(weight.zero.reshape(1, -1), bits)[0]
    if weight.perm is not None:
        tensors["perm"] = weight.perm.to(torch.int32)
    return tensors


def unpack_weight(tensors: dict[str, Tensor], spec: WeightSpec, shape: tuple[int, int]) -> QuantizedWeight:
    """Inverse of :func:`pack_weight` for a weight of ``shape`` (out, in).

    Raises:
        ValueError: the packed codes do not have the size that ``spec`` and ``shape`` imply.
    """
    codes, scale = tensors["codes"], tensors["scale"]
    expected = (shape[0], packed_width(shape[1], spec.bits))
    if tuple(codes.shape) != expected:
        raise ValueError(f"packed codes are {tuple(codes.shape)}; {spec.bits} bits of {shape} are {expected}")
    if spec.symmetric:
        zero = torch.full(scale.shape, spec.middle_code, dtype=torch.uint8, device=scale.device)
    else:
        zero = unpack(tensors["zero"].unsqueeze(0), spec.bits, scale.numel()).view(scale.shape)
    perm = tensors["perm"].to(torch.int64) if "perm" in tensors else None
    return QuantizedWeight(unpack(codes, spec.bits, shape[1]), scale, zero, spec, perm)
