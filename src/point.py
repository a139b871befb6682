"""One point of a sweep: its settings, and the keys under which each of its results is stored.

A key holds just the settings its result depends on, so that points share work: a calibration serves every method and
bit-width of a model, and the fp baseline is evaluated once per model and test set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from src.data.corpora import dataset_identity
from src.errors import within
from src.evaluation.normalizers import NORMALIZER
from src.evaluation.wer import SCORER
from src.methods.base import Method
from src.methods.build import build_method
from src.models.loading import model_identity
from src.settings import FULL_PRECISION, DatasetSettings, Settings
from src.store import Entry, Store, fingerprint, open_store

SCHEMA = 3  # raise when the meaning of a stored result changes

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

    @cached_property
    def calibration(self) -> Entry:
        """Calibration clips, teacher tokens and cheap statistics; shared by all methods of a model."""
        calib = self.settings.calib
        with within("calib"):
            dataset = self._dataset_key(calib.dataset)
        return self._entry("calibrate", dataset=dataset, n=calib.n, seed=self.settings.seed, **self._decoding)

    def statistics(self, statistic: str) -> Entry:
        """One expensive statistic of the fp model's link inputs, shared by the methods that declare it."""
        return self._entry("statistics", calibration=self.calibration.fingerprint, statistic=statistic)

    @property
    def uses_calibration(self) -> bool:
        """Whether quantizing reads calibration data: for the method, or for static ranges of activations."""
        return self.method.uses_calibration or self.settings.static_inputs

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
        if self.method.transforms:
            weights["seed"] = settings.seed  # rotations are drawn
        if settings.abits != FULL_PRECISION:
            weights["activation"] = settings.activation.model_dump()
        if settings.key_group is not None:
            weights["cache"] = settings.cache.model_dump()
        if self.uses_calibration:
            weights["calibration"] = self.calibration.fingerprint
            weights["propagate"] = settings.calib.propagate
        return self._entry("quantize", **weights)

    @cached_property
    def transcripts(self) -> Entry:
        """What the quantized model wrote for every utterance of the test set."""
        dataset = self._dataset_key(self.settings.dataset)
        batch = self.settings.evaluate.batch_size
        key = {"quantized": self.quantized.fingerprint, "dataset": dataset, "batch_size": batch}
        return self._entry("transcripts", **key, **self._decoding)

    @cached_property
    def evaluation(self) -> Entry:
        """Scores of the transcripts, alone and against the fp baseline's."""
        return self._entry(
            "evaluate",
            transcripts=self.transcripts.fingerprint,
            baseline=self.baseline.transcripts.fingerprint,
            bootstrap_samples=self.settings.evaluate.bootstrap_samples,
            seed=self.settings.seed,
            normalizer=NORMALIZER,
            scorer=SCORER,
        )

    @cached_property
    def exported(self) -> Entry:
        """The quantized model as another runtime's files."""
        return self._entry("export", quantized=self.quantized.fingerprint, **self.settings.export.model_dump())

    @cached_property
    def latency(self) -> Entry:
        """Measured speed of the fp path on this kind of model; shared by all methods."""
        return self._entry("latency", device=self.settings.device, **self.settings.profile.model_dump())

    @cached_property
    def profile(self) -> Entry:
        """Size, memory I/O and bit operations of the quantized model."""
        cost = self.settings.profile
        key = {"quantized": self.quantized.fingerprint, "latency": self.latency.fingerprint}
        return self._entry("profile", seconds=cost.seconds, tokens=cost.tokens, **key)

    @cached_property
    def baseline(self) -> Point:
        """The same point at full precision."""
        return self if self.settings.method_name == "fp" else open_point(_at_full_precision(self.settings))

    @cached_property
    def fingerprint(self) -> str:
        """Names the point's record and its W&B run."""
        return fingerprint({"evaluation": self.evaluation.fingerprint, "profile": self.profile.fingerprint})

    @property
    def label(self) -> str:
        """Readable name: ``embedded_whisper-gptq-w3a16-embedded_other``."""
        settings = self.settings
        method = "fp" if settings.method_name == "fp" else f"{settings.method_name}-{settings.bits_name}"
        return f"{settings.model.name}-{method}-{settings.dataset.name}"

    @property
    def _decoding(self) -> dict[str, Any]:
        return {"suppress_tokens": self.settings.evaluate.suppress_tokens}

    def _dataset_key(self, dataset: DatasetSettings) -> dict[str, Any]:
        drawn = {"limit": dataset.limit, "seed": self.settings.seed} if dataset.limit else {}
        return {**dataset_identity(dataset), **drawn}

    def _entry(self, stage: str, **key: Any) -> Entry:
        seed = {"model_seed": self.settings.seed} if self.settings.model.random_weights else {}
        return self.store.entry(stage, {"schema": SCHEMA, "model": self.model_identity, **seed, **key})


def _at_full_precision(settings: Settings) -> Settings:
    full = {"wbits": FULL_PRECISION, "abits": FULL_PRECISION, "kvbits": FULL_PRECISION}
    plain = {"group_size": -1, "symmetric": False}
    return settings.model_copy(update={"method": FP_METHOD, **plain, **full})


def open_point(settings: Settings) -> Point:
    """Checks the method and opens the store.

    Raises:
        UserError: the method's parameters are wrong, or ``output_dir`` cannot be written.
    """
    if settings.method["name"] == "fp":
        settings = _at_full_precision(settings)
    return Point(settings, build_method(settings.method), open_store(Path(settings.output_dir)))
