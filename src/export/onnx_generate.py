"""Greedy transcription with onnxruntime and numpy alone; copied beside exported graphs as ``generate.py``.

    python generate.py speech.wav [more.wav ...]        # 16 kHz, mono, 16 bits

    recogniser = Recogniser("folder")                   # encoder.onnx, decoder.onnx, generate.json
    ids = recogniser.generate([waveform])               # float32 [samples] at 16 kHz, any number of them
    print(recogniser.text(ids[0]))                      # needs `pip install tokenizers`

The loop: the encoder runs once and returns keys and values for every decoder block's cross-attention. The decoder runs
once over the prompt, with empty caches, and once per token, each time with the caches it returned the last time. Caches
stay onnxruntime's own values, so that no step copies them.
"""

from __future__ import annotations

import json
import sys
import warnings
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


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

    def decode(self, encoded: dict[str, np.ndarray], caps: Sequence[int]) -> list[list[int]]:
        """The most likely token at each step, until the end token or the clip's cap."""
        eos, batch = self.told["eos"], len(caps)
        state = self.start(encoded)
        tokens = np.tile(np.array(self.told["prompt"], np.int64), (batch, 1))
        written = np.full((batch, max(caps)), eos, np.int64)
        for step in range(max(caps)):
            logits = self.step(tokens, state)
            logits[:, self.told["suppress_first" if step == 0 else "suppress"]] = -np.inf
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
        """The transcript of token ids."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _padded(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        lengths = [max(len(waveform), self.told["shortest"]) for waveform in waveforms]
        padded = [np.pad(waveform, (0, max(lengths) - len(waveform))) for waveform in waveforms]
        return {"audio": np.stack(padded).astype(np.float32), "samples": np.array(lengths, np.int64)}

    def _mels(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {"mel": np.stack([self._log_mel(waveform) for waveform in waveforms])}

    def _log_mel(self, waveform: np.ndarray) -> np.ndarray:
        """Whisper's features [mels, frames] of one window; what a clip has beyond it is cut off."""
        width, hop, window = 400, 160, self.told["window"]
        clip = np.pad(waveform[:window], (0, max(0, window - len(waveform)))).astype(np.float64)
        padded = np.pad(clip, width // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::hop][:-1]
        power = np.abs(np.fft.rfft(frames * np.hanning(width + 1)[:-1])) ** 2
        log = np.log10(np.maximum(power @ np.array(self.told["mel_filters"]), 1e-10)).T
        features: np.ndarray = ((np.maximum(log, log.max() - 8) + 4) / 4).astype(np.float32)
        return features


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
        print(recogniser.text(recogniser.generate([read_wave(name)])[0]))
