"""A record with types: of the present schema, or it is refused by the field that is amiss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from src.metrics import METRICS, Metric
from src.storage.checksum import CHECKSUM, distrust

_FIGURE: Final[TypeAdapter[Any]] = TypeAdapter(FiniteFloat | None)


class RecordPart(BaseModel):
    """What is read of a part of a record; it may hold more."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, protected_namespaces=())

    @classmethod
    def checked(cls, plain: Any) -> Self:
        """What JSON data tell. Raises ValueError, which names the first field that is amiss."""
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}" if where else f"it is no {cls.__name__.lower()}") from None


class Layer(RecordPart):
    """A weight in the layer table; one that was not rounded has no distribution and no error."""

    linear: str
    link: str | None = None
    weight_error: FiniteFloat | None = None
    output_error: FiniteFloat | None = None
    weight_sqnr_db: FiniteFloat | None = None
    output_sqnr_db: FiniteFloat | None = None
    weight_distribution: Mapping[str, float] | None = None
    input_distribution: Mapping[str, float] | None = None


class Calibrated(RecordPart):
    """Of the calibrate stage: what the original model's links read, by link."""

    distributions: Mapping[str, Mapping[str, float]] = {}


class Quantized(RecordPart):
    """Of the quantize stage."""

    layers: Sequence[Layer]
    expected_nats: FiniteFloat | None = None
    processor_seconds: FiniteFloat | None = None  # stands among the times of a record, as it is not of the point alone


class Versus(RecordPart):
    """The WER less full precision's, in points, with its 95 % interval and the p-value of no difference."""

    difference: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    p_value: FiniteFloat
    significant: bool


class Modes(RecordPart):
    """Transcripts that failed as a whole: see :mod:`src.scoring.failure_modes`."""

    loops: int | None = None
    empty: int | None = None
    capped: int | None = None


class Evaluated(RecordPart):
    """Of the evaluate stage; a mean over test sets has neither edits nor modes nor what changed."""

    metric: str
    wer: FiniteFloat
    wer_low: FiniteFloat
    wer_high: FiniteFloat
    cer: FiniteFloat
    fp_wer: FiniteFloat
    utterances: int
    words: int
    substitutions: int | None = None
    deletions: int | None = None
    insertions: int | None = None
    failures: Modes = Modes()
    changed_from_fp: Mapping[str, FiniteFloat] = {}
    versus_fp: Versus
    data: Mapping[str, Any] = {}


class Profiled(RecordPart):
    """Of the profile stage: the costs among :mod:`src.metrics`."""


class Results(RecordPart):
    """What the stages made, None where they did not run; those named here are read, others may be there."""

    calibrate: Calibrated | None = None
    quantize: Quantized | None = None
    evaluate: Evaluated | None = None
    profile: Profiled | None = None

    @property
    def stages(self) -> set[str]:
        """Of which stages there are results."""
        return self.model_fields_set

    def figures(self, metric: Metric) -> dict[str, float | None]:
        """A metric and the ends of its interval by name; None where they were not made."""
        made = getattr(self, metric.stage)
        return {name: getattr(made, name, None) for name in metric.described}

    def figure(self, metric: Metric) -> float | None:
        """A metric; None where it was not made."""
        return self.figures(metric)[metric.name]

    @model_validator(mode="after")
    def _has_numbers(self) -> Results:
        for metric in METRICS.values():
            for figure in self.figures(metric).values():
                _FIGURE.validate_python(figure, strict=True)
        return self


class Member(RecordPart):
    """What names a point, and what came out."""

    fingerprint: str
    model: str
    method: str
    bits: str
    dataset: str
    dtype: str = "float32"  # a composite does not tell its members' own
    runtime: str = "torch"  # likewise, nor do records of earlier versions
    results: Results

    @property
    def precision(self) -> str:
        """Bits, and the type and the runtime that evaluate computed in where it is not float32 in torch."""
        others = [each for each, usual in ((self.dtype, "float32"), (self.runtime, "torch")) if each != usual]
        return " ".join([self.bits, *others])


class Versions(RecordPart):
    """What scores were made with: identity of the model, and names with versions."""

    model: Mapping[str, Any]
    normalizer: str
    scorer: str


class Measured(RecordPart):
    """Times on this machine; ``others`` are those of other machines, by name."""

    runtimes: Mapping[str, Any] | None = None
    others: Mapping[str, Sequence[Any]] = {}


class Record(Member):
    """A point's record, or that of a mean over the test sets of its ``members``; build with :meth:`of`."""

    schema_: int = Field(alias="schema")
    wbits: int
    abits: int
    kvbits: int
    group_size: int
    dtype: str
    subset: int | None
    seed: int
    versions: Versions
    transcripts: str | None = None
    measured: Measured
    times: Mapping[str, Mapping[str, Any]]
    entries: Mapping[str, str]
    provenance: Mapping[str, Any]  # see src.machine.provenance
    settings: Mapping[str, Any]
    members: Sequence[Member] = ()
    _plain: dict[str, Any] = PrivateAttr()

    @classmethod
    def of(cls, plain: Any) -> Record:
        """The record that JSON data tell.

        Raises:
            ValueError: they are none of the present schema; says what is wrong in a few words.
        """
        record = cls.checked(plain)
        if record.results.quantize and (times := record.times.get("quantize")):
            took = record.results.quantize.model_copy(update={"processor_seconds": times.get("processor_seconds")})
            record = record.model_copy(update={"results": record.results.model_copy(update={"quantize": took})})
        record._plain = plain
        return record

    @property
    def flat_settings(self) -> dict[str, Any]:
        """Settings by dotted name; lists as text, so that every value can be compared."""
        return dict(_flat(self.settings))

    @property
    def plain(self) -> dict[str, Any]:
        """All of it as it is stored."""
        return self._plain


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value) if isinstance(value, list) else value


def read_record(file: Path) -> Record:
    """The record in a file.

    Raises:
        ValueError: it cannot be read, is no record of the present schema, or is not as it was written; says what is
            wrong in a few words.
    """
    return Record.of(read_checked(file))


def read_checked(file: Path) -> Any:
    """JSON data whose digest, if they have one, fits.

    Raises:
        ValueError: it cannot be read, or is not as it was written; says what is wrong in a few words.
    """
    if not file.is_file():
        raise ValueError("it is no file")
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if isinstance(plain, dict) and (problem := distrust(plain)) is not None:
        raise ValueError(problem)
    return plain


def read_whole(file: Path) -> Record:
    """The record in the file of its name, which a digest proves to be as it was written.

    Raises:
        ValueError: as :func:`read_record`, or it has no digest, or it is the record of another point.
    """
    record = read_record(file)
    if CHECKSUM not in record.plain:
        raise ValueError("it has no checksum")
    if record.fingerprint != file.stem:
        raise ValueError(f"it is the record of {record.fingerprint}")
    return record
