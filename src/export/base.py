"""What a runtime's exporter is, and how it says no: a reason and the nearest thing that can be exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.models.files import CONFIG, GENERATION, settings_files
from src.models.graph import Linear, ModelGraph
from src.models.loading import load, load_config, load_graph
from src.models.source import checkpoint_folder
from src.quant.checkpoint import StoredModel
from src.quant.extras import Extra
from src.settings import FULL_PRECISION, ExportSettings, ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from src.models.speech import SpeechModel

_FLOAT_BYTES = 4


@dataclass(frozen=True, eq=False)
class Exportable:
    """A stored quantized model, the width of its linears' inputs, and the recogniser it belongs to.

    What else evaluate was told: whether the checkpoint's suppressed tokens are never written, whether audio beyond the
    window is left out, whether clips that half of it holds are heard in half of it, and the type it computed in.
    """

    settings: ModelSettings
    stored: StoredModel
    abits: int
    seed: int
    suppress: bool = True
    truncate: bool = False
    by_clip: bool = False
    dtype: str = "float32"

    @cached_property
    def config(self) -> PreTrainedConfig:
        return load_config(self.settings)

    @cached_property
    def graph(self) -> ModelGraph:
        return load_graph(self.settings)

    @cached_property
    def speech(self) -> SpeechModel:
        """The recogniser at full precision: what it knows beside its weights."""
        return load(self.settings, "cpu", self.seed)

    @property
    def head(self) -> str:
        """Path of the module whose weights are the head's: the embedding, unless the model has one of its own."""
        own, stored = self.graph.head, self.stored
        return own if own in stored.weights or f"{own}.weight" in stored.leftovers else self.graph.embedding

    def suppressed(self, *, first_step: bool) -> list[int]:
        """Token ids that are never written, as evaluate was told."""
        return self.speech.suppressed(first_step=first_step).tolist() if self.suppress else []

    def copy_processors(self, folder: Path) -> None:
        """Copies tokenizer and feature extractor of the checkpoint; random weights have none."""
        source = checkpoint_folder(self.settings)
        for file in [] if source is None else settings_files(source):
            if file.name not in (CONFIG, GENERATION):
                (folder / file.name).write_bytes(file.read_bytes())


class Runtime(ABC):
    """Writes files for one runtime.

    Attributes:
        name: as in ``conf/export``.
        packages: what has to be importable to write the files.
        holds_ends: settings of the ends' bits that it can hold codes of, of ``head_bits`` and ``frontend_bits``.
        holds: what its files can hold beside codes on integer grids.
        abits: widths of activations it can hold, 16 for not quantized.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    holds_ends: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, chosen: ExportSettings) -> None:
        self.weights = chosen.weights

    @property
    def holds(self) -> frozenset[Extra]:
        return frozenset()

    @property
    def abits(self) -> frozenset[int]:
        return frozenset({FULL_PRECISION})

    @property
    def holds_floats(self) -> bool:
        """Whether a model without any quantized weight can be written."""
        return False

    @classmethod
    @abstractmethod
    def lacks(cls, model: ModelSettings) -> str | None:
        """Why its files can hold no model of this architecture, in words that follow its name; None where they can."""

    def check_linear(self, linear: Linear, spec: WeightSpec | None) -> None:  # noqa: B027 - some leave it empty
        """Checks that one weight on this grid (None: at 16 bits) can be written without rounding it again.

        Raises:
            UserError: it cannot.
        """

    def read_bytes(self, weight: Linear, spec: WeightSpec | None) -> int:  # noqa: ARG002 - others store less than floats
        """Bytes that the runtime reads of ``weight`` for one product: as float32 unless a subclass knows better."""
        return _FLOAT_BYTES * weight.out_features * weight.in_features

    def cross_bytes(self, heads: int, head_dim: int, frames: int) -> int | None:  # noqa: ARG002 - likewise
        """Bytes of one block's keys and values of the encoder's frames; None where they are kept like all others."""
        return None

    @abstractmethod
    def write(self, model: Exportable, folder: Path) -> list[str]:
        """Writes the files into ``folder``; returns, in words, everything that differs from the quantized model."""

    def refuse(self, reason: str, nearest: str) -> UserError:
        """The error that says why not, and what is possible instead."""
        return UserError("export", f"{self.name} {reason}", nearest)
