"""Finished blocks of a model that is being quantized, so that a run that was killed goes on from the last of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from src.digest import sha256_file
from src.models.graph import Block
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.granularity import QuantizedWeight
from src.quant.inputs import InputGrid
from src.quant.structure import Edit
from src.store import PROGRESS_SUFFIX, write_json


@dataclass(frozen=True)
class BlockJournal:
    """Two files a block in ``folder``: a checkpoint of the block, and its layer table, written when that is whole."""

    folder: Path

    def holds(self, block: Block) -> bool:
        """Whether the block was finished, and its checkpoint is intact."""
        table = self._table(block)
        if not table.exists() or not self.file(block).exists():
            return False
        return bool(json.loads(table.read_text(encoding="utf-8"))["sha256"] == sha256_file(self.file(block)))

    def keep(
        self,
        block: Block,
        module: nn.Module,
        weights: Mapping[str, QuantizedWeight],
        edits: Sequence[Edit],
        inputs: Mapping[str, InputGrid],
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """Writes what was made of ``block``, with the ``edits`` made for it alone.

        The other arguments are of the whole model, as far as it is done. Parameters that are not quantized are stored
        as in any checkpoint, in float16, which is what they were rounded to.
        """
        paths = {linear.path for linear in block.linears}
        leftovers = leftover_tensors(module, weights)
        save_weights(
            self.file(block),
            {path: weight for path, weight in weights.items() if path in paths},
            {name: tensor for name, tensor in leftovers.items() if name.startswith(f"{block.path}.")},
            edits,
            {path: grid for path, grid in inputs.items() if path in paths},
        )
        own = [row for row in rows if row["linear"] in paths]
        write_json(self._table(block), {"sha256": sha256_file(self.file(block)), "rows": own})

    def rows(self, block: Block) -> list[dict[str, Any]]:
        """The rows of the layer table of a block that it holds."""
        rows: list[dict[str, Any]] = json.loads(self._table(block).read_text(encoding="utf-8"))["rows"]
        return rows

    def file(self, block: Block) -> Path:
        """The checkpoint of a block."""
        return self.folder / f"{block.path}.safetensors{PROGRESS_SUFFIX}"

    def _table(self, block: Block) -> Path:
        return self.folder / f"{block.path}.json{PROGRESS_SUFFIX}"
