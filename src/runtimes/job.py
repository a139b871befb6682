"""What a process that runs an exported model is told, and what it answers. Plain data, without torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from src.data.transcripts import LongForm


@dataclass(frozen=True)
class RuntimeJob:
    """A model to load, and how it is asked to write.

    Attributes:
        runtime: ``onnx`` or ``whisper_cpp``.
        folder: of the exported files.
        threads: that the runtime computes with.
        language: that whisper.cpp is told to write, whose file does not say; None where the model knows but one.
        suppress: whether whisper.cpp leaves out what is no speech; the graphs' own settings say it of them.
        truncate: whether whisper.cpp hears the first window only; likewise.
    """

    runtime: str
    folder: str
    threads: int
    language: str | None = None
    suppress: bool = True
    truncate: bool = False


@dataclass(frozen=True)
class Loaded:
    """A process that is ready to hear.

    Attributes:
        load_ms: from files to a model that can run, libraries imported before.
        version: of the runtime.
    """

    load_ms: float
    version: str


@dataclass(frozen=True)
class Heard:
    """What one waveform became.

    Attributes:
        text: the transcript.
        tokens: generated for it, end tokens not counted.
        capped: whether it was cut off at the limit on them, in any of its windows.
        long_form: as of a :class:`~src.data.transcripts.Transcript`.
        seconds: from the waveform to the text, features included.
        processor_seconds: that all of the process's threads computed meanwhile, which other load moves less.
        first_token_ms: from the waveform to the first token: features, encoder and prompt of the first window.
        peak_rss_mib: peak resident set size so far of the process, which does nothing else.
    """

    text: str
    tokens: int
    capped: bool
    long_form: LongForm | None
    seconds: float
    processor_seconds: float
    first_token_ms: float
    peak_rss_mib: float


class Transcriber(ABC):
    """A loaded model.

    Attributes:
        version: of the runtime.
        sampling_rate: of the waveforms it takes, in Hz.
        first_token_at: :func:`time.perf_counter` when the first token of the last waveform was there.
    """

    version: str
    sampling_rate: int
    first_token_at: float

    @abstractmethod
    def transcribe(self, waveform: np.ndarray) -> tuple[str, int, bool, LongForm | None]:
        """Text, tokens, whether capped and long form, as of :class:`Heard`, of float32 ``[samples]``."""
