"""A model that this project has quantized, as a checkpoint: model.safetensors of :mod:`src.quant.checkpoint`.

What is read is the weights that codes, scales and zero points stand for. config.json and the tokenizer's files lie
beside, as for any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from src.models.files import CONFIG, WEIGHTS, checkpoint_files, read_object, wrong
from src.models.formats.foreign import Foreign, parsing
from src.models.tensors import Stored, metadata, stored_tensors

if TYPE_CHECKING:
    import numpy as np

# One key: safetensors does not fix the order of several, and the bytes must not depend on it.
METADATA_KEY: Final = "quantized_model"
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
        from safetensors.torch import load_file

        from src.lowbit.pack import unpack_weights

        with parsing(file, _KIND):
            kept = load_file(file)
            weights = unpack_weights(specs, kept)
            real = {f"{path}.weight": weight.dequantize().reshape(shapes[path]) for path, weight in weights.items()}
            return {name: tensor.numpy() for name, tensor in (kept | real).items()}

    width = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else "".join(map(str, bits))
    rounded = f"weights rounded to {width} bits by this project" if bits else None
    return Foreign(tuple(checkpoint_files(folder)), {}, tensors, read, rounded)


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
        kept = plain.get(f"{before}.weight")
        held = shapes.get(before) or (kept.shape if kept else (channels,))
        found[path] = (shapes[path][0], held[0], shapes[path][1] // held[0])
    return found
