"""What makes an export impossible, found before anything is quantized where settings and method tell, else right after.

Every refusal is a :class:`~src.errors.UserError` with the reason and the nearest thing that can be exported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from src.errors import UserError
from src.export.base import Runtime
from src.export.build import RUNTIMES
from src.lowbit.granularity import WeightSpec
from src.methods.base import Method
from src.models.graph import ModelGraph
from src.quant.checkpoint import StoredModel
from src.quant.extras import Extra, extras_of_edits, extras_of_weight
from src.settings import FULL_PRECISION, ModelSettings, Settings

NEAREST = {
    Extra.ROTATIONS: "Use a method whose transforms fold into the weights, e.g. method=gptq or method=awq_gptq",
    Extra.BIASES: "Use a method that does not shift, e.g. method=smoothquant, or method.shift=false",
    Extra.SPARSE: "Use a method without outliers, e.g. method=gptq, or export=onnx export.weights=float32",
    Extra.DENSE: "Use a method without outliers, e.g. method=gptq, or export=onnx export.weights=float32",
    Extra.REAL_ZEROS: "Use a method with integer zero points, e.g. method=rtn_mse, or export=onnx",
    Extra.ORDER: "Use method.static_groups=true, which keeps the benefit of the order, or group_size=-1",
}


def check_packages(runtime: Runtime) -> None:
    """Checks that what writes the files is installed.

    Raises:
        UserError: it is not.
    """
    missing = [package for package in runtime.packages if find_spec(package) is None]
    if missing:
        names = " and ".join(missing)
        raise UserError("export", f"{runtime.name} needs {names}", "Install them with `pip install -e '.[export]'`")


def check_model(runtime: Runtime, model: ModelSettings) -> None:
    """Whether the runtime's files can hold a model of this architecture, however it is quantized.

    Raises:
        UserError: they can not.
    """
    if reason := runtime.lacks(model):
        others = [name for name, each in RUNTIMES.items() if each.lacks(model) is None]
        nearest = f"Use export={others[0]}" if others else "Use export=none; no runtime holds such a model yet"
        raise runtime.refuse(reason, nearest)


def check_settings(runtime: Runtime, settings: Settings, method: Method) -> None:
    """What can be refused before anything is quantized, from bits and method alone.

    Raises:
        UserError: the runtime's files cannot hold it.
    """
    if settings.abits not in runtime.abits:
        grid = "static ranges" if settings.static_inputs else "a grid for every token"
        raise runtime.refuse(f"cannot hold activations of {settings.abits} bits on {grid}", _offer(runtime.abits))
    if settings.abits != FULL_PRECISION and settings.static_inputs:
        raise runtime.refuse("cannot hold static ranges of activations", "Use activation.range=token")
    if settings.abits != FULL_PRECISION and settings.activation.symmetric:
        raise runtime.refuse("cannot hold symmetric grids of activations", "Use activation.symmetric=false")
    if settings.kvbits != FULL_PRECISION:
        raise runtime.refuse(f"cannot hold a key-value cache of {settings.kvbits} bits", "Use kvbits=16")
    for name, part in (("head_bits", "embedding and head"), ("frontend_bits", "front-end")):
        if getattr(settings, name) != FULL_PRECISION and name not in runtime.holds_ends:
            raise runtime.refuse(f"cannot hold codes of the {part}", f"Use {name}={FULL_PRECISION}")
    scattered = {Extra.ORDER} if settings.group_size == -1 else frozenset[Extra]()
    _check_extras(runtime, method.needs.stores - scattered, f"{method.name} leaves")


def check_plan(runtime: Runtime, graph: ModelGraph, plan: Mapping[str, WeightSpec | None]) -> None:
    """The planned grids, before anything is quantized.

    Raises:
        UserError: no weight is to be quantized, or as :meth:`Runtime.check_linear`.
    """
    if not any(plan.values()) and not runtime.holds_floats:
        nearest = "Use a method and wbits below 16; the original checkpoint is the full-precision model"
        raise runtime.refuse("holds quantized weights, and none would be quantized", nearest)
    for linear in graph.linears:
        runtime.check_linear(linear, plan[linear.path])


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
        runtime.check_linear(linear, weight.spec if weight else None)


def _check_extras(runtime: Runtime, extras: frozenset[Extra], who: str) -> None:
    for extra in Extra:  # the gravest first
        if extra in extras - runtime.holds:
            raise runtime.refuse(f"cannot hold what {who}: {extra}", NEAREST[extra])


def _offer(widths: frozenset[int]) -> str:
    integers = "" if len(widths) > 1 else ", or export=onnx export.weights=int8_dynamic for up to 8 bits"
    return f"Use abits={max(widths)}{integers}"
