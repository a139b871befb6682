"""What tests ask of a family: small models with random weights, which the module with its name declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.models.families import family_of
from src.models.speech import SpeechModel
from src.settings import ModelSettings


@dataclass(frozen=True)
class Counted:
    """A model of which all parameters, and all products for a clip of so many ``seconds``, are counted."""

    build: Callable[[], SpeechModel]
    seconds: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """What the contract tests run on.

    Attributes:
        build: a model whose weights follow from ``seed``, of the sizes that methods find hardest.
        checkpoint: saves a model in a folder as transformers has it, with its processors, and returns that.
        counted: by name.
        shapes: by name, models of sizes that methods treat differently.
        heads: by name, more of them with heads of other widths, which are hard for rotations.
        bits: of conf/bits, at which every method is tried.
        looks_at_values: whether masks depend on them, so that it does not run on torch's meta device.
    """

    build: Callable[..., SpeechModel]
    checkpoint: Callable[[Path], Path]
    counted: Mapping[str, Counted]
    shapes: Mapping[str, Callable[[], SpeechModel]]
    heads: Mapping[str, Callable[[], SpeechModel]] = field(default_factory=dict)
    bits: tuple[str, ...] = ("w4a8",)  # rounds weights and inputs
    looks_at_values: bool = False


def model_settings(source: Path | str, family: str = "whisper", **changes: Any) -> ModelSettings:
    """Settings of a checkpoint at ``source``; ``changes`` are fields of theirs."""
    fields = {"name": "tiny", "family": family, "source": str(source), "revision": None, "random_weights": False}
    return ModelSettings(**{**fields, "language": None, "architecture": {}, **changes})


def build_random(config: Any, seed: int) -> Any:
    """Weights and norms are made larger than an initialisation, so that layers matter and argmax is not a tie."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = family_of(config.model_type).module.from_config
        module = build(config, attn_implementation="sdpa", dtype=torch.float32)
        with torch.no_grad():
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm1d):
                    norm.running_mean.normal_(0, 0.3)
                    norm.running_var.uniform_(0.5, 2)
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def prepared(config: Any, seed: int) -> Any:
    """As :func:`build_random`, with the parts that the family gives methods."""
    module = build_random(config, seed)
    family_of(config.model_type).prepare(module)
    return module
