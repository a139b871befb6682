"""In which memory of a device what lies, and the bytes that move there.

The rule: things are taken in the order of bytes moved per byte held, the highest first (of equals the one that is used
first), and each goes as a whole into the nearest memory that has room for it. Caches, which are written, do not go into
flash, and the farthest other memory keeps room for those still to come.

Of a weight that every pass of the decoder reads that is the number of passes, of the cross-attention's cache one more
(it is written), of the encoder's weights 1, and of an embedding that is not the head less than that.

A thing is a weight, the vectors of a component (biases and norms), a table, or a layer's cache: what
:class:`~src.profiling.memory_io.Move` names. A cache of the hardware's counts as a memory that holds the same things
throughout, hence as what it can save at most. What fits nowhere is counted in the farthest memory.

Activations take no room: the machine of :mod:`src.profiling.memory_io` has memory for those of a pass on the chip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, get_args

from src.profiling.cost_model import CostModel
from src.profiling.memory_io import KV_CACHE, moves
from src.settings.groups import MemoryTier, Tier

_NEAREST_FIRST: Final[tuple[Tier, ...]] = get_args(Tier)
_READ_ONLY: Final[Tier] = "flash"
_MEGA: Final = 1_000_000


@dataclass
class Thing:
    """What is held somewhere.

    Attributes:
        what: its name.
        held: bytes.
        moved: bytes in all phases, by part (:attr:`~src.profiling.memory_io.Move.part`): of a tied embedding two.
    """

    what: str
    held: int = 0
    moved: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes moved."""
        return sum(self.moved.values())

    @property
    def is_cache(self) -> bool:
        return KV_CACHE in self.moved


@dataclass(frozen=True)
class TierUse:
    """What one memory holds, and what moves there.

    Attributes:
        capacity_bytes: of the device.
        held_bytes: of all things in it.
        moved_bytes: of them, in all phases.
        moved_breakdown: the same by component name and ``kv_cache``.
    """

    capacity_bytes: int
    held_bytes: int
    moved_bytes: int
    moved_breakdown: dict[str, int]


def tier_uses(point: CostModel, memory: Mapping[Tier, MemoryTier]) -> dict[Tier, TierUse]:
    """Each memory of the device, the nearest first; what is moved in all of them is the utterance's memory I/O."""
    return {tier: _use(memory[tier], held) for tier, held in placed(point, memory).items()}


def placed(point: CostModel, memory: Mapping[Tier, MemoryTier]) -> dict[Tier, list[Thing]]:
    """What is held in each memory, in the order in which it went there."""
    tiers = [tier for tier in _NEAREST_FIRST if tier in memory]
    written = [tier for tier in tiers if tier != _READ_ONLY]
    everything = sorted(things(point), key=lambda each: Fraction(-each.total, each.held))
    found: dict[Tier, list[Thing]] = {tier: [] for tier in tiers}
    room = {tier: _capacity(memory[tier]) for tier in tiers}
    room[written[-1]] -= sum(thing.held for thing in everything if thing.is_cache)
    for thing in everything:
        if thing.is_cache:
            room[written[-1]] += thing.held
        allowed = written if thing.is_cache else tiers
        tier = next((tier for tier in allowed if thing.held <= room[tier]), allowed[-1])
        found[tier].append(thing)
        room[tier] -= thing.held
    return found


def things(point: CostModel) -> list[Thing]:
    """Everything that is held somewhere, in the order of its first use."""
    found: dict[str, Thing] = {}
    for move in moves(point):
        thing = found.setdefault(move.what, Thing(move.what))
        thing.held = max(thing.held, move.held)
        thing.moved[move.part] = thing.moved.get(move.part, 0) + move.size
    return [thing for thing in found.values() if thing.held]


def _use(memory: MemoryTier, held: Iterable[Thing]) -> TierUse:
    moved: dict[str, int] = {}
    size = 0
    for thing in held:
        size += thing.held
        for part, bytes_moved in thing.moved.items():
            moved[part] = moved.get(part, 0) + bytes_moved
    return TierUse(_capacity(memory), size, sum(moved.values()), moved)


def _capacity(memory: MemoryTier) -> int:
    return round(memory.capacity_mb * _MEGA)
