"""A whole test set in another runtime, resumably: the same journal and transcripts as of the simulated model's."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.data.transcripts import Transcript
from src.data.utterance import Utterance
from src.decoding.clock import Clock
from src.decoding.decode import batches
from src.decoding.longform import Decoded
from src.decoding.transcribe import Worked, resumably, transcript
from src.machine.provenance import installed
from src.runtimes.folder import PACKAGES
from src.runtimes.job import RuntimeJob
from src.runtimes.process import RuntimeProcess
from src.storage.journal import values

log = logging.getLogger(__name__)


def transcribe_in_runtime(
    job: RuntimeJob, utterances: Sequence[Utterance], journal: Path, *, basis: Mapping[str, Any], label: str
) -> list[Transcript]:
    """Transcripts of all utterances in their order, a clip at a time, as a device hears them.

    As :func:`~src.decoding.transcribe.transcribe_corpus`, whose journal this is too; ``basis`` names the very files.

    Raises:
        RuntimeError: the runtime failed.
    """

    def work(left: Sequence[Sequence[Utterance]]) -> Generator[Worked]:
        with RuntimeProcess(job) as process:
            for [utterance] in left:
                clock = Clock(torch.device("cpu"))
                with clock.part("total"):
                    with clock.part("audio"):
                        waveform = utterance.waveform()
                    with clock.part("runtime"):
                        heard = process.hear(waveform)
                written = transcript(utterance, Decoded(heard.text, heard.tokens, heard.capped), heard.long_form)
                figures = {"first_token_ms": heard.first_token_ms, "peak_rss_mib": heard.peak_rss_mib}
                yield [written], {"seconds": clock.seconds, "runtime": {**asdict(process.loaded), **figures}}

    packages = {name: installed(name) for name in PACKAGES[job.runtime]}
    told = {name: value for name, value in asdict(job).items() if name not in ("folder", "threads")}
    about = {**basis, "runtime": told, "packages": packages}
    transcripts = resumably(utterances, batches(utterances, 1), journal, about, work, label)
    for form, count in Counter(item.long_form for item in transcripts if item.long_form).items():
        log.info("%s: %d of %d utterances are longer than the model's window: %s", label, count, len(utterances), form)
    return transcripts


def journal_figures(journal: Path) -> dict[str, Any]:
    """What all clips of a finished journal say of the runtime, however many runs it took.

    ``version``; medians ``load_ms`` over processes' loads and ``first_token_ms`` over clips, with
    ``first_token_p95_ms``; the highest ``peak_rss_mib``.
    """
    lines = [line["runtime"] for line in values(journal)]
    first = [line["first_token_ms"] for line in lines]
    return {
        "version": " + ".join(sorted({line["version"] for line in lines})),
        "load_ms": round(float(np.median(sorted({line["load_ms"] for line in lines}))), 1),
        "first_token_ms": round(float(np.median(first)), 1),
        "first_token_p95_ms": round(float(np.percentile(first, 95)), 1),
        "peak_rss_mib": round(max(line["peak_rss_mib"] for line in lines), 1),
    }
