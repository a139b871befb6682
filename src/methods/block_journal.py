"""What a quantization has finished, so that a run that was killed goes on from there and ends with the same model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from src.lowbit.granularity import QuantizedWeight
from src.methods.begun import Begun, load_begun, save_begun
from src.models.graph import Block
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.inputs import InputGrid
from src.quant.structure import Edit
from src.storage.digest import sha256_file
from src.storage.journal import Journal, make_file, program
from src.storage.store import PROGRESS_SUFFIX

log = logging.getLogger(__name__)

_BEGIN: Final = "begin"
_TUNED: Final = "tuned"


class BlockJournal:
    """A safetensors file each in ``folder`` for what precedes the blocks and for every block, in the order they came.

    A :class:`~src.storage.journal.Journal` holds their checksums and the layer tables. What follows a damaged file was
    made from what that held, and is made again with it. All is computed with as many threads as the first run had: how
    many there are decides in which order sums are taken, and so their last digits.

    Args:
        folder: where the files are.
        basis: plain data that what is made depends on, beside the program; see :class:`~src.storage.journal.Journal`.
    """

    def __init__(self, folder: Path, basis: Mapping[str, Any] | None = None) -> None:
        self._folder = folder
        self._journal = Journal(folder / f"blocks{PROGRESS_SUFFIX}", {**program(), **(basis or {})})
        self._held: dict[str, dict[str, Any]] = {}
        for count, line in enumerate(self._journal.values):
            file = self._file(line["name"])
            if not file.is_file() or sha256_file(file) != line["sha256"]:
                log.warning("resume file %s is absent or damaged: it and what followed is made again", file)
                self._journal.keep(count)
                break
            self._held[line["name"]] = line

    @property
    def finished(self) -> int | None:
        """How many blocks are finished; None where nothing is, not even what precedes them."""
        return len(self._held.keys() - {_BEGIN, _TUNED}) if self._held else None

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Inside, torch computes with as many threads as in the run that began."""
        present = torch.get_num_threads()
        begun = self._held.get(_BEGIN, {}).get("threads", present)
        if begun != present:
            log.info("quantize: going on with as many threads as it was begun with: %d instead of %d", begun, present)
            torch.set_num_threads(begun)
        try:
            yield
        finally:
            torch.set_num_threads(present)

    def begin(self, begun: Begun, module: nn.Module, *, transforms: bool) -> None:
        """Keeps what precedes the blocks; see :func:`~src.methods.begun.save_begun`."""
        make_file(self._file(_BEGIN))
        save_begun(self._file(_BEGIN), begun, module, transforms=transforms)
        self._write(_BEGIN, {"threads": torch.get_num_threads()})

    def begun(self, module: nn.Module) -> Begun | None:
        """What preceded the blocks, if an earlier run came so far; makes the original ``module`` the transformed one.

        What it returns is as :meth:`begin` was given it.
        """
        return load_begun(self._file(_BEGIN), module) if _BEGIN in self._held else None

    def holds(self, block: Block) -> bool:
        return block.path in self._held

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
        make_file(self.file(block))
        save_weights(
            self.file(block),
            {path: weight for path, weight in weights.items() if path in paths},
            {name: tensor for name, tensor in leftovers.items() if name.startswith(f"{block.path}.")},
            edits,
            {path: grid for path, grid in inputs.items() if path in paths},
        )
        self._write(block.path, {"rows": [row for row in rows if row["linear"] in paths]})

    def rows(self, block: Block) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._held[block.path]["rows"]
        return rows

    def file(self, block: Block) -> Path:
        return self._file(block.path)

    def tuned(self) -> dict[str, Tensor]:
        """What was kept last by :meth:`keep_tuned`; nothing where nothing was."""
        return load_file(self._file(_TUNED)) if _TUNED in self._held else {}

    def keep_tuned(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes ``tensors`` in the place of those kept before."""
        if _TUNED in self._held:  # its checksum goes first: a file without one is made again, not taken for damaged
            self._journal.keep(len(self._journal.values) - 1)
        make_file(self._file(_TUNED))
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, self._file(_TUNED))
        self._write(_TUNED, {})

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors{PROGRESS_SUFFIX}"

    def _write(self, name: str, about: Mapping[str, Any]) -> None:
        """Tells of the file of that name, once that is on the disk."""
        with self._file(name).open("rb") as file:
            os.fsync(file.fileno())
        self._journal.append({"name": name, "sha256": sha256_file(self._file(name)), **about})
        self._held[name] = self._journal.values[-1]
