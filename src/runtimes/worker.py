"""The process that runs one exported model: ``python -m src.runtimes.worker``, driven by :mod:`src.runtimes.process`.

Its first line of input is a :class:`~src.runtimes.job.RuntimeJob`; then come waveforms, each as its number of samples
in eight bytes and the samples as float32. It answers with a line each. It imports the one runtime it runs, so that its
peak memory is that runtime's.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import BinaryIO, Final, TextIO

import numpy as np

from src.machine.memory_peak import process_peak_mib
from src.runtimes.job import Heard, Loaded, RuntimeJob, Transcriber

LENGTH: Final = struct.Struct("<q")
Classes = Mapping[str, str]  # module and name of a runtime's Transcriber, by the runtime's name
_CLASSES: Final[Classes] = {
    "onnx": "src.runtimes.onnx_transcriber.OnnxTranscriber",
    "whisper_cpp": "src.runtimes.whisper_cpp_transcriber.WhisperCppTranscriber",
}


def open_transcriber(job: RuntimeJob, classes: Classes) -> tuple[Transcriber, Loaded]:
    """Imports the runtime, loads the model and hears a second of silence, so that what is set up then is not timed."""
    module, _, name = classes[job.runtime].rpartition(".")
    make = getattr(import_module(module), name)
    start = time.perf_counter()
    transcriber: Transcriber = make(job)
    load_ms = (time.perf_counter() - start) * 1000.0
    transcriber.transcribe(np.zeros(transcriber.sampling_rate, np.float32))
    return transcriber, Loaded(load_ms, transcriber.version)


def hear(transcriber: Transcriber, waveform: np.ndarray) -> Heard:
    start, before = time.perf_counter(), time.process_time()
    text, tokens, capped, long_form = transcriber.transcribe(waveform)
    seconds, computed = time.perf_counter() - start, time.process_time() - before
    first_token_ms = (transcriber.first_token_at - start) * 1000.0
    return Heard(text, tokens, capped, long_form, seconds, computed, first_token_ms, process_peak_mib())


def serve(questions: BinaryIO, answers: TextIO, classes: Classes) -> None:
    """Until there is no further waveform."""
    transcriber, loaded = open_transcriber(RuntimeJob(**json.loads(questions.readline())), classes)
    _answer(answers, asdict(loaded))
    while len(header := questions.read(LENGTH.size)) == LENGTH.size:
        samples = questions.read(LENGTH.unpack(header)[0] * np.float32().nbytes)
        _answer(answers, asdict(hear(transcriber, np.frombuffer(samples, np.float32))))


def _answer(answers: TextIO, told: dict[str, object]) -> None:
    answers.write(json.dumps(told) + "\n")
    answers.flush()


def main(classes: Classes = _CLASSES) -> None:
    """Serves the process's input; ``classes`` of a caller's own serve other runtimes."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as output:
        os.dup2(2, 1)  # what a library prints is no answer
        serve(sys.stdin.buffer, output, classes)


if __name__ == "__main__":
    main()
