"""The groups of settings, each a frozen section of the composed configuration; see :mod:`src.settings`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from src.metrics import METRICS
from src.text import languages

_FULL: Final = 16
TORCH: Final = "torch"  # the runtime that simulates
_LONGEST_NAME: Final = 100  # bytes; a file system takes 255, and names are joined

Integer = Annotated[int, Field(strict=True)]  # neither true nor "4" nor 4.0
Count = Annotated[Integer, Field(ge=1, description="a positive integer", examples=["128"])]
Arithmetic = Literal["int4", "int8", "float16", "float32"]
Tier = Literal["on_chip", "dram", "flash"]  # of memory, the nearest first


def checked_name(name: str) -> str:
    """The name, which becomes part of files, folders, tables and run ids. Raises ValueError where it cannot."""
    if not name or len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"names have 1 to {_LONGEST_NAME} bytes")
    if name[0] in ".-" or not name.isprintable() or set(name) & set("/\\"):
        raise ValueError("names hold no slash, backslash or control character, and begin with neither dot nor hyphen")
    return name


Name = Annotated[str, AfterValidator(checked_name)]


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from None
    if not groups:
        raise ValueError("it has no group (...) around the speaker")
    return pattern


Language = Annotated[str, AfterValidator(languages.checked)]


class Frozen(BaseModel):
    """Unknown keys are errors, and nothing changes after the check."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelSettings(Frozen):
    """Which recogniser, and where its weights come from.

    ``source`` is a hub id (``openai/whisper-tiny``) or a folder; relative folders are looked up from the working
    directory, then from the project's root. ``architecture`` holds the family's config fields, needed only to build
    the model with ``random_weights``. ``language`` is what it is told to write, or what it writes.

    ``sha256`` has digests that files of the folder must have, by name.
    """

    name: Name
    family: Name
    source: str
    revision: str | None
    random_weights: bool
    language: Language | None
    architecture: dict[str, Any]
    sha256: dict[str, str] = {}


class ScopeSettings(Frozen):
    """Which linears of the blocks are quantized; what is left out keeps 16 bits and is listed in the layer table."""

    encoder: bool
    decoder: bool
    cross_attention: bool


BLOCKS = ScopeSettings(encoder=True, decoder=True, cross_attention=True)


class ActivationSettings(Frozen):
    """Grids of quantized activations: with a zero-point or without; one a token, or one a tensor from calibration."""

    symmetric: bool
    range: Literal["token", "static"]


class CacheSettings(Frozen):
    """Grids of quantized keys: one a token and head, or one a channel and ``group`` tokens (KIVI, arXiv 2402.02750)."""

    keys: Literal["token", "channel"]
    group: Annotated[Integer, Field(ge=2)]


class ColumnSettings(Frozen):
    """What the columns of a data set are called; all but ``text`` and ``audio`` may be null where there is none."""

    id: str | None
    text: str
    audio: str
    speaker: str | None
    session: str | None
    split: str | None = None


class DatasetSettings(Frozen):
    """One test or calibration set: on the hub, in a folder of the hub's layout, or (``source`` null) a user's own.

    ``root`` says where it lies on this machine. ``speaker_pattern`` finds the speaker in an id, as its first group;
    the speaker column is read instead where it is there. Clips beyond ``max_seconds`` count as bad audio. ``language``
    of the references decides how they are scored.
    """

    name: Name
    source: str | None
    revision: str | None
    config: str | None
    split: str | None
    root: str | None
    limit: Count | None
    columns: ColumnSettings
    speaker_pattern: Annotated[str, AfterValidator(_one_group)] | None
    max_seconds: Annotated[float, Field(gt=0)] | None
    language: Language | None = None  # records of earlier versions do not tell


class CalibSettings(Frozen):
    """Calibration clips, what the decoder is fed on them, and whether blocks see fp or quantized predecessors.

    ``silence`` is what encoder frames behind a clip count, beside one that hears it.

    ``sequential`` says whether, inside a block too, a linear sees inputs from those rounded before it (``link``) or not
    (``block``).
    """

    dataset: DatasetSettings
    n: Count
    seed: Annotated[Integer, Field(ge=0, lt=2**63)]
    decoder_inputs: Literal["generate", "reference"]
    batch_size: Count
    propagate: Literal["quantized", "fp"]
    sequential: Literal["auto", "block", "link"] = "auto"  # records of earlier versions do not tell
    silence: Annotated[float, Field(ge=0, le=1)] = 1.0  # likewise


class EvaluateSettings(Frozen):
    """Greedy decoding, the bootstrap, the hallucination probe, and how texts are scored, or only stored ones.

    ``runtime`` decodes: torch, which simulates what is quantized, or another, which runs the files of ``export``.
    """

    batch_size: Count
    suppress_tokens: bool
    bootstrap_samples: Annotated[Integer, Field(ge=100)]
    probe_clips: Annotated[Integer, Field(ge=0, le=1000)]
    rescore: bool
    clean_text: Annotated[bool, Field(strict=True)]
    long_form: Literal["sequential", "truncate"]
    window: Literal["model", "clip"]
    runtime: Literal["torch", "onnx", "whisper_cpp"] = TORCH  # records of earlier versions do not tell


class MemoryTier(Frozen):
    """One memory of a device: what it holds in 1e6 bytes, and what moving a byte takes in picojoules."""

    capacity_mb: Annotated[float, Field(gt=0)]
    pj_per_byte: Annotated[float, Field(gt=0)]


