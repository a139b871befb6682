"""What a device could do at best, phase by phase: the roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009).

A phase takes as long as its bytes at the device's bandwidth or its operations at the device's rates, whichever is
longer, as if the one hid behind the other perfectly. Bytes are those of :mod:`src.profiling.memory_io` (weights and
caches, no activations), operations two per multiply-accumulate of :mod:`src.profiling.bitops`; norms, soft-max,
dequantization and feature extraction are free. So times are lower bounds and speeds upper bounds. What a runtime
reaches of them has to be measured.

A product runs in the narrowest arithmetic of the device that holds both operands: integers where both have 8 bits or
fewer, else floating point, so weights of 4 bits with activations of 16 save bytes and no operations. Products of
different arithmetic run one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from src.profiling.bitops import Product, products
from src.profiling.cost_model import CostModel
from src.profiling.memory_io import memory_io_phases
from src.profiling.passes import Phase
from src.settings import EdgeDeviceSettings
from src.settings.groups import Arithmetic

_WIDTHS: Final[dict[Arithmetic, int]] = {"int4": 4, "int8": 8, "float16": 16, "float32": 32}  # from narrow to wide
_GIGA: Final = 1e9
_MS: Final = 1e3


@dataclass(frozen=True)
class PhaseTime:
    """Lower bound for one phase, in milliseconds, and what it is bound by.

    Attributes:
        memory_ms: its bytes over the bandwidth.
        compute_ms: its operations over the rates.
        ms: the larger one.
        bound: which that is.
    """

    memory_ms: float
    compute_ms: float
    ms: float
    bound: Literal["memory", "compute"]


@dataclass(frozen=True)
class Roofline:
    """An estimate for one device.

    Attributes:
        device: its name in ``conf/edge_device``.
        phases: by phase name.
        ms: all phases.
        token_ms: one decode step, on average; None where there is none.
        tokens_per_second: decode steps a second, of all utterances of the batch together; None where there is none.
        rtf: real-time factor, seconds of computing per second of audio; below 1 is faster than speech.
        notes: in words, which products run in a wider arithmetic than their operands need, as the device has no other.
    """

    device: str
    phases: dict[str, PhaseTime]
    ms: float
    token_ms: float | None
    tokens_per_second: float | None
    rtf: float
    notes: tuple[str, ...]


def roofline(point: CostModel, device: EdgeDeviceSettings) -> Roofline | None:
    """The estimate for ``device``; None where it is ``none``."""
    if device.bandwidth_gb_s is None:
        return None
    parts, moved, work = products(point), memory_io_phases(point), point.workload
    compute = dict.fromkeys(moved, 0.0)
    for product in parts:
        rate = device.gops[arithmetic(product, device)]
        compute[product.phase.value] += _MS * 2 * product.macs / (rate * _GIGA)
    phases = {
        phase: _phase_time(_MS * size / (device.bandwidth_gb_s * _GIGA), compute[phase])
        for phase, size in moved.items()
    }
    ms = sum(phase.ms for phase in phases.values())
    token_ms = phases[Phase.DECODE.value].ms / work.tokens if work.tokens else None
    return Roofline(
        device=device.name,
        phases=phases,
        ms=ms,
        token_ms=token_ms,
        tokens_per_second=_MS * work.batch / token_ms if token_ms else None,
        rtf=ms / _MS / (work.batch * work.seconds),
        notes=_notes(parts, device),
    )


def arithmetic(product: Product, device: EdgeDeviceSettings) -> Arithmetic:
    """Name of the arithmetic that ``product`` runs in on ``device``: the narrowest it has that is wide enough."""
    return next(name for name in _holding(product) if name in device.gops)


def _holding(product: Product) -> tuple[Arithmetic, ...]:
    """Arithmetics that hold both operands, the narrowest first."""
    width = max(product.left_bits, product.right_bits)
    return tuple(name for name, bits in _WIDTHS.items() if bits >= width)


def _phase_time(memory_ms: float, compute_ms: float) -> PhaseTime:
    bound: Literal["memory", "compute"] = "memory" if memory_ms >= compute_ms else "compute"
    return PhaseTime(memory_ms, compute_ms, max(memory_ms, compute_ms), bound)


def _notes(parts: Iterable[Product], device: EdgeDeviceSettings) -> tuple[str, ...]:
    wider = {
        (max(product.left_bits, product.right_bits), _holding(product)[0], arithmetic(product, device))
        for product in parts
    }
    return tuple(
        f"{width}-bit products run in {used}: {device.name} states no rate for {wanted}"
        for width, wanted, used in sorted(wider)
        if wanted != used
    )
