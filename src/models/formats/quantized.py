"""A model that this project has quantized, as a checkpoint: model.safetensors of :mod:`src.quant.checkpoint`.

What is read is the weights that codes, scales and zero points stand for. config.json and the tokenizer's files lie
beside, as for any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from src.models.families import FAMILIES
from src.models.files import CONFIG, WEIGHTS, checkpoint_files, read_object, wrong
from src.models.formats.foreign import Foreign, parsing
from src.models.tensors import Stored, metadata, stored_tensors

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
    config = read_object(folder / CONFIG)
    shapes |= _kernels(shapes, plain, config.get("num_mel_bins", 1))
    restored = _restoring(file, config)
    headers = {f"{path}.weight": shape for path, shape in shapes.items()}
    headers |= {name: each.shape for name, each in plain.items()}
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in headers.items()}
    tensors = {name: Stored(file, "F32", array.shape, 0, 0) for name, array in restored(empty).items()}

    def read() -> dict[str, np.ndarray]:
        from safetensors.torch import load_file

        from src.lowbit.pack import unpack_weights

        with parsing(file, _KIND):
            kept = load_file(file)
            weights = unpack_weights(specs, kept)
            real = {f"{path}.weight": weight.dequantize().reshape(shapes[path]) for path, weight in weights.items()}
            return restored({name: tensor.numpy() for name, tensor in (kept | real).items()})

    width = f"{bits[0]} to {bits[-1]}" if len(bits) > 1 else "".join(map(str, bits))
    rounded = f"weights rounded to {width} bits by this project" if bits else None
    return Foreign(tuple(checkpoint_files(folder)), {}, tensors, read, rounded)


def _restoring(file: Path, config: Mapping[str, Any]) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """What makes the weights of a checkpoint of those in ``file``. Raises UserError: nothing does."""
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        return dict
    if family.rewritten:
        problem = f"{file} holds a quantized {family.name} model, whose {family.rewritten}, as in no checkpoint"
        raise wrong(problem, "Give the checkpoint that was quantized, and quantize it anew")
    return family.restored


def _shape(path: str, specs: Mapping[str, Any]) -> tuple[int, ...]:
    rows, columns = specs[path]["shape"]
    return int(rows), int(columns)


def _kernels(
    shapes: Mapping[str, tuple[int, ...]], plain: Mapping[str, Stored], channels: int
) -> dict[str, tuple[int, ...]]:
    """Shapes of convolutions, [out, in, kernel], which are stored as [out, in kernel].

    Each reads the one before, and the first a linear beside it; without one, ``channels``.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(path for path in shapes if path.rpartition(".")[2].startswith("conv")):
        beside = path.rpartition(".")[0]
        sources = (f"{path[:-1]}{int(path[-1]) - 1}", f"{beside}.linear")
        made = (shapes.get(each) or (kept.shape if (kept := plain.get(f"{each}.weight")) else None) for each in sources)
        read = next((shape[0] for shape in made if shape), channels)
        found[path] = (shapes[path][0], read, shapes[path][1] // read)
    return found
