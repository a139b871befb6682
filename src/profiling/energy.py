"""The energy an utterance takes on a device: bytes by memory and products by arithmetic, times published figures.

Bytes and products are exact (:mod:`src.profiling.tiers`, :mod:`src.profiling.bitops`); the figures, picojoules a byte
and a multiply-accumulate, are those of the device's yaml with their sources, most of them of another chip. So a result
is an estimate, good for what dominates and for how points compare on one device, not for the life of a battery.

Counted are moves of weights and caches in the memory they lie in, activations on the chip (or in the nearest memory) at
their unfused upper bound, and multiply-accumulates in the arithmetic of :func:`src.profiling.roofline.arithmetic`. Not
counted: leakage and refresh while the utterance takes its time, instructions, copies from one memory to another as a
model is loaded, norms, soft-max, dequantization, feature extraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from src.profiling.bitops import products
from src.profiling.cost_model import CostModel
from src.profiling.memory_io import activation_bytes
from src.profiling.roofline import arithmetic
from src.profiling.tiers import TierUse, tier_uses
from src.settings import EdgeDeviceSettings
from src.settings.groups import Arithmetic, Tier

ACTIVATIONS: Final = "activations"
_PICO: Final = 1e-12
_HOUR: Final = 3600


@dataclass(frozen=True)
class Energy:
    """An estimate for one device.

    Attributes:
        device: its name in ``conf/edge_device``.
        joules: of one utterance of the batch.
        joules_an_hour: of an hour of such utterances, without pauses.
        breakdown: joules of one utterance by memory (``on_chip``, ``dram``, ``flash``; weights and caches), for
            activations, and by arithmetic (``int8`` ...).
        dominant: what takes the most of these.
        dominant_share: of it in all, 0 to 1.
        tiers: what lies in each memory and moves there, for the whole batch.
        macs: by arithmetic, likewise.
        notes: in words, what fits into no memory.
    """

    device: str
    joules: float
    joules_an_hour: float
    breakdown: dict[str, float]
    dominant: str
    dominant_share: float
    tiers: dict[Tier, TierUse]
    macs: dict[Arithmetic, int]
    notes: tuple[str, ...]


def energy(point: CostModel, device: EdgeDeviceSettings) -> Energy | None:
    """The estimate for ``device``; None where its yaml tells no energies."""
    if not device.memory:
        return None
    tiers, macs, work = tier_uses(point, device.memory), _macs(point, device), point.workload
    nearest = device.memory[next(iter(tiers))]
    picojoules: dict[str, float] = {
        **{tier: use.moved_bytes * device.memory[tier].pj_per_byte for tier, use in tiers.items()},
        ACTIVATIONS: activation_bytes(point) * nearest.pj_per_byte,
        **{name: count * device.pj_per_mac[name] for name, count in macs.items()},
    }
    breakdown = {name: _PICO * each / work.batch for name, each in picojoules.items()}
    joules = sum(breakdown.values())
    dominant = max(breakdown, key=breakdown.__getitem__)
    return Energy(
        device=device.name,
        joules=joules,
        joules_an_hour=joules * _HOUR / work.seconds,
        breakdown=breakdown,
        dominant=dominant,
        dominant_share=breakdown[dominant] / joules,
        tiers=tiers,
        macs=macs,
        notes=_notes(tiers, device),
    )


def _macs(point: CostModel, device: EdgeDeviceSettings) -> dict[Arithmetic, int]:
    found: dict[Arithmetic, int] = {}
    for product in products(point):
        name = arithmetic(product, device)
        found[name] = found.get(name, 0) + product.macs
    return found


def _notes(tiers: Mapping[Tier, TierUse], device: EdgeDeviceSettings) -> tuple[str, ...]:
    return tuple(
        f"{use.held_bytes / 1e6:.3g} MB are counted in {tier}, and {device.name} has {use.capacity_bytes / 1e6:g} MB"
        for tier, use in tiers.items()
        if use.held_bytes > use.capacity_bytes
    )
