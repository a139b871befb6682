"""A checkpoint in the ``pack-quantized`` format of compressed-tensors, which transformers loads as it is.

``model.safetensors`` holds, for every quantized linear, ``weight_packed`` int32 (codes minus ``2^(b-1)``, densely
packed along the rows), ``weight_scale`` [out, groups], ``weight_shape``, and for asymmetric grids
``weight_zero_point`` int32, packed along the columns; all else is float16, but for what a family's module computes its
parameters from (:meth:`~src.models.family.Family.restored`).

``config.json`` asks transformers to dequantize on loading. What it does otherwise, decompress in the first call of the
model, never happens in ``generate`` of an encoder-decoder, which calls the encoder first, and packed zero points do not
load at all (transformers 5.23, compressed-tensors 0.20). Dequantizing computes ``scale (code - zero)`` in the type of
the scale, so scales are float32: then the weights are, bit for bit, those that were evaluated. It also knows one width
for all weights, so mixed ones are packed at the largest.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor

from src.export.base import Exportable, Runtime
from src.lowbit.granularity import PER_CHANNEL, QuantizedWeight, WeightSpec
from src.machine.progress import progress
from src.models.families import family_of
from src.models.files import GENERATION
from src.settings import ModelSettings
from src.storage.store import write_json


class CompressedTensors(Runtime):
    """See the module docstring. 2 to 8 bits, symmetric or not, any group size."""

    name = "compressed_tensors"
    packages: ClassVar[tuple[str, ...]] = ("compressed_tensors",)

    @classmethod
    def lacks(cls, model: ModelSettings) -> str | None:
        """Its tensors are those of transformers' own module, and its codes those of linears."""
        rewritten = family_of(model.family).rewritten
        return f"has no form of {model.family} models, whose {rewritten}" if rewritten else None

    def write(self, model: Exportable, folder: Path) -> list[str]:
        """``config.json``, ``model.safetensors`` and the checkpoint's processors."""
        weights = model.stored.weights
        bits = max(weight.spec.bits for weight in weights.values())
        arrays = {name: tensor.numpy() for name, tensor in model.stored.leftovers.items()}
        leftovers = family_of(model.settings.family).restored(arrays)
        tensors = {name: torch.tensor(array).contiguous() for name, array in leftovers.items()}
        for path, weight in progress([*weights.items()], "export, weights"):
            tensors |= {f"{path}.{part}": tensor for part, tensor in packed(weight, bits).items()}
        (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
        model.copy_processors(folder)
        (folder / GENERATION).write_text(_generation(model).to_json_string(), encoding="utf-8")
        write_json(folder / "config.json", _config(model, bits))
        narrower = sum(weight.spec.bits < bits for weight in weights.values())
        notes = [f"{narrower} weights of less than {bits} bits take {bits}: the format has one width"] * bool(narrower)
        if model.speech.limits()["tokens_per_second"] is not None:
            notes.append("generate() does not bound the tokens of a clip by its length: pass max_new_tokens")
        return notes


def packed(weight: QuantizedWeight, bits: int) -> dict[str, Tensor]:
    """The tensors that stand for one weight of at most ``bits`` bits, by the end of their names."""
    from compressed_tensors.compressors.pack_quantized import pack_to_int32

    middle = weight.spec.middle_code
    codes = weight.codes if weight.perm is None else weight.codes[:, torch.argsort(weight.perm)]
    tensors = {
        "weight_packed": pack_to_int32(_signed(codes, middle), bits),
        "weight_scale": weight.scale.float().contiguous(),
        "weight_shape": torch.tensor(weight.shape),
    }
    if not weight.spec.symmetric:
        tensors["weight_zero_point"] = pack_to_int32(_signed(weight.zero, middle), bits, packed_dim=0)
    return tensors


def _signed(codes: Tensor, middle: int) -> Tensor:
    """``0 .. 2^b - 1`` as ``-2^(b-1) .. 2^(b-1) - 1``."""
    return (codes.to(torch.int16) - middle).to(torch.int8)


def _config(model: Exportable, bits: int) -> dict[str, Any]:
    """The model's configuration, to be computed in float32, with its quantization."""
    weights = model.stored.weights
    spec = next(iter(weights.values())).spec
    kept = [linear.path for linear in model.graph.linears if linear.path not in weights]
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": list(weights), "weights": _arguments(spec, bits)}},
        "ignore": [*kept, model.graph.head],
        "dequantize": True,
    }
    config = {**model.config.to_dict(), "dtype": "float32", "quantization_config": quantization}
    config.pop("_name_or_path", None)  # a path on this machine
    config["architectures"] = [type(model.speech.module).__name__]
    return config


def _generation(model: Exportable) -> Any:
    """The checkpoint's generation settings, with language and suppressed tokens as they were evaluated."""
    generation = copy.deepcopy(model.speech.module.generation_config)
    if model.settings.language is not None and family_of(model.settings.family).told_language:
        generation.language, generation.task = model.settings.language, "transcribe"
    if not model.suppress:
        generation.suppress_tokens = generation.begin_suppress_tokens = None
    return generation


def _arguments(spec: WeightSpec, bits: int) -> dict[str, Any]:
    grouped = spec.group_size != PER_CHANNEL
    return {
        "num_bits": bits,
        "type": "int",
        "symmetric": spec.symmetric,
        "strategy": "group" if grouped else "channel",
        "group_size": spec.group_size if grouped else None,
        "dynamic": False,
    }
