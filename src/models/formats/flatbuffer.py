"""The tables of a FlatBuffer, as far as files of onnxruntime need it: https://flatbuffers.dev/internals.

A table begins with the distance back to its field offsets; what is no number lies where an offset leads, and vectors
begin with their length. Whatever leads out of the buffer is a ValueError or a :class:`struct.error`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """The table at ``at`` of ``data``, uint8 [bytes]; fields are told by their number in the schema, from 0."""

    data: np.ndarray
    at: int

    @classmethod
    def root(cls, data: np.ndarray) -> Table:
        return cls(data, _number(data, 0, "I"))

    def number(self, field: int, kind: str = "i") -> int:
        """A number, of a type of :mod:`struct`; 0 where it is left out, as the schemas' default."""
        at = self._field(field)
        return _number(self.data, at, kind) if at else 0

    def text(self, field: int) -> str:
        """A string; empty where there is none."""
        return bytes(self.octets(field)).decode()

    def texts(self, field: int) -> list[str]:
        return [bytes(self._octets(at)).decode() for at in self._leads(field)]

    def table(self, field: int) -> Table | None:
        at = self._field(field)
        return Table(self.data, at + _number(self.data, at, "I")) if at else None

    def tables(self, field: int) -> list[Table]:
        return [Table(self.data, at) for at in self._leads(field)]

    def octets(self, field: int, size: int = 1) -> np.ndarray:
        """The bytes of a vector whose elements have ``size`` each, uint8."""
        at = self._field(field)
        return self._octets(at + _number(self.data, at, "I"), size) if at else self.data[:0]

    def _field(self, field: int) -> int:
        """Where a field lies; 0 where there is none."""
        offsets = self.at - _number(self.data, self.at, "i")
        place = 4 + 2 * field
        relative = _number(self.data, offsets + place, "H") if place < _number(self.data, offsets, "H") else 0
        return self.at + relative if relative else 0

    def _octets(self, at: int, size: int = 1) -> np.ndarray:
        end = at + 4 + _number(self.data, at, "I") * size
        if end > len(self.data):
            raise ValueError(f"{len(self.data)} bytes of at least {end}")
        return self.data[at + 4 : end]

    def _leads(self, field: int) -> list[int]:
        at = self._field(field)
        if not at:
            return []
        at += _number(self.data, at, "I")
        offsets = self._octets(at, 4).view("<u4")
        return [at + 4 + 4 * i + int(offset) for i, offset in enumerate(offsets)]


def _number(data: np.ndarray, at: int, kind: str) -> int:
    size = struct.calcsize(f"<{kind}")
    if not 0 <= at <= len(data) - size:
        raise ValueError(f"{len(data)} bytes, and an offset to {at}")
    return int(struct.unpack_from(f"<{kind}", data.data, at)[0])
