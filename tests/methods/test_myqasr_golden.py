"""Bits of every layer against those of the myQASR authors' code on the same sensitivities and sizes (golden/*.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from src.methods.parts.bit_budget import allocate

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden/samsunglabs_myqasr.json").read_text())[
    "cases"
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['order']}-{case['target_bytes']}")
def test_every_layer_gets_the_bits_that_the_authors_give_it(case: dict[str, Any]) -> None:
    """They start at 32 bits and so pass 8 bits everywhere, where we start."""
    sensitivity = case["sensitivities"]
    sizes = {str(layer): {bits: count * bits // 8 for bits in range(2, 9)} for layer, count in enumerate(case["sizes"])}
    largest_first = case["order"] == "uniform_reverse"
    order = sorted(sizes, key=lambda layer: sensitivity[int(layer)], reverse=largest_first)
    bits = allocate(order, sizes, case["target_bytes"])
    assert [bits[layer] for layer in sizes] == case["bits"]
