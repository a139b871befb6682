"""The full-precision baseline: nothing is quantized."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from src.methods.base import Method


@dataclass(frozen=True)
class FullPrecision(Method):
    """Leaves the model as it is; every other method is compared with it."""

    quantizes = False
