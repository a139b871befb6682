"""What a method is given that tunes the whole quantized model, once all of it is rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from src.lowbit.granularity import QuantizedWeight
from src.models.speech import SpeechModel


@dataclass(frozen=True, eq=False)
class Tuning:
    """See the module.

    Attributes:
        teacher: the model at full precision, as the method's transform left it.
        weights: quantized weights by module path; the model holds what they stand for.
        kept: tensors by name that an earlier run kept last; none where there was none.
        keep: keeps tensors by name for a run that has to go on from here.
    """

    teacher: SpeechModel
    weights: Mapping[str, QuantizedWeight]
    kept: Mapping[str, Tensor]
    keep: Callable[[Mapping[str, Tensor]], None]
