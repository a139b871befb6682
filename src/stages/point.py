"""One point of a sweep: its settings, and the keys under which each of its results is stored.

A key holds just the settings its result depends on, so that points share work: a calibration serves every method and
bit-width of a model, and the fp baseline is evaluated once per model and test set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from src.data.corpora import Corpus, open_corpus
from src.data.selection import Selection
from src.data.sources import dataset_identity
from src.errors import within
from src.machine.provenance import machine
from src.methods.base import Method
from src.methods.build import build_method
from src.methods.ends import end_rounder
from src.methods.propagation import link_by_link, sees_quantized
from src.metrics import RATES
from src.models.families import family_of
from src.models.loading import model_identity
from src.scoring.wer import SCORER
from src.settings import BIT_WIDTHS, BLOCKS, FULL_PRECISION, TORCH, Settings
from src.storage.store import Entry, Store, fingerprint, open_store
from src.text.normalizers import Rules

# Of entries and records; raise one when the meaning of what it stores changes: what rests on it, and no more, is new.
VERSIONS: Final = {
    "record": 7,
    "calibrate": 8,
    "statistics": 7,
    "quantize": 8,
    "export": 12,
    "transcripts": 7,
    "probe": 7,
    "evaluate": 7,
    "composite": 7,
    "prompt": 7,
    "profile": 8,
    "decoded_cost": 8,
    "latency": 7,
    "measured": 7,
}
# Records of different ones never share a table: whichever version of what scores rest on is raised, the sum is another.
SCHEMA: Final = sum(
    VERSIONS[each]
    for each in ("record", "calibrate", "statistics", "quantize", "transcripts", "probe", "evaluate", "composite")
)
WORST_UTTERANCES = 16  # that evaluate stores beside the scores, for the report

FULL_DTYPE = "float32"
MODEL_WINDOW = "model"
FP_METHOD = {"_target_": "src.methods.fp.FullPrecision", "name": "fp"}


@dataclass(frozen=True)
class Point:
    """Settings, method and store of one point. Build with :func:`open_point`."""

    settings: Settings
    method: Method
    store: Store

    @cached_property
    def model_identity(self) -> dict[str, str]:
        """What the weights are: see :func:`src.models.loading.model_identity`."""
        return model_identity(self.settings.model)

    @property
    def rules(self) -> Rules:
        """How references and transcripts are normalised and what is counted: by the language of the references."""
        return Rules.of(self.settings.dataset.language, clean=self.settings.evaluate.clean_text)

    @cached_property
    def test_set(self) -> Selection:
        dataset = self.settings.dataset
        return Selection(dataset, dataset.limit, self.settings.seed)

    @cached_property
    def calibration_set(self) -> Selection:
        """The clips to calibrate on; where they come from the test set's own split, its clips are set aside."""
        calib = self.settings.calib
        n = min(calib.n, calib.dataset.limit or calib.n)
        tested = dataset_identity(self.settings.dataset)
        with within("calib"):
            same = dataset_identity(calib.dataset) == tested
        return Selection(calib.dataset, n, calib.seed, aside=self.test_set if same else None)

    @cached_property
    def test_corpus(self) -> Corpus:
        """The test set, inspected now or before. Raises UserError."""
        return open_corpus(self.test_set, self.store, self.settings.on_bad_audio)

    @cached_property
    def calibration_corpus(self) -> Corpus:
        """The clips to calibrate on, inspected now or before. Raises UserError."""
        clips = self.calibration_set
        with within("calib"):
            return open_corpus(clips, self.store, self.settings.on_bad_audio)

    @cached_property
    def calibration(self) -> Entry:
        """Calibration clips, teacher tokens and cheap statistics; shared by all methods of a model."""
        clips = self.calibration_set
        with within("calib"):
            dataset = self._dataset_key(clips)
        inputs = self.settings.calib.decoder_inputs
        decoding = self._decoding if inputs == "generate" else {}
        return self._entry("calibrate", dataset=dataset, decoder_inputs=inputs, **decoding)

    def statistics(self, statistic: str) -> Entry:
        """One expensive statistic of the fp model's link inputs, shared by the methods that declare it."""
        key = {"calibration": self.calibration.fingerprint, **self._silence}
        return self._entry("statistics", **key, statistic=statistic)

    @property
    def uses_calibration(self) -> bool:
        """Whether quantizing reads calibration data: for the method, the ends, static ranges or corrected biases."""
        rounds = self.method.needs.calibration or (self.ends is not None and self.ends.needs.calibration)
        return rounds or self.settings.static_inputs or self.settings.corrects_biases

    @cached_property
    def ends(self) -> Method | None:
        """How embedding, head and front-end are rounded; None where they are not. Raises UserError."""
        return end_rounder(self.settings)

    @cached_property
    def quantized(self) -> Entry:
        """The quantized model. Depends on the calibration only where the method or the activations' ranges use one."""
        settings = self.settings
        weights = {
            "method": settings.method,
            "wbits": settings.wbits,
            "abits": settings.abits,
            "kvbits": settings.kvbits,
            "group_size": settings.group_size,
            "symmetric": settings.symmetric,
            "scope": settings.scope.model_dump(),
        }
        if self.method.needs.draws:
            weights["seed"] = settings.seed
        if self.method.needs.reference:
            weights["reference"] = self._reference
        if settings.abits != FULL_PRECISION:
            weights["activation"] = settings.activation.model_dump()
        ends = {"head_bits": settings.head_bits, "frontend_bits": settings.frontend_bits}
        weights |= {name: bits for name, bits in ends.items() if bits != FULL_PRECISION}
        if settings.ends is not None:
            weights["ends"] = settings.ends
        if settings.corrects_biases:
            weights["bias_correction"] = True
        if settings.key_group is not None:
            weights["cache"] = settings.cache.model_dump()
        if self.uses_calibration:
            weights["calibration"] = self.calibration.fingerprint
            weights["propagate"] = "quantized" if sees_quantized(self.method, settings) else "fp"
            weights["batch_size"] = settings.calib.batch_size  # of what is learned, and of the order of sums
            weights |= self._silence
            if link_by_link(self.method, settings):
                weights["sequential"] = "link"
        return self._entry("quantize", **weights)

    @cached_property
    def transcripts(self) -> Entry:
        """What the quantized model wrote for every utterance of the test set."""
        return self._decoded(
            "transcripts",
            dataset=self._dataset_key(self.test_set),
            long_form=self.settings.evaluate.long_form,
        )

    @cached_property
    def probe(self) -> Entry | None:
        """What the quantized model wrote for clips without speech; None where there are none."""
        clips = self.settings.evaluate.probe_clips
        return self._decoded("probe", clips=clips, seed=self.settings.seed) if clips else None

    @cached_property
    def evaluation(self) -> Entry:
        """Scores of the transcripts, alone, against the fp baseline's and, of another runtime, the simulation's."""
        simulated = {} if self.simulated is self else {"simulated": self.simulated.transcripts.fingerprint}
        return self._entry(
            "evaluate",
            **simulated,
            transcripts=self.transcripts.fingerprint,
            baseline=self.baseline.transcripts.fingerprint,
            probe=self.probe.fingerprint if self.probe else None,
            bootstrap_samples=self.settings.evaluate.bootstrap_samples,
            seed=self.settings.seed,
            normalizer=self.rules.name,
            scorer=SCORER,
            worst=WORST_UTTERANCES,
            rates=[metric.name for metric in RATES],  # with one more, all are counted anew
        )

    @cached_property
    def exported(self) -> Entry:
        """The quantized model as another runtime's files."""
        told = {"long_form": self.settings.evaluate.long_form, "dtype": self.settings.dtype, **self._decoding}
        if self.settings.evaluate.window != MODEL_WINDOW:
            told["window"] = self.settings.evaluate.window
        return self._entry("export", quantized=self.quantized.fingerprint, **self.settings.export.model_dump(), **told)

    @cached_property
    def prompt(self) -> Entry:
        """How many tokens every transcript of the model starts with."""
        return self._entry("prompt", language=self.settings.model.language)

    @cached_property
    def latency(self) -> Entry:
        """Measured speed of the fp path on this kind of model and on this machine; shared by all methods."""
        measured = self.settings.profile.model_dump(include={"seconds", "tokens", "repeats", "max_load"})
        where = {"machine": machine(self.settings.device), "torch": version("torch")}
        return self._entry("latency", device=self.settings.device, **where, **measured)

    @cached_property
    def profile(self) -> Entry:
        """Size, memory I/O, bit operations, roofline and energy of the quantized model: the same on every machine."""
        key = {"quantized": self.quantized.fingerprint, "prompt": self.prompt.fingerprint}
        return self._entry("profile", **self._reference, edge_device=self.settings.edge_device.model_dump(), **key)

    @property
    def _reference(self) -> dict[str, Any]:
        """The utterance whose costs are counted."""
        return self.settings.profile.model_dump(include={"seconds", "tokens", "batch", "beams"})

    @cached_property
    def decoded_cost(self) -> Entry:
        """What the utterances of the test set cost on average, as they were decoded."""
        return self._entry("decoded_cost", transcripts=self.transcripts.fingerprint)

    @cached_property
    def baseline(self) -> Point:
        """The same point at full precision in float32, so that the difference to it tells what ``dtype`` costs too."""
        if self.settings.method_name == "fp" and self.settings.dtype == FULL_DTYPE:
            return self.simulated
        return open_point(_at_full_precision(self.simulated.settings).model_copy(update={"dtype": FULL_DTYPE}))

    @cached_property
    def simulated(self) -> Point:
        """The same point in torch, which tells what another runtime changes."""
        if self.settings.evaluate.runtime == TORCH:
            return self
        evaluate = self.settings.evaluate.model_copy(update={"runtime": TORCH})
        return open_point(self.settings.model_copy(update={"evaluate": evaluate}))

    @cached_property
    def refused(self) -> dict[str, str]:
        """What this run did not measure, by the name of the stage, and why: it fills as the stages run."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """Names the point's record and its W&B run."""
        return fingerprint({"evaluation": self.evaluation.fingerprint, "profile": self.profile.fingerprint})

    @property
    def label(self) -> str:
        """Readable name: ``sandbox_whisper-gptq-w3a16-sandbox_other``; a dtype but float32, another window than the
        model's and another runtime than torch follow the bits.
        """
        settings = self.settings
        method = "fp" if settings.method_name == "fp" else f"{settings.method_name}-{settings.bits_name}"
        dtype = "" if settings.dtype == FULL_DTYPE else f"-{settings.dtype}"
        window = "" if settings.evaluate.window == MODEL_WINDOW else f"-{settings.evaluate.window}"
        runtime = "" if settings.evaluate.runtime == TORCH else f"-{settings.evaluate.runtime}"
        return f"{settings.model.name}-{method}{dtype}{window}{runtime}-{settings.dataset.name}"

    def _decoded(self, stage: str, **inputs: Any) -> Entry:
        """What the quantized model, or what was exported of it, wrote for some inputs."""
        if self.settings.evaluate.runtime != TORCH:
            return self._entry(
                stage, exported=self.exported.fingerprint, runtime=self.settings.evaluate.runtime, **inputs
            )
        key = {"quantized": self.quantized.fingerprint, "batch_size": self.settings.evaluate.batch_size}
        if self.settings.dtype != FULL_DTYPE:
            key["dtype"] = self.settings.dtype
        if self.settings.evaluate.window != MODEL_WINDOW:
            key["window"] = self.settings.evaluate.window
        return self._entry(stage, **key, **inputs, **self._decoding)

    @property
    def _silence(self) -> dict[str, float]:
        """What silence behind clips counts, where a family has it and it counts less than speech."""
        silence = self.settings.calib.silence
        return {"silence": silence} if silence != 1 and family_of(self.settings.model.family).pads_clips else {}

    @property
    def _decoding(self) -> dict[str, Any]:
        return {"suppress_tokens": self.settings.evaluate.suppress_tokens}

    def _dataset_key(self, selection: Selection) -> dict[str, Any]:
        policy = {"max_seconds": selection.dataset.max_seconds, "on_bad_audio": self.settings.on_bad_audio}
        return {**selection.key, **policy}

    def _entry(self, stage: str, **key: Any) -> Entry:
        seed = {"model_seed": self.settings.seed} if self.settings.model.random_weights else {}
        return self.store.entry(stage, {"schema": VERSIONS[stage], "model": self.model_identity, **seed, **key})


def _at_full_precision(settings: Settings) -> Settings:
    full = dict.fromkeys(BIT_WIDTHS, FULL_PRECISION)
    plain = {"group_size": -1, "symmetric": False, "bias_correction": False, "scope": BLOCKS, "ends": None}
    return settings.model_copy(update={"method": FP_METHOD, **plain, **full})


def open_point(settings: Settings) -> Point:
    """Checks the method and opens the store.

    Raises:
        UserError: parameters of the method or of the ends' are wrong, or ``output_dir`` cannot be written.
    """
    if settings.method["name"] == "fp":
        settings = _at_full_precision(settings)
    end_rounder(settings)
    return Point(settings, build_method(settings.method), open_store(Path(settings.output_dir)))
