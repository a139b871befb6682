"""Whether a checkpoint holds the weights of the module that its config.json describes, and numbers in them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from src.models.files import wrong

_log = logging.getLogger(__name__)
_REMEDY = "Give the folder of a complete checkpoint; the result would be another model's"
_WRAPPERS = ("_orig_mod.", "module.")  # of torch.compile and of data parallelism
_NAMED = 5  # most names in a sentence

Shape = tuple[int, ...]


def check_shapes(source: str, module: PreTrainedModel, found: Mapping[str, Shape]) -> None:
    """Before anything is read: whether tensors of these shapes, where there are some, are those of ``module``.

    Raises:
        UserError: some are missing, too many, or of another shape.
    """
    if not found:
        return
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    prefix = f"{module.base_model_prefix}."  # may be left out
    ours = {name if name in wanted else f"{prefix}{name.removeprefix(prefix)}": name for name in found}
    there = set(ours)
    for pair in module.all_tied_weights_keys.items():  # of which one is enough
        there |= set(pair) if there & set(pair) else set()
    other = [(name, found[ours[name]], wanted[name]) for name in ours.keys() & wanted.keys()]
    _check_names(
        source,
        module,
        missing=wanted.keys() - there,
        unknown={ours[name] for name in ours.keys() - wanted.keys()},
        other=[each for each in other if each[1] != each[2]],
    )


def check_loaded(source: str, module: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Whether ``module`` got all its weights, and they are numbers, by transformers' own ``report`` of loading it.

    They have to be numbers in float16 too, in which whatever is not quantized is stored.

    Raises:
        UserError: as :func:`check_shapes`, or a weight is not finite.
    """
    unknown = report["unexpected_keys"]
    _check_names(source, module, report["missing_keys"], unknown, report["mismatched_keys"])
    if unknown:
        _log.warning("%s also holds what is no part of the model and not read: %s", source, ", ".join(sorted(unknown)))
    empty = []
    for name, weight in module.named_parameters():
        if not torch.isfinite(weight.half()).all():
            count = int((~torch.isfinite(weight)).sum())
            what = f"{count} of {weight.numel()} values NaN or infinite" if count else "values too large for float16"
            raise wrong(
                f"{source!r} has in {name} {what}", "Give a checkpoint that was saved whole, and before it diverged"
            )
        if weight.dim() > 1 and not weight.any():
            empty.append(name)
    if empty:
        _log.warning("%s: all weights are zero in %s", source, ", ".join(empty))


def _check_names(
    source: str,
    module: PreTrainedModel,
    missing: Collection[str],
    unknown: Collection[str],
    other: Collection[tuple[str, Shape, Shape]],
) -> None:
    """Nothing missing, of another shape, or inside the module and unknown to it. Raises UserError."""
    parts = {name for each in (module, module.base_model) for name, _ in each.named_children()}
    inside = [name for name in unknown if name.split(".")[0] in parts or "lora_" in name]
    shapes = [f"{name} {list(found)}, not {list(wanted)}" for name, found, wanted in other]
    wrapper = next((each for each in _WRAPPERS for name in unknown if name.startswith(each)), None)
    saved = f"Its names begin with {wrapper!r}, as of a wrapped model: save the model inside (`model.{wrapper}"
    remedy = f"{saved}save_pretrained(folder)`)" if wrapper else _REMEDY
    for problem, names in (
        ("lacks {} weights", missing),
        ("has {} weights of another shape than config.json says", shapes),
        ("has {} weights that the model of its config.json does not have", inside),
    ):
        if names:
            shown = ", ".join(sorted(names)[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
            raise wrong(f"{source!r} {problem.format(len(names))} ({shown})", remedy)
