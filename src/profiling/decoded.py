"""Average costs of the utterances that evaluate decoded: each at its own length, with the tokens that were written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from src.data.audio import SAMPLING_RATE
from src.data.transcripts import Transcript
from src.profiling.bitops import by_component, by_phase, products
from src.profiling.cost_model import CostModel, Workload
from src.profiling.memory_io import bytes_by_part, bytes_by_phase, moves


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one utterance or batch: bytes moved, multiply-accumulates and bit operations, each by component and by phase.

    :mod:`src.profiling.memory_io` and :mod:`src.profiling.bitops` tell what is counted.
    """

    memory_io_bytes: float
    memory_io_breakdown: dict[str, float]
    memory_io_phases: dict[str, float]
    macs: float
    macs_breakdown: dict[str, float]
    macs_phases: dict[str, float]
    bops: float
    bops_breakdown: dict[str, float]
    bops_phases: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DecodedCost(Costs):
    """Means over utterances, each decoded alone and greedily (batch 1, one hypothesis).

    Attributes:
        utterances: that are averaged.
        left_out: utterances longer than the model's window: in how many passes they were decoded is not recorded.
        seconds: mean length.
        steps: mean decode steps: the tokens, one step less where the cap ended the transcript; none without a decoder.
    """

    utterances: int
    left_out: int
    seconds: float
    steps: float


def average(point: CostModel, transcripts: Iterable[Transcript]) -> DecodedCost | None:
    """Means over ``transcripts`` of what ``point`` costs at their lengths; None where none fits the window."""
    found = list(transcripts)
    fitting = [each for each in found if each.long_form is None]
    if not fitting:
        return None
    shortest = point.dimensions.shortest / SAMPLING_RATE
    steps = [each.tokens - each.capped if point.graph.decoder else 0 for each in fitting]
    # Equal lengths cost the same: with Whisper, which fills its window, only the number of tokens counts.
    workloads = Counter(
        (point.dimensions.heard_seconds(max(each.seconds, shortest)), taken)
        for each, taken in zip(fitting, steps, strict=True)
    )
    sums: dict[str, Counter[str]] = {}
    for (seconds, taken), count in workloads.items():
        workload = Workload(seconds, taken, point.workload.prompt)
        for name, parts in breakdowns(replace(point, workload=workload)).items():
            sums.setdefault(name, Counter()).update({part: count * cost for part, cost in parts.items()})
    means = {name: {part: cost / len(fitting) for part, cost in parts.items()} for name, parts in sums.items()}
    return DecodedCost(
        utterances=len(fitting),
        left_out=len(found) - len(fitting),
        seconds=sum(each.seconds for each in fitting) / len(fitting),
        steps=sum(steps) / len(fitting),
        **with_totals(means),
    )


def with_totals(parts: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Fields of :class:`Costs` from what :func:`breakdowns` tells."""
    totals = {"memory_io_bytes": "memory_io_phases", "macs": "macs_phases", "bops": "bops_phases"}
    return {**parts, **{total: sum(parts[phases].values()) for total, phases in totals.items()}}


def breakdowns(point: CostModel) -> dict[str, dict[str, int]]:
    """Bytes, multiply-accumulates and bit operations of the reference utterance, by component and by phase."""
    parts, moved = products(point), moves(point)
    return {
        "memory_io_breakdown": bytes_by_part(moved),
        "memory_io_phases": bytes_by_phase(moved),
        "macs_breakdown": by_component(parts, attrgetter("macs")),
        "macs_phases": by_phase(parts, attrgetter("macs")),
        "bops_breakdown": by_component(parts, attrgetter("bops")),
        "bops_phases": by_phase(parts, attrgetter("bops")),
    }