class EdgeDeviceSettings(Frozen):
    """The device whose roofline is drawn: bandwidth in 1e9 bytes/s, rates in 1e9 operations/s (2 a MAC) by arithmetic.

    A null bandwidth means none. ``float32`` is required, as everything can run in it. ``memory`` and ``pj_per_mac``
    (picojoules a multiply-accumulate by arithmetic) are for the estimate of energy; with neither there is none.
    """

    name: Name
    bandwidth_gb_s: Annotated[float, Field(gt=0)] | None
    gops: dict[Arithmetic, Annotated[float, Field(gt=0)]]
    memory: dict[Tier, MemoryTier] = {}
    pj_per_mac: dict[Arithmetic, Annotated[float, Field(gt=0)]] = Field(default={}, validate_default=True)

    @field_validator("gops")
    @classmethod
    def _everything_runs(cls, gops: dict[Arithmetic, float], info: ValidationInfo) -> dict[Arithmetic, float]:
        if info.data.get("bandwidth_gb_s") is not None and "float32" not in gops:
            raise ValueError("float32 has no rate, and what nothing narrower holds would run nowhere")
        return gops

    @field_validator("memory")
    @classmethod
    def _caches_have_a_place(cls, memory: dict[Tier, MemoryTier]) -> dict[Tier, MemoryTier]:
        if memory.keys() == {"flash"}:
            raise ValueError("flash is not written to, and the key-value cache would be nowhere; add on_chip or dram")
        return memory

    @field_validator("pj_per_mac")
    @classmethod
    def _everything_has_its_energy(
        cls, energies: dict[Arithmetic, float], info: ValidationInfo
    ) -> dict[Arithmetic, float]:
        rates, memory = info.data.get("gops", {}), info.data.get("memory", {})
        if bool(energies) != bool(memory):
            raise ValueError("an estimate of energy needs memory and pj_per_mac; give both or neither")
        if energies and energies.keys() != rates.keys():
            raise ValueError(f"gops has rates of {', '.join(rates)}; give the energy of these and of no others")
        return energies


def _absent(value: object) -> object:
    if value is not None:
        raise ValueError("only ONNX graphs know it; use null")
    return value


OnnxOnly = Annotated[None, BeforeValidator(_absent)]


class NoExport(Frozen):
    runtime: Literal["none"]
    weights: None
    accuracy_level: OnnxOnly
    cross_cache: OnnxOnly


class CompressedTensorsExport(Frozen):
    """A checkpoint of packed codes, scales and zero points."""

    runtime: Literal["compressed_tensors"]
    weights: Literal["codes"]
    accuracy_level: OnnxOnly
    cross_cache: OnnxOnly


class GgmlExport(Frozen):
    """whisper.cpp's file, in blocks of one type."""

    runtime: Literal["ggml"]
    weights: Literal["auto", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
    accuracy_level: OnnxOnly
    cross_cache: OnnxOnly

    @property
    def form(self) -> str:
        """Of the weights, in words."""
        return self.weights


class OnnxExport(Frozen):
    """Graphs for onnxruntime: in what form they hold the weights, and how they multiply."""

    runtime: Literal["onnx"]
    weights: Literal["auto", "codes", "int8_dynamic", "float32"]
    accuracy_level: Literal[1, 4] | None
    cross_cache: Literal["float32", "int8"] | None

    @property
    def form(self) -> str:
        """Of the weights, and how they are multiplied, in words."""
        level = "" if self.accuracy_level is None else f", level {self.accuracy_level}"
        cross = ", int8 cross-attention" if self.cross_cache == "int8" else ""
        return f"{self.weights}{level}{cross}"

    def resolved(self, abits: int, *, quantized: bool) -> OnnxExport:
        """With what ``auto`` stands for, and without an accuracy level where nothing reads it."""
        form = self.weights
        if form == "auto":
            form = "float32" if not quantized else "codes" if abits == _FULL else "int8_dynamic"
        level = None if form == "float32" else self.accuracy_level
        return self.model_copy(update={"weights": form, "accuracy_level": level})


ExportSettings = Annotated[NoExport | CompressedTensorsExport | GgmlExport | OnnxExport, Field(discriminator="runtime")]


class ProfileSettings(Frozen):
    """The reference utterance whose cost is reported, and the runtimes that are timed on it, at batch 1 with one beam.

    ``onnx`` and ``whisper_cpp`` say what is exported to be timed, with the keys of ``export``. ``max_load`` is in
    processors that others keep busy meanwhile; null leaves it to :func:`src.machine.load.limit`.
    """

    seconds: Annotated[float, Field(gt=0)]
    tokens: Count
    repeats: Count
    batch: Count
    beams: Count
    runtimes: tuple[Literal["torch", "onnx_float32", "onnx", "whisper_cpp"], ...]
    threads: Count | None
    max_load: Annotated[float, Field(ge=0)] | None
    onnx: OnnxExport
    whisper_cpp: GgmlExport


def _figure(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"there are {', '.join(METRICS)}")
    return name


class SweepSettings(Frozen):
    """Which points of a sweep are submitted, and the figures that each returns to the sweeper."""

    only_missing: Annotated[bool, Field(strict=True)]
    objectives: Annotated[tuple[Annotated[str, AfterValidator(_figure)], ...], Field(min_length=1)]


class TrackingSettings(Frozen):
    """Weights & Biases: where runs go, if anywhere."""

    mode: Literal["offline", "online", "none"]
    project: str
    entity: str | None
    group: str | None
