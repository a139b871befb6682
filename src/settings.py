"""Typed, frozen settings of one point, checked before anything heavy is loaded.

Hydra composes plain dictionaries; :func:`from_config` turns one into a :class:`Settings` or raises a
:class:`~src.errors.UserError` that names field, value and remedy. The defaults live in ``conf/``, not here, so that
``--cfg job`` shows every value a run depends on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from src.errors import UserError, did_you_mean

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("calibrate", "quantize", "evaluate", "profile")
FULL_PRECISION = 16
NO_EXPORT = "none"
EXPORTED_WEIGHTS: dict[str, tuple[str | None, ...]] = {
    NO_EXPORT: (None,),
    "compressed_tensors": ("codes",),
    "onnx": ("codes", "int8_dynamic", "float32"),
    "ggml": ("auto", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"),
}


def _bit_width(bits: int) -> int:
    if bits != FULL_PRECISION and not 2 <= bits <= 8:
        raise ValueError("bit-widths are 2 to 8, or 16 for 'not quantized'")
    return bits


def _group_size(size: int) -> int:
    if size != -1 and size < 1:
        raise ValueError("group sizes are positive, or -1 for one group per output channel")
    return size


def _named(method: dict[str, Any]) -> dict[str, Any]:
    for field in ("name", "_target_"):
        if not isinstance(method.get(field), str):
            raise ValueError(f"it has no {field}")
    return method


Integer = Annotated[int, Field(strict=True)]  # neither true nor "4" nor 4.0
Count = Annotated[Integer, Field(ge=1)]
Bits = Annotated[Integer, AfterValidator(_bit_width)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelSettings(_Frozen):
    """Which recogniser, and where its weights come from.

    ``source`` is a hub id (``openai/whisper-tiny``) or a folder; relative folders are looked up from the working
    directory, then from the project's root. ``architecture`` holds the family's config fields, needed only to build
    the model with ``random_weights``.
    """

    name: str
    family: Literal["whisper", "moonshine"]
    source: str
    revision: str | None
    random_weights: bool
    language: str | None
    architecture: dict[str, Any]


class ScopeSettings(_Frozen):
    """Which linears are quantized; what is left out keeps 16 bits and is listed in the layer table."""

    encoder: bool
    decoder: bool
    cross_attention: bool


class ActivationSettings(_Frozen):
    """Grids of quantized activations: with a zero-point or without; one a token, or one a tensor from calibration."""

    symmetric: bool
    range: Literal["token", "static"]


class CacheSettings(_Frozen):
    """Grids of quantized keys: one a token and head, or one a channel and ``group`` tokens (KIVI, arXiv 2402.02750)."""

    keys: Literal["token", "channel"]
    group: Annotated[Integer, Field(ge=2)]


class DatasetSettings(_Frozen):
    """One test set in the Open ASR leaderboard's layout: on the hub or in a folder of the same layout."""

    name: str
    source: str
    revision: str | None
    config: str
    split: str
    root: str | None
    limit: Count | None


class CalibSettings(_Frozen):
    """Unlabelled calibration clips, and whether blocks see fp or already quantized predecessors."""

    dataset: DatasetSettings
    n: Count
    batch_size: Count
    propagate: Literal["quantized", "fp"]


class EvaluateSettings(_Frozen):
    """Greedy decoding and the bootstrap."""

    batch_size: Count
    suppress_tokens: bool
    bootstrap_samples: Annotated[Integer, Field(ge=100)]


class ProfileSettings(_Frozen):
    """The reference utterance whose cost is reported."""

    seconds: Annotated[float, Field(gt=0)]
    tokens: Count
    repeats: Count


class ExportSettings(_Frozen):
    """Files for another runtime: which, and in what form they hold the weights."""

    runtime: Literal["none", "compressed_tensors", "onnx", "ggml"]
    weights: str | None

    @field_validator("weights")
    @classmethod
    def _known(cls, weights: str | None, info: ValidationInfo) -> str | None:
        known = EXPORTED_WEIGHTS[info.data.get("runtime", NO_EXPORT)]
        if weights not in known:
            raise ValueError(f"this runtime knows {', '.join(map(str, known))}")
        return weights


class TrackingSettings(_Frozen):
    """Weights & Biases: where runs go, if anywhere."""

    mode: Literal["offline", "online", "none"]
    project: str
    entity: str | None
    group: str | None


