"""What a method works with: the model, its calibration data, and what it may change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from src.calib.capture import Calibration
from src.calib.statistics import measure
from src.lowbit.granularity import WeightSpec
from src.models.graph import ModelGraph
from src.models.speech import SpeechModel
from src.quant.link_statistics import LinkStatistics
from src.quant.structure import Edit, apply_edit


@dataclass(frozen=True)
class Taken:
    """What the reference utterance (``profile``) takes: bytes moved, and bit operations."""

    memory_io_bytes: int
    bops: int


# With a model so changed, and weights by path on such grids, of so many bytes; all others have 16 bits.
ReferenceCost = Callable[[Sequence[Edit], Mapping[str, tuple[WeightSpec, int]]], Taken]


@dataclass
class Workbench:
    """The model under quantization, and everything a method may ask about it.

    Attributes:
        speech: the recogniser; its module is changed in place.
        plan: grid of every linear's weight by path, ``None`` where it keeps 16 bits.
        abits: bits of every linear's input by path.
        kvbits: bits of the key-value cache.
        calibration: clips and teacher tokens; ``None`` where the method declared that it uses none.
        seed: of everything a method draws.
        fp_statistics: ``fp_statistics(gram)``, those of the model as it came, where they are at hand; None once it
            has been transformed.
        edits: structural changes made so far, in order; stored with the weights.
        reference: what the reference utterance takes; None where the method does not need it.
        ends: grids of what is rounded of embedding, head and front-end, by path; :meth:`Method.plan` may change them.
        expected_nats: nats a token that rounding should cost, where :meth:`Method.plan` foretells it.
    """

    speech: SpeechModel
    plan: dict[str, WeightSpec | None]
    abits: Mapping[str, int]
    kvbits: int
    calibration: Calibration | None
    seed: int
    fp_statistics: Callable[[bool], Mapping[str, LinkStatistics]] | None = None
    edits: list[Edit] = field(default_factory=list)
    ends: dict[str, WeightSpec] = field(default_factory=dict)
    reference: ReferenceCost | None = None
    expected_nats: float | None = None

    @property
    def graph(self) -> ModelGraph:
        """The model's declared structure."""
        return self.speech.graph

    @property
    def module(self) -> nn.Module:
        module: nn.Module = self.speech.module
        return module

    def statistics(self, *, gram: bool) -> Mapping[str, LinkStatistics]:
        """Statistics by link name of every link's input in the model as it is now.

        A transform asks before it changes anything.

        Raises:
            ValueError: the method did not declare that it uses calibration data.
        """
        if self.fp_statistics is not None:
            return self.fp_statistics(gram)
        if self.calibration is None:
            raise ValueError("this method has no calibration data; let it need clips")
        return measure(self.speech, self.calibration, gram=gram)

    def edit(self, edit: Edit, right: Tensor | None = None, left: Tensor | None = None) -> None:
        """Makes a structural change and remembers it. See :func:`src.quant.structure.apply_edit`."""
        apply_edit(self.module, edit, right, left)
        self.edits.append(edit)
