"""What is settled before the first block is rounded: the transformed model, and the grids that were planned.

Both may have been learned, searched or drawn, and need not come out the same a second time: with other threads, sums
are rounded differently, and a search or a thousand steps of learning end elsewhere. They are stored exactly, in one
safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from src.lowbit.granularity import WeightSpec
from src.methods.base import Transformed
from src.quant.checkpoint import leftover_tensors
from src.quant.structure import Edit, apply_edit, read_edits, stored_edits

_METADATA_KEY = "begun"
_MODEL, _SCALE = "model:", "scale:"


@dataclass(frozen=True, eq=False)
class Begun:
    """What the method's transform and plan gave, beside the tensors of the model.

    Attributes:
        transformed: what the transform says it did.
        plan: grid of every linear's weight by path, ``None`` where it keeps 16 bits.
        edits: structural changes of the model, in order.
        expected_nats: what the plan foretells, if anything; see :class:`~src.methods.workbench.Workbench`.
    """

    transformed: Transformed
    plan: Mapping[str, WeightSpec | None]
    edits: tuple[Edit, ...]
    expected_nats: float | None = None


def save_begun(path: Path, begun: Begun, module: nn.Module, *, transforms: bool) -> None:
    """Writes ``begun``, and the tensors of ``module`` in the type they have where the method ``transforms`` it."""
    tensors = {_SCALE + name: scale for name, scale in begun.transformed.scales.items()}
    if transforms:
        tensors |= {_MODEL + name: tensor for name, tensor in leftover_tensors(module, ()).items()}
    described = {
        "acted": begun.transformed.acted,
        "notes": dict(begun.transformed.notes),
        "plan": {name: None if spec is None else asdict(spec) for name, spec in begun.plan.items()},
        "edits": stored_edits(begun.edits),
        "expected_nats": begun.expected_nats,
    }
    save_file(_apart(tensors), path, metadata={_METADATA_KEY: json.dumps(described)})


def load_begun(path: Path, module: nn.Module) -> Begun:
    """Reads what :func:`save_begun` wrote, and makes the original ``module`` the transformed one."""
    with safe_open(path, framework="pt") as file:
        described: dict[str, Any] = json.loads(file.metadata()[_METADATA_KEY])
        edits = read_edits(described["edits"])
        for edit in edits:
            apply_edit(module, edit)
        own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        like, scales = next(module.parameters()), {}
        with torch.no_grad():
            for name in file.keys():  # noqa: SIM118  not a mapping
                kind, _, rest = name.partition(":")
                if f"{kind}:" == _MODEL:
                    own[rest].copy_(file.get_tensor(name))
                else:
                    scales[rest] = file.get_tensor(name).to(like.device)
    plan = {name: None if spec is None else WeightSpec(**spec) for name, spec in described["plan"].items()}
    transformed = Transformed(described["acted"], described["notes"], scales)
    return Begun(transformed, plan, edits, described["expected_nats"])


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, none sharing memory with another, as safetensors demands."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().to("cpu").contiguous()
        found[name] = own.clone() if own.untyped_storage().data_ptr() in seen else own
        seen.add(own.untyped_storage().data_ptr())
    return found
