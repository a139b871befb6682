"""The figures by which points are compared, each declared once.

Scores and their means, W&B, objectives of searches, the tables of console and report, plots and page read this list. A
rate over a test set is one more file here that counts it and one more line; what a stage's result holds anyway is the
line alone.
"""

from __future__ import annotations

from typing import Final

from src.metrics.metric import Counts, Metric
from src.metrics.rare_words import RARE_WORDS
from src.metrics.word_errors import WER

CER: Final = Metric("cer", "evaluate", "%", "character error rate", "CER, %", "", 2)
_SIZE: Final = Metric("disk_bytes", "quantize", "bytes", "size of the stored model", "file, MB", "MB", 2, 1e6)
_IO: Final = Metric(
    "memory_io_bytes", "profile", "bytes", "moved for the reference utterance", "memory I/O, MB", "I/O MB", 1, 1e6
)
_BOPS: Final = Metric(
    "bops", "profile", "bit operations", "of the reference utterance", "bit operations, G", "GBOP", 0, 1e9
)
_STORED: Final = Metric(
    name="bits_per_weight",
    stage="profile",
    unit="bits",
    meaning="stored for a quantized weight, scales and zero points included",
    label="bits per weight",
    heading="",
    digits=2,
)
_ENERGY: Final = Metric(
    name="energy_j",
    stage="profile",
    unit="joules",
    meaning="estimated for one reference utterance on the edge device",
    label="energy (estimate), mJ",
    heading="",
    digits=1,
    scale=1e-3,
)
_SECONDS: Final = Metric(
    name="processor_seconds",
    stage="quantize",
    unit="seconds",
    meaning="of the processors, all threads together, to quantize from calibrated clips on the machine that did",
    label="time to quantize, processor s",
    heading="",
    digits=0,
)
_EXPORTED: Final = Metric(
    name="exported_bytes",
    stage="evaluate",
    unit="bytes",
    meaning="size of the files that another runtime than torch decoded with",
    label="exported file, MB",
    heading="export MB",
    digits=2,
    scale=1e6,
)
METRICS: Final = {
    metric.name: metric for metric in (WER, RARE_WORDS, CER, _SIZE, _IO, _BOPS, _STORED, _ENERGY, _SECONDS, _EXPORTED)
}
SCORES: Final = [metric for metric in METRICS.values() if metric.stage == "evaluate"]
COSTS: Final = [metric for metric in METRICS.values() if metric.stage != "evaluate"]
RATES: Final = [metric for metric in SCORES if metric.counts]

__all__ = ["CER", "COSTS", "METRICS", "RATES", "SCORES", "WER", "Counts", "Metric"]
