"""Greedy transcription with onnxruntime and numpy alone; copied beside exported graphs as ``generate.py``.

    python generate.py speech.wav [more.wav ...]        # 16 kHz, mono, 16 bits

    recogniser = Recogniser("folder")                   # encoder.onnx, decoder.onnx, generate.json
    print(recogniser.transcribe(waveform).text)         # float32 [samples] at 16 kHz; needs `pip install tokenizers`
    ids = recogniser.generate([waveform, another])      # token ids of several clips that fit the window, together

Audio beyond the model's window is heard whole, unless evaluate was told to truncate it: by Whisper sequentially, each
window beginning where the last complete segment of the one before ended (arXiv 2212.04356, section 3.8), by models
without time tokens in segments cut at the quietest points. Where evaluate was told ``window=clip``, Whisper hears clips
that half of its window holds, with a second of silence, in half of it.

The loop: the encoder runs once and returns keys and values for every decoder block's cross-attention. The decoder runs
once over the prompt, with empty caches, and once per token, each time with the caches it returned the last time. Caches
stay onnxruntime's own values, so that no step copies them.
"""

from __future__ import annotations

import json
import sys
import warnings
import wave
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime

LongForm = Literal["sequential", "segments", "truncated"]
_WIDTH, _HOP = 400, 160  # samples of a frame of Whisper's spectrogram, and from one to the next
_FRAMES = 3000  # transformed at a time, as each takes kilobytes on the way


class Transcription(NamedTuple):
    """What was written of one waveform.

    Attributes:
        text: without times.
        tokens: generated in all windows, end tokens not counted.
        capped: whether a window hit the cap on them.
        long_form: what was done with audio beyond the window: ``sequential``, ``segments`` or ``truncated``; else None.
    """

    text: str
    tokens: int
    capped: bool
    long_form: LongForm | None


