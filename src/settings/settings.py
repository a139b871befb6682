"""Typed, frozen settings of one point, checked before anything heavy is loaded.

Hydra composes plain dictionaries; :func:`from_config` turns one into a :class:`Settings` or raises a
:class:`~src.errors.UserError` that names field, value and remedy. The defaults live in ``conf/``, not here, so that
``--cfg job`` shows every value a run depends on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, ValidationInfo

from src.errors import UserError, of_choices
from src.settings.groups import (
    BLOCKS,
    TORCH,
    ActivationSettings,
    CacheSettings,
    CalibSettings,
    DatasetSettings,
    EdgeDeviceSettings,
    EvaluateSettings,
    ExportSettings,
    Frozen,
    GgmlExport,
    Integer,
    ModelSettings,
    NoExport,
    OnnxExport,
    ProfileSettings,
    ScopeSettings,
    SweepSettings,
    TrackingSettings,
    checked_name,
)
from src.settings.wandb_variables import obeyed
from src.storage.redaction import without_secrets
from src.storage.secret_patterns import REFERENCE
from src.text.languages import ENGLISH

STAGES = ("calibrate", "quantize", "evaluate", "profile")
BIT_WIDTHS = ("wbits", "abits", "kvbits", "head_bits", "frontend_bits")
FULL_PRECISION = 16


def _bit_width(bits: int) -> int:
    if bits != FULL_PRECISION and not 2 <= bits <= 8:
        raise ValueError("bit-widths are 2 to 8, or 16 for 'not quantized'")
    return bits


def _group_size(size: int) -> int:
    if size != -1 and size < 1:
        raise ValueError("group sizes are positive, or -1 for one group per output channel")
    return size


def checked_folder(path: str) -> str:
    """``path``, whose name is one and tells no secret. Raises ValueError."""
    if not path.strip():
        raise ValueError("an empty name would be the working directory")
    if REFERENCE in path or without_secrets(path) != path:
        raise ValueError("a key or token would become part of the name of a folder")
    return path


def _named(method: dict[str, Any]) -> dict[str, Any]:
    for field in ("name", "_target_"):
        if not isinstance(method.get(field), str):
            raise ValueError(f"it has no {field}")
    checked_name(method["name"])
    return method


def _on_device(dtype: str, info: ValidationInfo) -> str:
    if dtype == "float16" and not str(info.data.get("device")).startswith("cuda"):
        raise ValueError("float16 is for CUDA devices")
    return dtype


Bits = Annotated[Integer, AfterValidator(_bit_width)]


class Settings(Frozen):
    """Everything one point (model x method x bit-config x dataset) depends on."""

    model: ModelSettings
    method: Annotated[dict[str, Any], AfterValidator(_named)]
    wbits: Bits
    abits: Bits
    kvbits: Bits
    head_bits: Bits
    frontend_bits: Bits
    ends: Annotated[dict[str, Any], AfterValidator(_named)] | None
    group_size: Annotated[Integer, AfterValidator(_group_size)]
    symmetric: bool
    bias_correction: bool
    activation: ActivationSettings
    cache: CacheSettings
    scope: ScopeSettings
    dataset: DatasetSettings
    on_bad_audio: Literal["fail", "skip"]
    calib: CalibSettings
    evaluate: EvaluateSettings
    profile: ProfileSettings
    edge_device: EdgeDeviceSettings
    export: ExportSettings
    tracking: TrackingSettings
    sweep: SweepSettings
    seed: Annotated[Integer, Field(ge=0, lt=2**63)]
    device: str
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], AfterValidator(_on_device)]
    stages: tuple[Literal["calibrate", "quantize", "evaluate", "profile"], ...]
    output_dir: Annotated[str, AfterValidator(checked_folder)]

    @property
    def method_name(self) -> str:
        """Name of the method's yaml: ``fp``, ``rtn``, ``gptq`` ..."""
        return str(self.method["name"])

    @property
    def static_inputs(self) -> bool:
        """Whether activations are rounded to ranges that calibration data has to tell."""
        return self.abits != FULL_PRECISION and self.activation.range == "static"

    @property
    def corrects_biases(self) -> bool:
        """Whether biases make up for mean errors of weights, of which calibration data has to tell."""
        return self.bias_correction and self.wbits != FULL_PRECISION

    @property
    def key_group(self) -> int | None:
        """Tokens that share a grid per channel of the cached keys; None where keys are 16 bits or rounded per token."""
        return self.cache.group if self.kvbits != FULL_PRECISION and self.cache.keys == "channel" else None

    @property
    def runtime_name(self) -> str:
        """What evaluate decodes in: ``torch``, or another runtime and the form of its files."""
        runtime, files = self.evaluate.runtime, self.export
        if runtime == TORCH or not isinstance(files, OnnxExport | GgmlExport):
            return runtime
        return f"{runtime} {files.form}"

    @property
    def bits_name(self) -> str:
        """Bit-config in the field's shorthand, e.g. ``w4a16``, ``w4a8kv4``, with the group size where there is one.

        Told behind the bits: other grids than the default ones (``w4syma16``, ``w4a8symstatic``, ``w4a16kv4c32``), head
        and front-end (``w4a16h8f8``, ``w4a16h4gptq`` by another rounder than rtn, ``w16a16h8sym`` with symmetric grids
        where blocks have none) and, where not every linear of the blocks is in scope, which are: ``w4a16-encoder``;
        last, ``bc`` where biases are corrected.
        """
        group = f"g{self.group_size}" if self.group_size > 0 else ""
        kv = f"kv{self.kvbits}" if self.kvbits != FULL_PRECISION else ""
        channel = f"c{self.key_group}" if self.key_group is not None else ""
        grid = ("sym" if self.activation.symmetric else "") + ("static" if self.static_inputs else "")
        inputs = f"a{self.abits}{grid if self.abits != FULL_PRECISION else ''}"
        ends = {"h": self.head_bits, "f": self.frontend_bits}
        ends_name = "".join(f"{end}{bits}" for end, bits in ends.items() if bits != FULL_PRECISION)
        ends_name += "" if self.ends is None or self.ends["name"] == "rtn" else self.ends["name"]
        symmetric = "sym" if self.symmetric else ""
        weights = f"{self.wbits}{symmetric}" if self.wbits != FULL_PRECISION else f"{self.wbits}"
        ends_name += symmetric if ends_name and self.wbits == FULL_PRECISION else ""
        whole = self.scope == BLOCKS or self.wbits == self.abits == FULL_PRECISION
        scope = "" if whole else "".join(f"-{name}" for name, included in self.scope if included)
        corrected = "bc" if self.corrects_biases else ""
        return f"w{weights}{inputs}{kv}{channel}{ends_name}{group}{scope}{corrected}"


