"""A quantized model as one safetensors file, and back.

The file holds the packed tensors of every quantized weight as ``<path>.weight.codes``, ``.scale`` and so on (see
:func:`src.lowbit.pack.pack_weight`), every other parameter in float16 under its own name, and in its
metadata, as JSON, the shape and specification of each quantized weight and the model's structural changes
(:mod:`src.quant.structure`). Where inputs are not rounded per token and asymmetrically, it says that too, with static
grids as ``<path>.input.scale`` and ``.zero``. Equal inputs give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from src.lowbit.granularity import QuantizedWeight
from src.lowbit.pack import pack_weight, unpack_weights
from src.models.formats.quantized import METADATA_KEY
from src.quant.inputs import InputGrid
from src.quant.structure import Edit, read_edits, stored_edits


def leftover_tensors(module: nn.Module, quantized: Collection[str]) -> dict[str, Tensor]:
    """Parameters and stored buffers of ``module`` but the weights of the modules in ``quantized``; tied ones once."""
    stored = set(module.state_dict())
    named = [*module.named_parameters(), *module.named_buffers()]
    skipped = {f"{path}.weight" for path in quantized}
    return {name: tensor.detach() for name, tensor in named if name in stored and name not in skipped}


def round_to_storage(module: nn.Module, quantized: Collection[str]) -> None:
    """Gives every parameter that stays at 16 bits the value it will be stored with, before anything is fitted to it."""
    with torch.no_grad():
        for tensor in leftover_tensors(module, quantized).values():
            if tensor.is_floating_point():
                tensor.copy_(tensor.half())


@dataclass(frozen=True, eq=False)
class StoredModel:
    """What a file holds: quantized weights by module path, other tensors by name, structural changes, input grids."""

    weights: dict[str, QuantizedWeight]
    leftovers: dict[str, Tensor]
    edits: tuple[Edit, ...]
    inputs: dict[str, InputGrid] = field(default_factory=dict)


def save_weights(
    path: Path,
    weights: Mapping[str, QuantizedWeight],
    leftovers: Mapping[str, Tensor],
    edits: Sequence[Edit] = (),
    inputs: Mapping[str, InputGrid] | None = None,
) -> None:
    """Writes ``weights`` and ``inputs`` (by module path), ``leftovers`` (by parameter name) and ``edits`` to ``path``.

    Raises:
        ValueError: a leftover is not finite in float16, or a name occurs twice.
    """
    tensors = {name: _to_half(name, tensor) for name, tensor in leftovers.items()}
    for linear, weight in weights.items():
        for part, tensor in pack_weight(weight).items():
            name = f"{linear}.weight.{part}"
            if name in tensors:
                raise ValueError(f"{name} is both a leftover and a quantized weight")
            tensors[name] = tensor.cpu().contiguous()
    for linear, grid in (inputs or {}).items():
        if grid.scale is not None and grid.zero is not None:
            tensors |= {f"{linear}.input.scale": grid.scale.cpu(), f"{linear}.input.zero": grid.zero.cpu()}
    described: dict[str, object] = {
        "weights": {linear: _describe(weight) for linear, weight in weights.items()},
        "edits": stored_edits(edits),
    }
    if inputs:
        described["inputs"] = {linear: {"symmetric": grid.symmetric} for linear, grid in inputs.items()}
    path.write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(described, sort_keys=True)}))


def load_weights(path: Path) -> StoredModel:
    """Reads what :func:`save_weights` wrote, on the CPU.

    Raises:
        ValueError: the file was written by something else.
    """
    with safe_open(path, framework="pt") as file:
        described = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    if described is None:
        raise ValueError(f"{path} does not hold a quantized model")
    weights = unpack_weights(described["weights"], tensors)
    inputs = {
        linear: InputGrid(**entry, **{part: tensors.pop(f"{linear}.input.{part}", None) for part in ("scale", "zero")})
        for linear, entry in described.get("inputs", {}).items()
    }
    return StoredModel(weights, tensors, read_edits(described["edits"]), inputs)


def _describe(weight: QuantizedWeight) -> dict[str, object]:
    """Shape, specification and, where scales and zero points are quantized themselves, how."""
    described = {"shape": weight.shape, **asdict(weight.spec)}
    return described if weight.statistics is None else {**described, "statistics": asdict(weight.statistics.spec)}


def _to_half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.to("cpu", torch.float16, copy=True).contiguous()
    if not torch.isfinite(half).all():
        raise ValueError(f"{name} does not fit float16")
    return half
