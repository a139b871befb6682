"""A model that this project has quantized, as a checkpoint: model.safetensors of :mod:`src.quant.checkpoint`.

What is read is the weights that codes, scales and zero points stand for, as ``QuantizedWeight.dequantize`` makes them,
here without torch. config.json and the tokenizer's files lie beside, as for any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from src.models.files import CONFIG, WEIGHTS, checkpoint_files, read_object, wrong
from src.models.formats.foreign import Foreign, mapped, parsing
from src.models.tensors import Stored, metadata, stored_tensors

METADATA_KEY: Final = "quantized_model"
_DTYPES: Final = {"F16": "<f2", "F32": "<f4", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "u1"}
_KIND: Final = "quantized model of this project"


def describe(folder: Path) -> Foreign | None:
    """What is in a folder whose safetensors file was written by stage quantize.

    Raises:
        UserError: it is damaged, or has changes of structure or ranges of inputs, which are more than weights.
    """
    file = folder / WEIGHTS
    if not file.exists() or METADATA_KEY not in metadata(file):
        return None
    stored = stored_tensors([file])
    with parsing(file, _KIND):
        described = json.loads(metadata(file)[METADATA_KEY])
        specs: dict[str, Any] = described["weights"]
        kinds = sorted({edit["kind"] for edit in described["edits"]})
        bits = sorted({spec["bits"] for spec in specs.values()})
        shapes = {path: _shape(path, specs) for path in specs}
    if kinds:
        problem = f"{file} holds a model of another structure ({', '.join(kinds)}), which no checkpoint can have"
        raise wrong(problem, "Quantize with a method that keeps the structure, e.g. rtn, gptq, awq or hqq")
    if described.get("inputs"):
        problem = f"{file} holds ranges of inputs, which are no part of a checkpoint's weights"
        raise wrong(problem, "Quantize with abits=16, or with activation.range=token")
    packed = {f"{path}.weight" for path in specs}
    plain = {name: each for name, each in stored.items() if name.rpartition(".")[0] not in packed}
    if not (folder / CONFIG).exists():
        problem = f"{folder} has no {CONFIG}"
        raise wrong(problem, "Copy config.json and the tokenizer's files from the checkpoint that was quantized")
    shapes |= _kernels(shapes, plain, read_object(folder / CONFIG).get("num_mel_bins", 1))
    tensors = plain | {f"{path}.weight": Stored(file, "F32", shape, 0, 0) for path, shape in shapes.items()}

    def read() -> dict[str, np.ndarray]:
        with parsing(file, _KIND):
            data = mapped(file)
            arrays = {name: _array(data, each) for name, each in stored.items()}
            weights = {}
            for path, spec in specs.items():
                name = f"{path}.weight"
                parts = {key.rpartition(".")[2]: each for key, each in arrays.items() if key.rpartition(".")[0] == name}
                weights[name] = dequantize(parts, spec).reshape(shapes[path])
            return {name: arrays[name] for name in plain} | weights

    width = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else "".join(map(str, bits))
    rounded = f"weights rounded to {width} bits by this project" if bits else None
    return Foreign(tuple(checkpoint_files(folder)), {}, tensors, read, rounded)


def dequantize(parts: Mapping[str, np.ndarray], spec: Mapping[str, Any]) -> np.ndarray:
    """The weight float32 [out, in] that the tensors of :func:`src.quant.pack.pack_weight` stand for.

    Args:
        parts: these tensors, by their names.
        spec: bits, symmetric, shape and, where scales are quantized, statistics: of the file's metadata.
    """
    (rows, columns), bits = spec["shape"], spec["bits"]
    order = parts.get("perm", np.arange(columns))
    kept = np.ones(columns, bool)
    if "dense_columns" in parts:
        kept[parts["dense_columns"]] = False
    kept = kept[order]
    codes = np.zeros((rows, columns), np.float32)
    codes[:, kept] = _unpacked(parts["codes"], bits, int(kept.sum()))
    scale, zero = _grids(parts, spec)
    weight: np.ndarray = (codes.reshape(rows, scale.shape[1], -1) - zero[..., None]) * scale[..., None]
    weight = weight.reshape(rows, columns)[:, np.argsort(order)]
    if "dense_columns" in parts:
        weight[:, parts["dense_columns"]] = parts["dense_values"]
    if "sparse_rows" in parts:
        row = np.repeat(np.arange(rows), np.diff(parts["sparse_rows"]))
        weight[row, parts["sparse_columns"]] = parts["sparse_values"]
    return weight


def _unpacked(packed: np.ndarray, bits: int, columns: int) -> np.ndarray:
    """Codes uint8 [rows, columns] from streams of bits, least significant first: [rows, bytes]."""
    stream = np.unpackbits(packed, axis=1, count=columns * bits, bitorder="little").reshape(len(packed), columns, bits)
    codes: np.ndarray = np.packbits(stream, axis=2, bitorder="little")[..., 0]
    return codes


def _grids(parts: Mapping[str, np.ndarray], spec: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Scales and zero points, float32 [out, groups] each."""
    statistics = spec.get("statistics")
    scale = _statistic(parts, "scale", spec) if statistics else parts["scale"].astype(np.float32)
    if statistics and "zero_codes" in parts:
        return scale, _statistic(parts, "zero", spec)
    if "zero" not in parts:
        return scale, np.full(scale.shape, 1 << (spec["bits"] - 1), np.float32)
    zero = parts["zero"]
    if zero.dtype.kind != "f":
        zero = _unpacked(zero[None], spec["bits"], scale.size).reshape(scale.shape)
    return scale, zero.astype(np.float32)


def _statistic(parts: Mapping[str, np.ndarray], name: str, spec: Mapping[str, Any]) -> np.ndarray:
    """Scales or zero points that are codes themselves; they are rounded to 16 bits, as every stored scale."""
    each, step = spec["statistics"], parts[f"{name}_step"]
    rows, groups = spec["shape"][0], step.shape[1]
    codes = _unpacked(parts[f"{name}_codes"][None], each["bits"], rows * groups).reshape(rows, groups)
    row = np.arange(rows) // each["rows"]
    values: np.ndarray = step[row].astype(np.float32) * codes + parts[f"{name}_lowest"][row].astype(np.float32)
    return values.astype(step.dtype).astype(np.float32)


def _shape(path: str, specs: Mapping[str, Any]) -> tuple[int, ...]:
    rows, columns = specs[path]["shape"]
    return int(rows), int(columns)


def _kernels(
    shapes: Mapping[str, tuple[int, ...]], plain: Mapping[str, Stored], channels: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of convolutions, [out, in, kernel], which are stored as [out, in kernel]; the first takes ``channels``."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(path for path in shapes if path.rpartition(".")[2].startswith("conv")):
        before = f"{path[:-1]}{int(path[-1]) - 1}"
        held = (
            shapes[before]
            if before in shapes
            else plain[f"{before}.weight"].shape
            if f"{before}.weight" in plain
            else (channels,)
        )
        found[path] = (shapes[path][0], held[0], shapes[path][1] // held[0])
    return found


def _array(data: np.ndarray, tensor: Stored) -> np.ndarray:
    dtype = np.dtype(_DTYPES[tensor.dtype])
    if prod(tensor.shape) * dtype.itemsize != tensor.end - tensor.begin:
        raise ValueError(f"{tensor.shape} of {tensor.dtype} in {tensor.end - tensor.begin} bytes")
    return np.frombuffer(data[tensor.begin : tensor.end].tobytes(), dtype).reshape(tensor.shape)
