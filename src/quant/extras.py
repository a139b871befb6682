"""What a quantized model may hold beside codes, scales and integer zero points, which not every file format can."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from src.lowbit.granularity import QuantizedWeight
from src.quant.structure import BiasEdit, Edit


class Extra(StrEnum):
    """One kind of addition; the value says it in words."""

    ROTATIONS = "rotations of activations while the model runs"
    BIASES = "biases that the architecture does not have"
    SPARSE = "single weights at 16 bits"
    DENSE = "whole input columns at 16 bits"
    REAL_ZEROS = "zero points between two codes"
    ORDER = "groups of columns that do not lie side by side"


def extras_of_weight(weight: QuantizedWeight) -> frozenset[Extra]:
    """What one weight holds. A column order counts where it scatters groups; one group has no order."""
    found = {
        Extra.SPARSE: weight.sparse is not None,
        Extra.DENSE: weight.dense is not None,
        Extra.REAL_ZEROS: weight.zero.is_floating_point(),
        Extra.ORDER: weight.perm is not None and weight.scale.shape[1] > 1,
    }
    return frozenset(extra for extra, present in found.items() if present)


def extras_of_edits(edits: Iterable[Edit]) -> frozenset[Extra]:
    """What structural changes need. RMS norms come with rotations, and only with them."""
    return frozenset(Extra.BIASES if isinstance(edit, BiasEdit) else Extra.ROTATIONS for edit in edits)
