"""Encoder and decoder as ONNX graphs that run in onnxruntime alone, with a generate loop beside them.

The folder holds ``encoder.onnx`` and ``decoder.onnx`` (``onnx_FAMILY.py`` beside this module and
:mod:`src.export.onnx_decoder` tell inputs and outputs), ``generate.py``
(:mod:`src.export.onnx_generate`) with what it needs to know in ``generate.json``, and the tokenizer.
:mod:`src.export.onnx_linear` tells the forms of the weights, :mod:`src.export.onnx_cross` those of the encoder's
keys and values.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from src.export.base import Exportable, Runtime
from src.lowbit.granularity import WeightSpec
from src.models.graph import Linear
from src.models.loading import load_config
from src.quant.extras import Extra
from src.settings import FULL_PRECISION, ModelSettings, OnnxExport
from src.storage.store import write_json

_FLOAT = 1  # MatMulNBits's accuracy_level of float32 products
_BLOCK = 16  # groups have to be made of blocks of so many columns
_FOLDED = frozenset({Extra.BIASES, Extra.ORDER, Extra.REAL_ZEROS, Extra.SPARSE, Extra.DENSE})


class Onnx(Runtime):
    """See the module docstring; ``weights`` is the form."""

    name = "onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnx",)
    holds_ends: ClassVar[frozenset[str]] = frozenset({"head_bits"})

    def __init__(self, chosen: OnnxExport) -> None:
        super().__init__(chosen)
        self._accuracy_level = chosen.accuracy_level or _FLOAT
        self.cross_cache = chosen.cross_cache or "float32"

    @property
    def holds(self) -> frozenset[Extra]:
        """A dense weight holds whatever it was dequantized from; MatMulNBits also takes real zero points."""
        held = {"codes": {Extra.BIASES, Extra.ORDER, Extra.REAL_ZEROS}, "int8_dynamic": {Extra.BIASES}}
        return frozenset(held[self.weights]) if self.weights in held else _FOLDED

    @property
    def holds_floats(self) -> bool:
        """Only as float32 weights."""
        return self.weights == "float32"

    @property
    def abits(self) -> frozenset[int]:
        """The integer graph rounds its inputs, the others do not."""
        return frozenset(range(2, 9) if self.weights == "int8_dynamic" else {FULL_PRECISION})

    @classmethod
    def lacks(cls, model: ModelSettings) -> str | None:
        """What the graphs do not express; no published checkpoint has any of it."""
        graphs = _graphs(model.family)
        if graphs is None:
            return f"has no graphs of {model.family} models"
        if not graphs.is_usual(load_config(model)):
            return f"knows {model.family} with its published activations, heads and positions only"
        return None

    def check_linear(self, linear: Linear, spec: WeightSpec | None) -> None:
        """Blocks of columns for MatMulNBits, one scale per channel for MatMulInteger; see the base."""
        if spec is None:
            return
        columns = spec.columns_per_group(linear.in_features)
        if self.weights == "codes" and columns % _BLOCK:
            problem = f"has blocks of {_BLOCK} or 32 columns, of which {columns} in {linear.path} are no multiple"
            raise self.refuse(problem, "Use group_size=32, or export.weights=float32")
        if self.weights == "int8_dynamic" and columns != linear.in_features:
            problem = f"has one scale per output channel in integer products, and groups of {columns} would need more"
            raise self.refuse(problem, "Use group_size=-1, or export.weights=codes with abits=16")

    def read_bytes(self, weight: Linear, spec: WeightSpec | None) -> int:
        """Codes with their float32 scales and zero points, else as the base."""
        if spec is None or self.weights == "float32":
            return super().read_bytes(weight, spec)
        from src.export.onnx_codes import blocked_bytes

        return blocked_bytes(weight.out_features, weight.in_features, spec)

    def cross_bytes(self, heads: int, head_dim: int, frames: int) -> int | None:
        from src.export.onnx_cross import CROSSES

        return CROSSES[self.cross_cache].read_bytes(heads, head_dim, frames)

    def write(self, model: Exportable, folder: Path) -> list[str]:
        import onnx

        from src.export import onnx_generate
        from src.export.onnx_linear import OnnxForm

        graphs = _graphs(model.settings.family)
        assert graphs is not None, "refused before"
        form = OnnxForm(str(self.weights), self._accuracy_level, self.cross_cache)
        onnx.save(graphs.encoder(model, form), str(folder / "encoder.onnx"))
        onnx.save(graphs.decoder(model, form), str(folder / "decoder.onnx"))
        (folder / "generate.py").write_bytes(Path(onnx_generate.__file__).read_bytes())
        write_json(folder / "generate.json", _told(model))
        model.copy_processors(folder)
        return []


def _graphs(family: str) -> ModuleType | None:
    """The family's module beside this one, with ``encoder``, ``decoder`` and ``is_usual``; None where there is none."""
    name = f"{__package__}.onnx_{family}"
    return import_module(name) if find_spec(name) else None


def _told(model: Exportable) -> dict[str, Any]:
    speech = model.speech
    told: dict[str, Any] = {
        "family": model.settings.family,
        "prompt": list(speech.prompt),
        "eos": speech.eos,
        "suppress": model.suppressed(first_step=False),
        "suppress_first": model.suppressed(first_step=True),
        "sampling_rate": speech.sampling_rate,
        "truncate": model.truncate,
        "by_clip": model.by_clip,
        "times": None if speech.time_tokens is None else asdict(speech.time_tokens),
    }
    return {**told, **speech.limits()}
