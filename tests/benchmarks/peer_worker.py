"""The process that runs one peer's runtime: ``python -m tests.benchmarks.peer_worker``, as :mod:`src.runtimes.worker`.

Each decodes greedily with the settings that evaluate has: no times, no fallback to higher temperatures, no text of
earlier windows, no voice activity detection, the checkpoint's suppressed tokens, and as many tokens as ``limits.json``
in its folder allows.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from src.data.transcripts import LongForm
from src.runtimes.job import RuntimeJob, Transcriber
from src.runtimes.worker import main

LIMITS = "limits.json"
_SAMPLING_RATE = 16_000


def most_tokens(limits: dict[str, Any], samples: int) -> int:
    """As :meth:`src.models.speech.SpeechModel.max_new_tokens`."""
    rate, most = limits["tokens_per_second"], int(limits["max_tokens"])
    return most if rate is None else min(most, int(samples * rate // _SAMPLING_RATE + 2))


class Peer(Transcriber):
    sampling_rate = _SAMPLING_RATE
    first_token_at = math.nan  # where it cannot be had

    def __init__(self, job: RuntimeJob) -> None:
        self.limits = json.loads((Path(job.folder) / LIMITS).read_text(encoding="utf-8"))


class FasterWhisper(Peer):
    """CTranslate2, in the type that the folder's weights have."""

    def __init__(self, job: RuntimeJob) -> None:
        from faster_whisper import WhisperModel

        super().__init__(job)
        self.version = f"{version('faster-whisper')}, CTranslate2 {version('ctranslate2')}"
        self._model = WhisperModel(job.folder, device="cpu", compute_type="default", cpu_threads=job.threads)
        self._settings: dict[str, Any] = {
            **{"language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False},
            **{"compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None},
            **{"without_timestamps": True, "vad_filter": False, "max_new_tokens": self.limits["max_tokens"]},
        }

    def transcribe(self, waveform: np.ndarray) -> tuple[str, int, bool, LongForm | None]:
        segments = list(self._model.transcribe(waveform, **self._settings)[0])
        tokens = sum(len(segment.tokens) for segment in segments)
        return "".join(segment.text for segment in segments).strip(), tokens, False, None


class MoonshineVoice(Peer):
    """The authors' runtime. Its detector of speech cannot be left out, but made to pass a clip as one piece."""

    def __init__(self, job: RuntimeJob) -> None:
        from moonshine_voice import moonshine_api
        from moonshine_voice.transcriber import Transcriber as Authors

        super().__init__(job)
        self.version = version("moonshine-voice")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])  # there is no setting for threads
        whole = {"vad_threshold": 0.0, "vad_max_segment_duration": 60, "identify_speakers": "false"}
        most = {"max_tokens_per_second": self.limits["tokens_per_second"]}
        self._model = Authors(job.folder, moonshine_api.ModelArch.TINY, options={**whole, **most})
        self._answer = ctypes.POINTER(moonshine_api.TranscriptC)

    def transcribe(self, waveform: np.ndarray) -> tuple[str, int, bool, LongForm | None]:
        """By the library's own function: the package's unpacks samples one by one. Raises RuntimeError: it failed."""
        answer, samples = self._answer(), waveform.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        call, handle = self._model._lib.moonshine_transcribe_without_streaming, self._model._handle
        if code := call(handle, samples, len(waveform), _SAMPLING_RATE, 0, ctypes.byref(answer)):
            raise RuntimeError(f"moonshine-voice returned {code}")
        lines = [answer.contents.lines[number] for number in range(answer.contents.line_count)]
        texts = [ctypes.string_at(line.text).decode("utf-8", errors="replace") for line in lines if line.text]
        return " ".join(texts).strip(), 0, False, None


class TransformersModel(Peer):
    """``generate``, in the type that the folder's weights have."""

    def __init__(self, job: RuntimeJob) -> None:
        import torch
        from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

        super().__init__(job)
        self.version = f"{version('transformers')}, torch {version('torch')}"
        torch.set_num_threads(job.threads)
        self._model = AutoModelForSpeechSeq2Seq.from_pretrained(job.folder, dtype="auto").eval()
        self._extractor = AutoFeatureExtractor.from_pretrained(job.folder)
        self._tokenizer = AutoTokenizer.from_pretrained(job.folder)
        whisper = self._model.config.model_type == "whisper"
        multilingual = whisper and self._model.generation_config.is_multilingual
        self._padding = "max_length" if whisper else "longest"
        self._told = {"language": "en", "task": "transcribe"} if multilingual else {}
        self._no_gradients = torch.inference_mode

    def transcribe(self, waveform: np.ndarray) -> tuple[str, int, bool, LongForm | None]:
        inputs = self._extractor(waveform, sampling_rate=16_000, return_tensors="pt", padding=self._padding)
        cap = most_tokens(self.limits, len(waveform))
        self.first_token_at = math.nan
        with self._no_gradients():
            ids = self._model.generate(
                **inputs.to(self._model.dtype),
                **self._told,
                max_new_tokens=cap,
                do_sample=False,
                logits_processor=[self._note],
            )[0].tolist()
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        special = set(self._tokenizer.all_special_ids)
        tokens = sum(token not in special for token in ids)
        return text, tokens, tokens >= cap, None

    def _note(self, _: Any, logits: Any) -> Any:
        if math.isnan(self.first_token_at):
            self.first_token_at = time.perf_counter()
        return logits


if __name__ == "__main__":
    names = {"faster_whisper": FasterWhisper, "moonshine_voice": MoonshineVoice, "transformers": TransformersModel}
    main({name: f"{Peer.__module__}.{each.__name__}" for name, each in names.items()})
