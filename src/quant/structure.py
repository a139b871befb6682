"""Changes to a model's structure that function-preserving transforms need, as data that is stored with the weights.

A transform that only rescales parameters needs none of this. Rotations and shifts do: LayerNorms become RMS norms,
modules get biases they never had, tensors are rotated on the fly where no weight can absorb the rotation. Each change
is an ``Edit``; :func:`apply_edit` makes it while quantizing and again when the stored model is loaded. What an
edit adds (biases, rotation factors) are parameters and buffers of the module, stored like all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor, nn

from src.quant.linear import rotate_input
from src.quant.rotation import Rotation


@dataclass(frozen=True)
class BiasEdit:
    """The linear or norm at ``path`` gets a bias of zeros where it has none."""

    path: str
    kind: Literal["bias"] = "bias"


@dataclass(frozen=True)
class RMSNormEdit:
    """The LayerNorm at ``path`` stops subtracting the mean (:class:`RMSNorm`); its weight and bias stay."""

    path: str
    kind: Literal["rms_norm"] = "rms_norm"


RotationKind = Literal["rotate_linear", "rotate_module", "rotate_output", "rotate_keys"]


@dataclass(frozen=True)
class RotationEdit:
    """A tensor is rotated, or multiplied by any other matrix, on the fly (:class:`~src.quant.rotation.Rotation`).

    Attributes:
        kind: ``rotate_linear``: the linear at ``path`` rotates its input before anything else. ``rotate_module``: any
            other module (a block, a norm) does so with its first argument; this is where a rotation enters and leaves
            the residual stream. ``rotate_output``: a norm does so with its output, once for all linears that read it.
            ``rotate_keys``: a quantized key-value cache rounds the keys of every head in a rotated basis.
        path: module path; empty for ``rotate_keys``, which is about the whole model.
        right: side of the rotation's right factor.
        left: side of its left factor.
        right_is_identity: whether the right factor is not stored.
        left_is_identity: whether the left factor is not stored.
    """

    kind: RotationKind
    path: str
    right: int
    left: int = 1
    right_is_identity: bool = False
    left_is_identity: bool = True


Edit = BiasEdit | RMSNormEdit | RotationEdit
_EDITS = TypeAdapter(tuple[Annotated[Edit, Field(discriminator="kind")], ...])


def stored_edits(edits: Iterable[Edit]) -> list[dict[str, Any]]:
    """Edits as plain data."""
    return [asdict(edit) for edit in edits]


def read_edits(stored: Iterable[Mapping[str, Any]]) -> tuple[Edit, ...]:
    """What :func:`stored_edits` was made of. Raises ValueError where it was not."""
    return _EDITS.validate_python(stored)


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight + bias``: what a LayerNorm computes where the mean of ``x`` is zero."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of ``x`` [..., d]."""
        normed = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight
        return normed if self.bias is None else normed + self.bias


def rotation_edit(kind: RotationKind, path: str, right: Tensor | int, left: Tensor | int = 1) -> RotationEdit:
    """The edit that :func:`apply_edit` needs for the rotation ``left (x) right``; a factor's size means identity."""
    size, slices = (factor if isinstance(factor, int) else factor.shape[0] for factor in (right, left))
    return RotationEdit(kind, path, size, slices, isinstance(right, int), isinstance(left, int))


def apply_edit(module: nn.Module, edit: Edit, right: Tensor | None = None, left: Tensor | None = None) -> None:
    """Makes one change in place. Without ``right`` (and ``left``) a rotation is the identity until it is loaded.

    Raises:
        ValueError: the module at the path is not of a kind this edit applies to.
    """
    target = module.get_submodule(edit.path)
    match edit:
        case BiasEdit():
            _add_bias(target)
        case RMSNormEdit():
            if not isinstance(target, nn.LayerNorm):
                raise ValueError(f"{edit.path} is a {type(target).__name__}, not a LayerNorm")
            module.set_submodule(edit.path, RMSNorm(target))
        case RotationEdit():
            _rotate(module, target, edit, _rotation(edit, next(module.parameters()), right, left))


def _rotate(module: nn.Module, target: nn.Module, edit: RotationEdit, rotation: Rotation) -> None:
    match edit.kind:
        case "rotate_linear":
            rotate_input(module, edit.path, rotation)
        case "rotate_keys":
            target.key_rotation = rotation
        case "rotate_module":
            target.input_rotation = rotation
            target.register_forward_pre_hook(_rotate_first_argument)
        case "rotate_output":
            target.output_rotation = rotation
            target.register_forward_hook(_rotate_result)


def _add_bias(target: nn.Module) -> None:
    if not isinstance(target, nn.Linear | nn.LayerNorm | RMSNorm):
        raise ValueError(f"a {type(target).__name__} cannot have a bias")
    if getattr(target, "bias", None) is None:
        size = target.weight.shape[0]
        target.bias = nn.Parameter(target.weight.new_zeros(size), requires_grad=False)


def key_rotation(module: nn.Module) -> Rotation | None:
    """What a quantized key-value cache of this model rotates keys with before it rounds them, if anything."""
    rotation = getattr(module, "key_rotation", None)
    return rotation if isinstance(rotation, Rotation) else None


def _rotation(edit: RotationEdit, like: Tensor, right: Tensor | None, left: Tensor | None) -> Rotation:
    return Rotation(
        _factor(edit.right, edit.right_is_identity, like, right), _factor(edit.left, edit.left_is_identity, like, left)
    )


def _factor(size: int, identity: bool, like: Tensor, given: Tensor | None) -> Tensor | int:
    if identity:
        return size
    factor = torch.eye(size) if given is None else given
    return factor.to(like, copy=True).contiguous()  # as it comes from the disk, and not shared with another edit


def _rotate_first_argument(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.get_submodule("input_rotation")(arguments[0]), *arguments[1:])


def _rotate_result(module: nn.Module, _: tuple[Tensor, ...], result: Tensor) -> Tensor:
    rotated: Tensor = module.get_submodule("output_rotation")(result)
    return rotated