class Recogniser:
    """One exported model. ``threads`` is what onnxruntime computes with; 0 lets it choose."""

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        self.folder = Path(folder)
        self.told: dict[str, Any] = json.loads((self.folder / "generate.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(str(self.folder / name), options, providers=["CPUExecutionProvider"])
            for name in ("encoder.onnx", "decoder.onnx")
        )
        self._outputs = [output.name for output in self.decoder.get_outputs()]

    def transcribe(self, waveform: np.ndarray) -> Transcription:
        """The text of a waveform of any length."""
        if len(waveform) <= self.told["window"]:
            return self._window(waveform, None)
        if self.told["truncate"]:
            return self._window(waveform[: self.told["window"]], "truncated")
        return self._segments(waveform) if self.told["times"] is None else self._sequential(waveform)

    def generate(self, waveforms: Sequence[np.ndarray]) -> list[list[int]]:
        """Token ids of each waveform, without prompt and end token; what is beyond the window is left out."""
        window = self.told["window"]
        longer = sum(len(waveform) > window for waveform in waveforms)
        if longer:
            seconds = window / self.told["sampling_rate"]
            warnings.warn(f"{longer} clips are longer than {seconds:g} s and are cut to it", stacklevel=2)
        waveforms = [waveform[:window] for waveform in waveforms]
        return self.decode(self.encode(waveforms), [self.cap(len(waveform)) for waveform in waveforms])

    def encode(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What the decoder attends to, by the name of its input."""
        return self.encode_features(self.features(waveforms))

    def features(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What the encoder takes, by the name of its input."""
        return self._mels(waveforms) if "mel_filters" in self.told else self._padded(waveforms)

    def encode_features(self, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.encoder.get_outputs()]
        return dict(zip(names, self.encoder.run(names, features), strict=True))

    def start(self, encoded: dict[str, np.ndarray]) -> dict[str, onnxruntime.OrtValue]:
        """What the decoder reads beside its tokens, before the first of them: ``encoded`` and empty caches."""
        batch = len(next(iter(encoded.values())))
        empty = {
            item.name: np.zeros((batch, item.shape[1], 0, item.shape[3]), np.float32)
            for item in self.decoder.get_inputs()
            if item.name.startswith("past_")
        }
        return {name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in {**encoded, **empty}.items()}

    def step(self, tokens: np.ndarray, state: dict[str, onnxruntime.OrtValue]) -> np.ndarray:
        """Logits [batch, vocabulary] after the last of ``tokens`` int64 [batch, new]; adds them to ``state``."""
        read = {"tokens": onnxruntime.OrtValue.ortvalue_from_numpy(tokens), **state}
        outputs = dict(zip(self._outputs, self.decoder.run_with_ort_values(self._outputs, read), strict=True))
        logits: np.ndarray = outputs.pop("logits").numpy()[:, -1]
        state |= {f"past_{name}": value for name, value in outputs.items()}
        return logits

    def decode(
        self,
        encoded: dict[str, np.ndarray],
        caps: Sequence[int],
        prompt: Sequence[int] | None = None,
        rules: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> list[list[int]]:
        """The most likely token at each step, until the end token or the clip's cap.

        ``prompt`` replaces the model's own; ``rules`` takes logits [batch, vocabulary] and what each row has written
        [batch, steps], and returns logits that are minus infinity where a token may not follow.
        """
        eos, batch = self.told["eos"], len(caps)
        state = self.start(encoded)
        tokens = np.tile(np.array(self.told["prompt"] if prompt is None else prompt, np.int64), (batch, 1))
        written = np.full((batch, max(caps)), eos, np.int64)
        for step in range(max(caps)):
            logits = self.step(tokens, state)
            logits[:, self.told["suppress_first" if step == 0 else "suppress"]] = -np.inf
            if rules is not None:
                logits = rules(logits, written[:, :step])
            written[:, step] = logits.argmax(axis=1)
            tokens = np.ascontiguousarray(written[:, step : step + 1])
            done = (written[:, : step + 1] == eos).any(axis=1) | (np.array(caps) <= step + 1)
            if done.all():
                break
        return [_until(row[:cap], eos) for row, cap in zip(written.tolist(), caps, strict=True)]

    def cap(self, samples: int) -> int:
        """Most tokens a clip of so many samples may have."""
        rate = self.told["tokens_per_second"]
        most: int = self.told["max_tokens"]
        return most if rate is None else min(most, int(samples * rate // self.told["sampling_rate"] + 2))

    def text(self, ids: Sequence[int]) -> str:
        """The transcript of token ids; random weights have no tokenizer, and the numbers stand for the text."""
        if self._tokenizer is None:
            return " ".join(map(str, ids))
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @cached_property
    def _tokenizer(self) -> Any:
        file = self.folder / "tokenizer.json"
        if not file.exists():
            return None
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(file))

    def _window(self, waveform: np.ndarray, long_form: LongForm | None) -> Transcription:
        [ids] = self.generate([waveform])
        return Transcription(self.text(ids), len(ids), len(ids) >= self.cap(len(waveform)), long_form)

    def _segments(self, waveform: np.ndarray) -> Transcription:
        parts = [self._window(part, None) for part in np.split(waveform, cuts(waveform, self.told["window"]))]
        text = " ".join(part.text for part in parts if part.text)
        return Transcription(text, sum(part.tokens for part in parts), any(part.capped for part in parts), "segments")

    def _sequential(self, waveform: np.ndarray) -> Transcription:
        """Window by window, with times; the last one is filled up with zeros in the normalised spectrogram."""
        times = self.told["times"]
        mels, window = self._log_mel(waveform), (times["last"] - times["first"]) * times["frames"]
        seek, generated, capped, standing = 0, 0, False, []
        while (left := mels.shape[1] - seek) > 0:
            part = mels[:, seek : seek + window]
            mel = np.pad(part, ((0, 0), (0, window - part.shape[1])))[None]
            encoded = self.encode_features({"mel": np.ascontiguousarray(mel)})
            [ids] = self.decode(encoded, [times["cap"]], times["prompt"], self._time_rules)
            stands, passed = complete(ids, times, min(window, left))
            standing += [token for token in stands if not times["first"] <= token <= times["last"]]
            seek, generated, capped = seek + passed, generated + len(ids), capped or len(ids) >= times["cap"]
        return Transcription(self.text(standing), generated, capped, "sequential")

    def _time_rules(self, logits: np.ndarray, written: np.ndarray) -> np.ndarray:
        """Of one row: a time first, none before an earlier one, in pairs but for the last, and likely ones at once."""
        times, [row] = self.told["times"], written.tolist()
        first, last, ids = times["first"], times["last"], np.arange(logits.shape[1])
        is_time = (ids >= first) & (ids <= last)
        if not row:
            forbidden = ~is_time | (ids > first + times["latest_start"])
        else:
            is_text = (ids < self.told["eos"]) | (ids > last)
            timed = [first <= token <= last for token in row]
            opened = timed[-2] if len(row) > 1 else True
            closing = timed[-1] and not opened  # a time after text: another time or the end has to follow
            latest = max((token for token, is_one in zip(row, timed, strict=True) if is_one), default=first - 1)
            forbidden = (is_time & (ids < (latest if closing else latest + 1))) | (ids == first - 1)
            if timed[-1]:
                forbidden |= is_text if closing else is_time
        logits = np.where(forbidden, -np.inf, logits)
        shifted = logits[0] - logits[0].max()
        if np.exp(shifted[is_time]).sum() > np.exp(shifted[~is_time].max()):
            logits[:, ~is_time] = -np.inf
        return logits

    def _padded(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        lengths = [max(len(waveform), self.told["shortest"]) for waveform in waveforms]
        padded = [np.pad(waveform, (0, max(lengths) - len(waveform))) for waveform in waveforms]
        return {"audio": np.stack(padded).astype(np.float32), "samples": np.array(lengths, np.int64)}

    def _mels(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        mels = np.stack([self._log_mel(waveform[: self.told["window"]]) for waveform in waveforms])
        longest = max(map(len, waveforms)) + self.told["sampling_rate"]  # a clip that is cut off at its end is repeated
        half = self.told.get("by_clip") and longest <= self.told["window"] // 2
        return {"mel": np.ascontiguousarray(mels[..., : mels.shape[-1] // 2]) if half else mels}

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        """Whisper's features [mels, frames] of one window, which shorter clips are padded to, or of longer audio."""
        clip = np.pad(waveform, (0, max(0, self.told["window"] - len(waveform))))
        padded = np.pad(clip, _WIDTH // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, _WIDTH)[::_HOP][:-1]
        hann, filters = np.hanning(_WIDTH + 1)[:-1], np.array(self.told["mel_filters"])
        parts = [
            np.abs(np.fft.rfft(frames[start : start + _FRAMES] * hann)) ** 2 @ filters
            for start in range(0, len(frames), _FRAMES)
        ]
        log = np.log10(np.maximum(np.concatenate(parts), 1e-10)).T
        features: np.ndarray = ((np.maximum(log, log.max() - 8) + 4) / 4).astype(np.float32)
        return features


def complete(tokens: Sequence[int], times: dict[str, Any], frames: int) -> tuple[Sequence[int], int]:
    """The part of a window's transcript that stands, and the mel frames, of ``frames``, after which the next begins.

    What follows the last two times in a row is an unfinished segment, which the next window hears whole; without such
    a pair, or where the transcript ends in a single time, all of it stands.
    """
    is_time = [times["first"] <= token <= times["last"] for token in tokens]
    pairs = [second for second in range(1, len(tokens)) if is_time[second - 1] and is_time[second]]
    if not pairs or is_time[-2:] == [False, True]:
        return tokens, frames
    return tokens[: pairs[-1] + 1], (tokens[pairs[-1] - 1] - times["first"]) * times["frames"]


def cuts(waveform: np.ndarray, window: int) -> list[int]:
    """Samples at which audio is cut into segments of at most ``window`` samples, none shorter than a quarter of that.

    Each is the middle of the quietest 0.2 s of the later half of what the segment may hold; of equal ones the latest.
    """
    found, start = [], 0
    while (rest := len(waveform) - start) > window:
        high = min(window, rest - window // 4)
        start += _quietest(waveform[start : start + high], max(high - window // 2, window // 4))
        found.append(start)
    return found


def _quietest(waveform: np.ndarray, low: int) -> int:
    stretch = min(3200, len(waveform) - low)
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform[low:], dtype=np.float64))])
    starts = np.arange(len(energy) - 1 - stretch, -1, -_HOP)  # the latest first, so that it wins a tie
    return low + int(starts[np.argmin(energy[starts + stretch] - energy[starts])]) + stretch // 2


def _until(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


def read_wave(path: str) -> np.ndarray:
    """Samples in -1 .. 1 of a 16 kHz, mono, 16-bit file."""
    with wave.open(path) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (16000, 1, 2):
            raise ValueError(f"{path} is not 16 kHz, mono, 16 bits")
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


if __name__ == "__main__":
    recogniser = Recogniser(Path(__file__).parent)
    for name in sys.argv[1:]:
        print(recogniser.transcribe(read_wave(name)).text)
