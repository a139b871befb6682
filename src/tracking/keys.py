"""Every figure and table that a run can have in Weights & Biases: name, unit, meaning.

The one list that people, panels and reports may rely on; :class:`~src.tracking.tracker.Tracker` logs nothing that is
not in it. A figure is under ``stage/name``; the headlines are also in the run's summary under their own names, so that
a run table needs no prefix. Where there is nothing to divide by, or no such clip, a figure is absent.
``python -m src.dashboard --keys`` prints the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, get_type_hints

from src.metrics import METRICS as COMPARED
from src.scoring.failure_modes import Failures
from src.scoring.legibility import Legibility
from src.scoring.probe import Hallucinations

HEADLINES: Final[Mapping[str, str]] = {
    name: meaning for metric in COMPARED.values() if metric.heading for name, meaning in metric.described.items()
}


def _compared(stage: str) -> dict[str, str]:
    own = (metric for metric in COMPARED.values() if metric.stage == stage)
    return {name: meaning for metric in own for name, meaning in metric.described.items()}


def _meanings(figures: type) -> dict[str, str]:
    """What a class says of its fields, by name."""
    return {
        name: kind.__metadata__[0]
        for name, kind in get_type_hints(figures, include_extras=True).items()
        if hasattr(kind, "__metadata__")
    }


_CALIBRATE = {
    "clips": "calibration clips",
    "truncated": "of them, cut to the model's window",
    "seconds": "of calibration audio",
    "tokens": "teacher tokens",
}
_QUANTIZE = {
    **_compared("quantize"),
    "quantized_linears": "weights that were rounded",
    "mean_weight_error": "relative change by rounding (Frobenius norm), mean over the rounded weights",
    "mean_output_error": "relative error of their outputs on the calibration clips, mean; absent without such clips",
    "expected_nats": "nats a token that rounding should cost, by the sum of sensitivities that the plan was made by",
}
_FAILURES, _PROBE, _TEXTS = map(_meanings, (Failures, Hallucinations, Legibility))
_VERSUS_FP = {
    "difference": "WER minus full precision's on the same utterances, percentage points",
    "low": "lower end of its 95 % interval",
    "high": "upper end",
    "p_value": "two-sided, of no difference",
    "significant": "whether the interval leaves out zero",
    "relative": "the difference in % of full precision's WER",
    "relative_low": "lower end of its 95 % interval",
    "relative_high": "upper end",
    "improvement_probability": "share of resamples with fewer errors than full precision, ties half",
}
_CHANGED = {
    "transcripts": "transcripts that differ from full precision's",
    "better": "of them, with fewer errors",
    "worse": "of them, with more errors",
    "words": "word errors fewer in the better plus more in the worse ones",
}
_DATA = {
    "utterances": "usable clips of the test set",
    "hours": "of audio",
    "speakers": "known speakers",
    "subset": "whether only a part of the split was drawn",
    "drawn_clips": "clips drawn",
    "drawn_of": "from so many",
    "drawn_seed": "by this seed",
    "dropped_references_count": "references of the split with nothing to score",
    "set_aside_for_testing": "clips of the split kept from calibration",
    "bad_audio_count": "clips left out for their audio; the record names them",
}
_LONG_FORM = {form: f"clips beyond the model's window: {form}" for form in ("sequential", "segments", "truncated")}


def _within(prefix: str, figures: Mapping[str, str], whose: str = "") -> dict[str, str]:
    return {f"{prefix}_{name}": f"{whose}{meaning}" for name, meaning in figures.items()}


_EVALUATE = {
    "wbits": "weight bits, beside the WER, so that a line plot can have them on its x axis",
    **_compared("evaluate"),
    "substitutions": "words",
    "deletions": "words",
    "insertions": "words",
    "words": "reference words",
    "resampled": "what the bootstrap draws: speaker or utterance",
    "speakers": "known speakers",
    "utterances": "scored",
    "dropped": "references with nothing to score",
    "audio_seconds": "of the test set",
    "tokens": "generated",
    "processing_seconds": "wall clock of the stage",
    "rtfx": "seconds of audio a second of processing",
    "rtfx_processor": "where that was",
    "rtfx_cores": "processors that could be used there",
    "rtfx_threads": "threads that computed",
    "rtfx_device": "cpu, or the GPU",
    "rtfx_load": "processors that others kept busy meanwhile",
    "runtime_name": "what decoded, where it was not torch; this and the next are absent there",
    "runtime_version": "of it",
    "runtime_file_bytes": "size of the files that it read",
    "runtime_load_ms": "from files to a model that can run",
    "runtime_first_token_ms": "from a clip to its first token, features included, median",
    "runtime_first_token_p95_ms": "95th percentile",
    "runtime_peak_rss_mib": "peak resident set size of its process, MiB",
    "simulated_wer": "word error rate of the same point in torch, %",
    "fp_wer": "word error rate of full precision, %",
    "metric": "WER or, of languages without spaces, CER: then every wer is one over characters, and words are these",
    **_within("texts", _TEXTS),
    **_within("failures", _FAILURES),
    **_within("fp_failures", _FAILURES, "full precision: "),
    **_within("probe", _PROBE),
    **_within("fp_probe", _PROBE, "full precision: "),
    **_within("versus_fp", _VERSUS_FP),
    **_within("versus_simulated", _VERSUS_FP, "of another runtime, the simulation in place of full precision: "),
    **_within("changed_from_fp", _CHANGED),
    **_within("changed_from_simulated", _CHANGED, "of another runtime, the simulation in place of full precision: "),
    **_within("data", _DATA),
    **_within("long_form", _LONG_FORM),
}
_PROFILE = {
    "seconds": "length of the reference utterance",
    "tokens": "its text tokens",
    "batch": "utterances processed together",
    "beams": "hypotheses of each",
    "frames": "its encoder frames",
    "parameters": "of the whole model",
    "quantized_parameters": "weights in fewer than 16 bits",
    "parameter_bytes": "all stored tensors",
    **_compared("profile"),
    "model_bits_per_weight": "bits_per_weight over all parameters",
    "disk_bytes": HEADLINES["disk_bytes"],
    "activation_io_bytes": "upper bound for activations, not part of memory_io_bytes",
    "macs": "multiply-accumulates",
    "encoder_ms": "median time of the full-precision encoder",
    "token_ms": "median time of one full-precision decode step",
    "peak_memory_mib": "peak resident memory of the process",
    "device": "processor or GPU that these were measured on",
    "threads": "threads that they were measured with",
    "load": "processors that others kept busy meanwhile",
    "roofline_rtf": "lower bound of the real-time factor on the edge device",
    "roofline_token_ms": "lower bound of the mean decode step there",
    "roofline_tokens_per_second": "upper bound there",
    "energy_j_an_hour": "the same for an hour of such utterances, joules",
}
_RACE = {
    "candidates": "that were quantized and raced for the best within a budget",
    "utterances": "decoded by all of them together",
    **{name: f"of the chosen one: {HEADLINES[name]}" for name in ("wer", "wer_low", "wer_high", "disk_bytes")},
}
STAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "calibrate": _CALIBRATE,
    "quantize": _QUANTIZE,
    "evaluate": _EVALUATE,
    "profile": _PROFILE,
    "export": {"bytes": "size of the exported files"},
    "race": _RACE,
}
METRICS: Final[Mapping[str, str]] = {
    f"{stage}/{name}": meaning for stage, figures in STAGES.items() for name, meaning in figures.items()
}
TABLES: Final[Mapping[str, str]] = {
    "calibrate/links": "a row a group of linears that share an input: rows seen, largest absolute input",
    "quantize/layers": "a row a weight: bits, errors, what was skipped or done otherwise, and why",
    "evaluate/failures_by_duration": "failures by length of the audio",
    "evaluate/probe": "words written for each kind of sound without speech",
    "evaluate/worst": "the utterances that lost most against full precision, with the start of their audio",
    "evaluate/members": "of a composite: the scores of each test set, and the run that holds them",
    "profile/components": "bytes moved and bit operations by component",
    "profile/phases": "the same by phase: encoder, cross-attention keys and values, prompt, decode steps",
    "measure/runtimes": "a row a runtime: size, times, memory and bandwidth as measured",
    "race/candidates": "a row a candidate: size, error rates by round, whether it is on the Pareto front, its fate",
    "race/agreements": "rank correlation of every proxy with the error rates of later rounds",
}


def require_known(names: Iterable[str], known: Mapping[str, str]) -> None:
    """Raises KeyError, which names them, where some ``names`` are not ``known``."""
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise KeyError(f"not listed in {__name__}: {', '.join(unknown)}")


def as_markdown() -> str:
    """The whole list as Markdown tables."""
    parts = {"summary": HEADLINES, "figures, logged and in the summary": METRICS, "tables": TABLES}
    return "\n\n".join(_table(title, rows) for title, rows in parts.items()) + "\n"


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {title} | |", "| --- | --- |", *(f"| `{name}` | {meaning} |" for name, meaning in rows.items())]
    return "\n".join(lines)
