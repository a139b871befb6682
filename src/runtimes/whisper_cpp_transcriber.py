"""An exported ggml file in whisper.cpp, through pywhispercpp. Nothing of torch is imported.

Greedy, without what whisper.cpp does beyond that: no fallback to higher temperatures, no text of earlier windows. A
clip that fits a window is written without times, as evaluate writes it; longer audio with them, by whisper.cpp's loop.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

import _pywhispercpp as whisper_cpp
import numpy as np

from src.data.transcripts import LongForm
from src.runtimes.job import RuntimeJob, Transcriber

_POSITION = 320  # samples of one of the encoder's positions


def open_context(folder: str) -> whisper_cpp.whisper_context:
    """The model that :mod:`src.export.ggml` wrote into a folder; on the CPU, without flash attention, as it asks."""
    options = whisper_cpp.whisper_context_default_params()
    options.use_gpu = options.flash_attn = False
    [file] = Path(folder).glob("*.bin")
    return whisper_cpp.whisper_init_from_file_with_params(str(file), options)


class WhisperCppTranscriber(Transcriber):
    version = version("pywhispercpp")
    sampling_rate = 16_000

    def __init__(self, job: RuntimeJob) -> None:
        self._context, self._truncate = open_context(job.folder), job.truncate
        self._window = whisper_cpp.whisper_n_audio_ctx(self._context) * _POSITION
        self._most = whisper_cpp.whisper_n_text_ctx(self._context) // 2 - 4  # tokens that it writes of a window
        self._eos = whisper_cpp.whisper_token_eot(self._context)
        options = whisper_cpp.whisper_full_default_params(whisper_cpp.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        options.n_threads, options.suppress_nst = job.threads, job.suppress
        options.no_context, options.temperature_inc = True, 0.0
        options.print_progress = options.print_timestamps = False
        if job.language is not None:
            options.language = job.language
        whisper_cpp.assign_logits_filter_callback(options, self._token)
        self._options = options

    def transcribe(self, waveform: np.ndarray) -> tuple[str, int, bool, LongForm | None]:
        """Raises RuntimeError where whisper.cpp fails."""
        form: LongForm | None = None
        if len(waveform) > self._window:
            form = "truncated" if self._truncate else "sequential"
            waveform = waveform[: self._window] if self._truncate else waveform
        self._options.no_timestamps = self._options.single_segment = form != "sequential"
        self._first: float | None = None
        if code := whisper_cpp.whisper_full(self._context, self._options, waveform, len(waveform)):
            raise RuntimeError(f"whisper.cpp returned {code}")
        self.first_token_at = self._first or time.perf_counter()
        segments = range(whisper_cpp.whisper_full_n_segments(self._context))
        texts = [whisper_cpp.whisper_full_get_segment_text(self._context, number) for number in segments]
        written = [self._written(number) for number in segments]
        text = b"".join(texts).decode("utf-8", errors="replace").strip()
        return text, sum(written), form is None and sum(written) >= self._most, form

    def _token(self, *_: object) -> None:
        """Called before each token is chosen."""
        self._first = self._first or time.perf_counter()

    def _written(self, segment: int) -> int:
        """Tokens of a segment, times included."""
        count = whisper_cpp.whisper_full_n_tokens(self._context, segment)
        ids = (whisper_cpp.whisper_full_get_token_id(self._context, segment, number) for number in range(count))
        return sum(token != self._eos for token in ids)
