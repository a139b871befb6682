"""Audio is decoded and turned into features while the model is busy with the batch before."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from src.data.utterance import Utterance
from src.models.speech import SpeechModel

_BATCHES = 2  # held at a time: the one in work and the next
_MOST_WORKERS = 8  # as many as keep an accelerator busy


@dataclass(frozen=True)
class Prepared:
    """What the encoder takes of one utterance.

    Attributes:
        features: see :meth:`~src.models.speech.SpeechModel.features`.
        audio_seconds: spent on decoding the audio, in a worker.
        feature_seconds: spent on the features, in a worker.
    """

    features: Tensor
    audio_seconds: float
    feature_seconds: float


def ahead(
    speech: SpeechModel, batches: Sequence[Sequence[Utterance]], half: Callable[[Utterance], bool] = lambda _: False
) -> Generator[list[Prepared]]:
    """The batches, each prepared while the caller works on the one before; of an utterance, its first window.

    Of those for which ``half`` is true, the first half of the features.

    Threads suffice: decoding and transforms run outside of Python's lock. On a CPU, whose cores the model has use for,
    there is one.

    Raises:
        UserError: audio is damaged.
    """
    workers = 1 if speech.device.type == "cpu" else min(_MOST_WORKERS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers, "features", partial(torch.set_num_threads, 1))
    waiting: deque[list[Future[Prepared]]] = deque()
    try:
        for batch in batches:
            waiting.append([pool.submit(_prepare, speech, utterance, half(utterance)) for utterance in batch])
            if len(waiting) == _BATCHES:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(speech: SpeechModel, utterance: Utterance, half: bool) -> Prepared:
    start = time.perf_counter()
    waveform = utterance.waveform()[: speech.window]
    decoded = time.perf_counter()
    [features] = speech.features([waveform])
    if half:
        features = features[..., : features.shape[-1] // 2]
    return Prepared(features, decoded - start, time.perf_counter() - decoded)
