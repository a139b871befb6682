"""Audio longer than a model's window: Whisper's sequential decoding, or segments cut at the quietest points.

*Sequential* (arXiv 2212.04356, section 3.8): a window is transcribed with time tokens, and the next one begins where
its last complete segment ended, until the audio ends. Greedy, at temperature 0, each window on its own. The authors'
remedies against failed windows are left out (higher temperatures, thresholds on compression and probability, detection
of silence), and so is the prompt from the previous window. This is transformers' ``generate(return_timestamps=True)``
with its defaults; from there is also how the last window is filled up: with zeros in the normalised spectrogram.

*Segments*: Moonshine has no time tokens, nor have Whispers whose vocabulary ends before them. Their audio is cut into
segments of at most a window, each at the quietest point of the window's later half; segments are transcribed on their
own, each with its own cap, and their texts joined by spaces.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

import numpy as np
import torch
from torch import Tensor

from src.data.audio import SAMPLING_RATE, Waveform
from src.data.transcripts import LongForm
from src.data.utterance import Utterance
from src.decoding.decode import Constraint
from src.decoding.timestamps import complete, time_rules
from src.machine.progress import progress, working
from src.models.speech import SpeechModel, TimeTokens

_log = logging.getLogger(__name__)

Search = Callable[..., list[list[int]]]  # greedy decoding of a batch, its other arguments bound

_PAUSE: Final = SAMPLING_RATE // 5  # samples whose energy is compared; longer than the closure of a stop consonant
_HOP: Final = SAMPLING_RATE // 100
_WORDS: Final[dict[LongForm, str]] = {
    "sequential": "decoded sequentially, window by window",
    "segments": "cut into segments at the quietest points, as the model has no time tokens",
    "truncated": "the rest is left out",
}


@dataclass(frozen=True)
class Decoded:
    """Text of one utterance, tokens generated for it in all windows, and whether a window hit the cap on them."""

    text: str
    tokens: int
    capped: bool


def form_of(speech: SpeechModel, samples: int, *, truncate: bool) -> LongForm | None:
    """How audio of this length becomes text; None where it fits the window."""
    if samples <= speech.window:
        return None
    if truncate:
        return "truncated"
    return "segments" if speech.time_tokens is None else "sequential"


def announce(speech: SpeechModel, utterances: Sequence[Utterance], *, truncate: bool) -> None:
    """Logs how many utterances are longer than the window and what happens to them."""
    forms = Counter(form_of(speech, utterance.samples, truncate=truncate) for utterance in utterances)
    for form, words in _WORDS.items():
        if forms[form]:
            seconds = speech.window / speech.sampling_rate
            _log.info("%d of %d utterances last longer than %.3g s: %s", forms[form], len(utterances), seconds, words)


def decode_long(
    speech: SpeechModel,
    utterances: Sequence[Utterance],
    *,
    batch_size: int,
    search: Search,
) -> list[Decoded]:
    """Transcribes utterances longer than the window, ``batch_size`` windows at a time.

    ``search`` is :func:`~src.decoding.decode.greedy` for ``speech``, with all but features and samples bound.
    """
    waveforms = [utterance.waveform() for utterance in utterances]
    times = speech.time_tokens
    if times is None:
        return _in_segments(speech, waveforms, batch_size, search)
    return [course.decoded(speech, times) for course in sequential(speech, times, waveforms, batch_size, search)]


@dataclass
class Course:
    """How far one utterance is decoded.

    Attributes:
        mels: its whole spectrogram, ``[mels, frames]``.
        seek: the frame at which the next window begins.
        tokens: what stands of the windows so far, times included.
        generated: number of tokens generated so far, end tokens not counted.
        capped: whether a window hit the cap.
    """

    mels: Tensor
    seek: int = 0
    tokens: list[int] = field(default_factory=list)
    generated: int = 0
    capped: bool = False

    @property
    def left(self) -> int:
        """Frames that are not yet decoded."""
        return self.mels.shape[1] - self.seek

    def window(self, frames: int) -> Tensor:
        """The next ``frames`` frames, filled up with zeros."""
        part = self.mels[:, self.seek : self.seek + frames]
        return torch.nn.functional.pad(part, (0, frames - part.shape[1]))

    def advance(self, tokens: Sequence[int], times: TimeTokens, frames: int) -> None:
        """Takes up the transcript of the next window."""
        standing, passed = complete(tokens, times, min(frames, self.left))
        self.tokens += standing
        self.seek += passed
        self.generated += len(tokens)
        self.capped |= len(tokens) >= times.cap

    def decoded(self, speech: SpeechModel, times: TimeTokens) -> Decoded:
        """The text without its times."""
        text = speech.text([token for token in self.tokens if not times.holds(token)])
        return Decoded(text.strip(), self.generated, self.capped)


def sequential(
    speech: SpeechModel, times: TimeTokens, waveforms: Sequence[Waveform], batch_size: int, search: Search
) -> list[Course]:
    """Decodes each waveform window by window to its end."""
    courses = [Course(speech.whole_features(waveform)) for waveform in waveforms]
    constraint = Constraint(times.prompt, times.cap, partial(time_rules, times, speech.eos))
    frames = times.window
    with working("windows", sum(course.left for course in courses) / frames) as done:
        while unfinished := [course for course in courses if course.left > 0][:batch_size]:
            before = sum(course.left for course in unfinished)
            windows = [course.window(frames) for course in unfinished]
            found = search(windows, [speech.window] * len(windows), constraint=constraint)
            for course, tokens in zip(unfinished, found, strict=True):
                course.advance(tokens, times, frames)
            done((before - sum(course.left for course in unfinished)) / frames)
    return courses


def _in_segments(speech: SpeechModel, waveforms: Sequence[Waveform], batch_size: int, search: Search) -> list[Decoded]:
    parts = [np.split(waveform, cuts(waveform, speech.window)) for waveform in waveforms]
    segments = [segment for own in parts for segment in own]
    tokens: list[list[int]] = []
    for start in progress(range(0, len(segments), batch_size), "segments"):
        batch = segments[start : start + batch_size]
        tokens += search(speech.features(batch), [len(segment) for segment in batch])
    each = iter(zip(segments, tokens, strict=True))
    return [_joined(speech, list(islice(each, len(own)))) for own in parts]


def _joined(speech: SpeechModel, parts: Sequence[tuple[Waveform, list[int]]]) -> Decoded:
    texts = [speech.text(tokens).strip() for _, tokens in parts]
    return Decoded(
        text=" ".join(filter(None, texts)),
        tokens=sum(len(tokens) for _, tokens in parts),
        capped=any(speech.is_capped(len(tokens), len(segment)) for segment, tokens in parts),
    )


def cuts(waveform: Waveform, window: int) -> list[int]:
    """Samples at which audio is cut into segments of at most ``window`` samples, none shorter than a quarter of that.

    Each cut is the middle of the quietest 0.2 s of the later half of what the segment may hold; of equally quiet ones,
    the latest.
    """
    found, start = [], 0
    while (rest := len(waveform) - start) > window:
        high = min(window, rest - window // 4)  # what is left can always be a segment
        start += _quietest(waveform[start : start + high], max(high - window // 2, window // 4))
        found.append(start)
    return found


def _quietest(waveform: Waveform, low: int) -> int:
    """The middle of the quietest stretch from sample ``low`` on."""
    stretch = min(_PAUSE, len(waveform) - low)
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform[low:], dtype=np.float64))])
    starts = np.arange(len(energy) - 1 - stretch, -1, -_HOP)  # the latest first, so that it wins a tie
    return low + int(starts[np.argmin(energy[starts + stretch] - energy[starts])]) + stretch // 2