_REMEDIES = {
    "stages": f"Choose from {', '.join(STAGES)}, e.g. stages=[evaluate,profile]",
    "dtype": "Use dtype=float32 or dtype=bfloat16; on a CUDA device dtype=float16 too",
    "device": "Use device=cpu, device=cuda or device=cuda:0",
    "export": "Leave it to a yaml of conf/export, e.g. export=onnx or export=none",
    "edge_device": "Choose a yaml of conf/edge_device, e.g. edge_device=raspberry_pi_5, or edge_device=none",
    "profile": "Choose of torch, onnx_float32, onnx and whisper_cpp, e.g. profile.runtimes=[torch,onnx]",
    "output_dir": "Choose a folder, e.g. output_dir=outputs",
    "method": "Choose a yaml of conf/method, e.g. method=gptq",
    "ends": "Choose a yaml of conf/method, e.g. method@ends=gptq",
    "group_size": "Use group_size=-1 or a size that divides every layer's input, e.g. group_size=32",
    **dict.fromkeys(BIT_WIDTHS, "Use one of 2, 3, 4, 5, 6, 7, 8, or 16 for 'not quantized'"),
}


def _to_user_error(error: ValidationError) -> UserError:
    """The first of pydantic's findings, in the form every other user error has."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str)]  # without positions in lists
    if first["type"].startswith("union_tag"):
        runtime = first["input"].get("runtime")
        return UserError("export.runtime", f"{runtime!r} is no runtime", "Choose a yaml of conf/export: export=onnx")
    if names[0] == "export" and len(names) > 2:
        del names[1]  # which of the runtimes
    field, top = ".".join(names), names[0]
    if first["type"] == "extra_forbidden":
        return UserError(field, "no such setting", "Remove it; `--cfg job` lists every setting")
    if first["type"] == "missing":
        return UserError(field, "no value is set", f"Add {field}=... to the command line or its yaml")
    message = first["msg"].removeprefix("Value error, ")
    remedy = _REMEDIES.get(top)
    if first["type"] == "literal_error" and top != "dtype":  # which of them there are depends on the device
        remedy = of_choices(first["input"], first["ctx"]["expected"]) or remedy
    if names[-1] == "name":
        remedy = f"Choose another, e.g. {field}=my_{top}"
    found = first["input"].get("name") if isinstance(first["input"], dict) else first["input"]
    return UserError(field, f"{found!r} is not valid ({message})", remedy or f"See `--cfg job` for {field}")


def _canonical(settings: Settings) -> Settings:
    """Points that are the same have one name and one key: what is told in two ways is told in one."""
    told = settings.model_copy(update={"tracking": obeyed(settings.tracking)})
    return _with_exports(_with_runtime(_without_idle_grids(_without_idle_bits(_with_languages(told)))))


def _with_languages(settings: Settings) -> Settings:
    """The languages of references that are not told: what the model writes, which is English where that is not told.

    Raises:
        UserError: the references are English, and the model is told to write another language.
    """
    dataset, calib, written = settings.dataset, settings.calib, settings.model.language
    language = dataset.language or written or ENGLISH
    if language == ENGLISH != (written or ENGLISH):
        problem = f"{dataset.name} is in {language}, but the model writes {written!r} (model.language)"
        remedy = f"Set dataset.language={written} if its references are, for they are not scored by rules for English"
        raise UserError("dataset.language", problem, remedy)
    of_calib = calib.dataset.model_copy(update={"language": calib.dataset.language or language})
    return settings.model_copy(
        update={
            "dataset": dataset.model_copy(update={"language": language}),
            "calib": calib.model_copy(update={"dataset": of_calib}),
        }
    )


def _with_runtime(settings: Settings) -> Settings:
    """The export that evaluate decodes with, where none is chosen: what ``profile.runtimes`` times of that runtime.

    Raises:
        UserError: another one is chosen.
    """
    runtime = settings.evaluate.runtime
    if runtime == TORCH:
        return settings
    files: OnnxExport | GgmlExport = getattr(settings.profile, runtime)
    if isinstance(settings.export, NoExport):
        return settings.model_copy(update={"export": files})
    if not isinstance(settings.export, type(files)):
        problem = f"{runtime} runs what export={files.runtime} writes, not export={settings.export.runtime}"
        raise UserError("evaluate.runtime", problem, f"Use export={files.runtime}, or evaluate.runtime={TORCH}")
    return settings


def _with_exports(settings: Settings) -> Settings:
    """What ``export.weights=auto`` stands for."""
    widths = (settings.wbits, settings.abits, settings.head_bits, settings.frontend_bits)
    quantized = settings.method_name != "fp" and min(widths) < FULL_PRECISION
    export, onnx = (
        each.resolved(settings.abits, quantized=quantized) if isinstance(each, OnnxExport) else each
        for each in (settings.export, settings.profile.onnx)
    )
    profile = settings.profile.model_copy(update={"onnx": onnx})
    return settings.model_copy(update={"export": export, "profile": profile})


def _without_idle_bits(settings: Settings) -> Settings:
    """No block in scope is told as blocks at 16 bits."""
    blocks = any(included for _, included in settings.scope)
    if blocks or settings.head_bits == settings.frontend_bits == FULL_PRECISION:
        return settings
    return settings.model_copy(update={"wbits": FULL_PRECISION, "abits": FULL_PRECISION, "scope": BLOCKS})


def _without_idle_grids(settings: Settings) -> Settings:
    """Where no weight is quantized, nothing has the grids that are set for weights; so it is with rounders of ends."""
    if settings.head_bits == settings.frontend_bits == FULL_PRECISION:
        settings = settings.model_copy(update={"ends": None})
    if min(settings.wbits, settings.head_bits, settings.frontend_bits) < FULL_PRECISION:
        return settings
    return settings.model_copy(update={"symmetric": False, "group_size": -1, "bias_correction": False})


def from_config(config: dict[str, Any]) -> Settings:
    """Checks a composed configuration and freezes it.

    Raises:
        UserError: a field is missing, unknown or out of range, or a variable of W&B's cannot be obeyed.
    """
    known = {key: value for key, value in config.items() if key != "experiment"}
    try:
        return _canonical(Settings.model_validate(known))
    except ValidationError as error:
        raise _to_user_error(error) from None
