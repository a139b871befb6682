"""What a runtime's exporter is, and how it says no: a reason and the nearest thing that can be exported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from src.errors import UserError
from src.models.graph import Linear, ModelGraph
from src.models.loading import load, load_config, load_graph
from src.models.source import CHECKPOINT_FILES, checkpoint_folder
from src.quant.checkpoint import StoredModel
from src.quant.extras import Extra, extras_of_edits, extras_of_weight
from src.quant.granularity import QuantizedWeight, WeightSpec
from src.settings import FULL_PRECISION, ExportSettings, ModelSettings, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from src.methods.base import Method
    from src.models.speech import SpeechModel

NEAREST = {
    Extra.ROTATIONS: "Use a method whose transforms fold into the weights, e.g. method=gptq or method=awq_gptq",
    Extra.BIASES: "Use a method that does not shift, e.g. method=smoothquant, or method.shift=false",
    Extra.SPARSE: "Use a method without outliers, e.g. method=gptq",
    Extra.DENSE: "Use a method without outliers, e.g. method=gptq",
    Extra.REAL_ZEROS: "Use a method with integer zero points, e.g. method=rtn_mse or method=gptq",
    Extra.ORDER: "Use method.static_groups=true, which keeps the benefit of the order, or group_size=-1",
}


@dataclass(frozen=True, eq=False)
class Exportable:
    """A stored quantized model, the width of its linears' inputs, and the recogniser it belongs to."""

    settings: ModelSettings
    stored: StoredModel
    abits: int
    seed: int

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The transformers configuration."""
        return load_config(self.settings)

    @cached_property
    def graph(self) -> ModelGraph:
        """The declared structure."""
        return load_graph(self.settings)

    @cached_property
    def speech(self) -> SpeechModel:
        """The recogniser at full precision: what it knows beside its weights."""
        return load(self.settings, "cpu", self.seed)

    def tensor(self, name: str) -> Tensor:
        """A parameter as the quantized model has it, float32: ``<linear>.weight`` dequantized, others as stored.

        Raises:
            KeyError: there is none of this name.
        """
        path, _, part = name.rpartition(".")
        if part == "weight" and path in self.stored.weights:
            return self.stored.weights[path].dequantize()
        return self.stored.leftovers[name].float()

    def copy_processors(self, folder: Path) -> None:
        """Copies tokenizer, feature extractor and generation settings of the checkpoint; random weights have none."""
        source = checkpoint_folder(self.settings)
        for pattern in () if source is None else CHECKPOINT_FILES:
            if pattern != "config.json" and not pattern.startswith("model"):
                for file in source.glob(pattern) if source else ():
                    (folder / file.name).write_bytes(file.read_bytes())


class Runtime(ABC):
    """Writes files for one runtime.

    Attributes:
        name: as in ``conf/export``.
        packages: what has to be importable to write the files.
        holds: what its files can hold beside codes on integer grids.
        abits: widths of activations it can hold, 16 for not quantized.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, chosen: ExportSettings) -> None:
        self.weights = chosen.weights

    @property
    def holds(self) -> frozenset[Extra]:
        """See the class."""
        return frozenset()

    @property
    def abits(self) -> frozenset[int]:
        """See the class."""
        return frozenset({FULL_PRECISION})

    @property
    def holds_floats(self) -> bool:
        """Whether a model without any quantized weight can be written."""
        return False

    @abstractmethod
    def check_weight(self, linear: Linear, spec: WeightSpec, weight: QuantizedWeight | None) -> None:
        """Checks that one weight can be written without rounding it again; before quantizing, without ``weight``.

        Raises:
            UserError: it cannot.
        """

    @abstractmethod
    def write(self, model: Exportable, folder: Path) -> list[str]:
        """Writes the files into ``folder``; returns, in words, everything that differs from the quantized model."""

    def refuse(self, reason: str, nearest: str) -> UserError:
        """The error that says why not, and what is possible instead."""
        return UserError("export", f"{self.name} {reason}", nearest)


def check_packages(runtime: Runtime) -> None:
    """Checks that what writes the files is installed.

    Raises:
        UserError: it is not.
    """
    missing = [package for package in runtime.packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise UserError("export", f"{runtime.name} needs {names}", "Install them with `pip install -e '.[export]'`")


def check_settings(runtime: Runtime, settings: Settings, method: Method) -> None:
    """What can be refused before anything is quantized, from bits and method alone.

    Raises:
        UserError: the runtime's files cannot hold it.
    """
    if settings.abits not in runtime.abits:
        raise runtime.refuse(f"cannot hold activations of {settings.abits} bits{_form(runtime)}", _offer(runtime.abits))
    if settings.abits != FULL_PRECISION and settings.static_inputs:
        raise runtime.refuse("cannot hold static ranges of activations", "Use activation.range=token")
    if settings.abits != FULL_PRECISION and settings.activation.symmetric:
        raise runtime.refuse("cannot hold symmetric grids of activations", "Use activation.symmetric=false")
    if settings.kvbits != FULL_PRECISION:
        raise runtime.refuse(f"cannot hold a key-value cache of {settings.kvbits} bits", "Use kvbits=16")
    scattered = {Extra.ORDER} if settings.group_size == -1 else frozenset[Extra]()
    _check_extras(runtime, method.stores - scattered, f"{method.name} leaves")


def check_plan(runtime: Runtime, graph: ModelGraph, plan: Mapping[str, WeightSpec | None]) -> None:
    """The planned grids, before anything is quantized.

    Raises:
        UserError: no weight is to be quantized, or as :meth:`Runtime.check_weight`.
    """
    if not any(plan.values()) and not runtime.holds_floats:
        nearest = "Use a method and wbits below 16; the original checkpoint is the full-precision model"
        raise runtime.refuse("holds quantized weights, and none would be quantized", nearest)
    for linear in graph.linears:
        spec = plan[linear.path]
        if spec is not None:
            runtime.check_weight(linear, spec, None)


def check_stored(runtime: Runtime, graph: ModelGraph, stored: StoredModel) -> None:
    """The quantized model as it came out: structural changes, outliers, zero points, each weight's own grid.

    Raises:
        UserError: the runtime's files cannot hold it.
    """
    _check_extras(runtime, extras_of_edits(stored.edits), "the quantized model has")
    for linear in graph.linears:
        weight = stored.weights.get(linear.path)
        if weight is not None:
            _check_extras(runtime, extras_of_weight(weight), f"{linear.path} has")
            runtime.check_weight(linear, weight.spec, weight)


def _check_extras(runtime: Runtime, extras: frozenset[Extra], who: str) -> None:
    for extra in sorted(extras - runtime.holds):
        raise runtime.refuse(f"cannot hold what {who}: {extra}", NEAREST[extra])


def _form(runtime: Runtime) -> str:
    return f" with weights as {runtime.weights}"


def _offer(widths: frozenset[int]) -> str:
    integers = "" if len(widths) > 1 else ", or export=onnx export.weights=int8_dynamic for up to 8 bits"
    return f"Use abits={max(widths)}{integers}"