class Settings(_Frozen):
    """Everything one point (model x method x bit-config x dataset) depends on."""

    model: ModelSettings
    method: Annotated[dict[str, Any], AfterValidator(_named)]
    wbits: Bits
    abits: Bits
    kvbits: Bits
    group_size: Annotated[Integer, AfterValidator(_group_size)]
    symmetric: bool
    activation: ActivationSettings
    cache: CacheSettings
    scope: ScopeSettings
    dataset: DatasetSettings
    calib: CalibSettings
    evaluate: EvaluateSettings
    profile: ProfileSettings
    export: ExportSettings
    tracking: TrackingSettings
    seed: Annotated[Integer, Field(ge=0, lt=2**63)]
    device: str
    stages: tuple[Literal["calibrate", "quantize", "evaluate", "profile"], ...]
    output_dir: str

    @property
    def method_name(self) -> str:
        """Name of the method's yaml: ``fp``, ``rtn``, ``gptq`` ..."""
        return str(self.method["name"])

    @property
    def static_inputs(self) -> bool:
        """Whether activations are rounded to ranges that calibration data has to tell."""
        return self.abits != FULL_PRECISION and self.activation.range == "static"

    @property
    def key_group(self) -> int | None:
        """Tokens that share a grid per channel of the cached keys; None where keys are 16 bits or rounded per token."""
        return self.cache.group if self.kvbits != FULL_PRECISION and self.cache.keys == "channel" else None

    @property
    def bits_name(self) -> str:
        """Bit-config in the field's shorthand, e.g. ``w4a16``, ``w4a8kv4``, with the group size where there is one.

        Other grids than the default ones are told behind the bits: ``w4a8symstatic``, ``w4a16kv4c32``.
        """
        group = f"g{self.group_size}" if self.group_size > 0 else ""
        kv = f"kv{self.kvbits}" if self.kvbits != FULL_PRECISION else ""
        channel = f"c{self.key_group}" if self.key_group is not None else ""
        grid = ("sym" if self.activation.symmetric else "") + ("static" if self.static_inputs else "")
        inputs = f"a{self.abits}{grid if self.abits != FULL_PRECISION else ''}"
        return f"w{self.wbits}{inputs}{kv}{channel}{group}"


_REMEDIES = {
    "stages": f"Choose from {', '.join(STAGES)}, e.g. stages=[evaluate,profile]",
    "device": "Use device=cpu, device=cuda or device=cuda:0",
    "export": "Use export.weights=codes, or leave it to the yaml",
    "method": "Choose a yaml of conf/method, e.g. method=gptq",
    "group_size": "Use group_size=-1 or a size that divides every layer's input, e.g. group_size=32",
}
_BITS_REMEDY = "Use one of 2, 3, 4, 5, 6, 7, 8, or 16 for 'not quantized'"


def _to_user_error(error: ValidationError) -> UserError:
    """The first of pydantic's findings, in the form every other user error has."""
    first = error.errors()[0]
    names = [part for part in first["loc"] if isinstance(part, str)]  # without positions in lists
    field, top = ".".join(names), names[0]
    if first["type"] == "extra_forbidden":
        return UserError(field, "no such setting", "Remove it; `--cfg job` lists every setting")
    if first["type"] == "missing":
        return UserError(field, "no value is set", f"Add {field}=... to the command line or its yaml")
    message = first["msg"].removeprefix("Value error, ")
    remedy = _BITS_REMEDY if top in {"wbits", "abits", "kvbits"} else _REMEDIES.get(top)
    if first["type"] == "literal_error" and top == "stages":
        remedy = did_you_mean(str(first["input"]), STAGES)
    return UserError(field, f"{first['input']!r} is not valid ({message})", remedy or f"See `--cfg job` for {field}")


def from_config(config: dict[str, Any]) -> Settings:
    """Checks a composed configuration and freezes it.

    Raises:
        UserError: a field is missing, unknown or out of range.
    """
    known = {key: value for key, value in config.items() if key != "experiment"}
    try:
        return Settings.model_validate(known)
    except ValidationError as error:
        raise _to_user_error(error) from None


def from_hydra(config: DictConfig) -> Settings:
    """:func:`from_config` of a composed Hydra configuration."""
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return from_config({str(key): value for key, value in plain.items()})
