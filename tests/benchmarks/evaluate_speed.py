"""Speed of evaluate against the Open ASR leaderboard's loop around transformers, on the same clips and tokens.

``python -m tests.benchmarks.evaluate_speed whisper_tiny --root DIR`` (a folder in the hub's layout) builds the model in
its true shape with random weights and lets both write the same number of tokens a clip, as its length asks for. The
peer restates what ``transformers/run_eval.py`` of github.com/huggingface/open_asr_leaderboard does with a batch, and
times what that times, from waveforms to text; ours also reads and decodes the audio. Both run in one process, in turn.
Two things differ from the original: the number of tokens is forced, and Whisper's clips are padded with silence to the
window before the spectrogram, as its authors do, where the original appends zeros to the spectrogram of the longest.

Tokens have to be the same. Transformers' Moonshine depends on how much a batch is padded (its group norm sees the
padding), so its tokens are compared with those of batches of one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from src.data.utterance import Utterance
from src.decoding.transcribe import journal_seconds, transcribe_corpus
from src.models.loading import load
from src.models.speech import SpeechModel
from src.settings import ModelSettings
from tests.composed import composed
from tests.utterances import load_utterances

BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
Tokens = dict[str, list[int]]


def forced_tokens(samples: int, rate: float) -> int:
    """Tokens of a clip, at ``rate`` a second."""
    return max(1, round(rate * samples / 16_000))


class Peer:
    """The leaderboard's loop. Token ids stand for the text, as a random model has no tokenizer."""

    def __init__(self, speech: SpeechModel, dtype: torch.dtype, rate: float) -> None:
        self._model, self._dtype, self._rate, self._prompt = speech.module.to(dtype), dtype, rate, speech.prompt
        generation = self._model.generation_config
        generation.suppress_tokens = generation.begin_suppress_tokens = generation.forced_decoder_ids = None
        self._settings: dict[str, Any] = {}
        if self._model.config.model_type == "whisper":
            self._extractor: Any = WhisperFeatureExtractor()
            _, language, task, generation.no_timestamps_token_id = speech.prompt
            generation.lang_to_id, generation.task_to_id = {"<|en|>": language}, {"transcribe": task}
            generation.is_multilingual = True
            self._settings = {"language": "en", "task": "transcribe"}
        else:
            self._extractor = Wav2Vec2FeatureExtractor(do_normalize=False)

    def run(self, clips: Sequence[Utterance], batch_size: int) -> tuple[float, Tokens]:
        """Seconds from waveforms to tokens, in the order and the batches of ``clips``; and the tokens by clip."""
        seconds, tokens = 0.0, {}
        for start in range(0, len(clips), batch_size):
            batch = clips[start : start + batch_size]
            waveforms = [clip.waveform() for clip in batch]
            counts = [forced_tokens(clip.samples, self._rate) for clip in batch]
            before = _now(self._model.device)
            rows = self._transcribe(waveforms, max(counts))
            written = [row[:count] for row, count in zip(rows, counts, strict=True)]
            seconds += _now(self._model.device) - before
            tokens |= {clip.id: row for clip, row in zip(batch, written, strict=True)}
        return seconds, tokens

    def _transcribe(self, waveforms: list[Any], count: int) -> list[list[int]]:
        whisper = isinstance(self._extractor, WhisperFeatureExtractor)
        inputs = self._extractor(
            waveforms,
            sampling_rate=16_000,
            return_tensors="pt",
            padding="max_length" if whisper else "longest",
            return_attention_mask=True,
        ).to(self._model.device, dtype=self._dtype)
        with sdpa_kernel(BACKENDS):
            output = self._model.generate(**inputs, **self._settings, max_new_tokens=count, min_new_tokens=count)
        rows: list[list[int]] = output[:, -count:].tolist()
        return rows


class Ours:
    """Evaluate's own path: what its stage calls, from encoded audio to text."""

    def __init__(self, speech: SpeechModel, dtype: torch.dtype, rate: float) -> None:
        speech.cast(dtype)
        speech.module.generation_config.suppress_tokens = [speech.eos]  # the number of tokens is forced
        speech.max_new_tokens = lambda samples: forced_tokens(samples, rate)  # type: ignore[method-assign]
        self._speech = speech
        self.parts: dict[str, float] = {}

    def run(self, clips: Sequence[Utterance], batch_size: int) -> tuple[float, Tokens]:
        """Seconds from encoded audio to tokens, warm-up left out; and the tokens by clip."""
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "journal"
            found = transcribe_corpus(self._speech, clips, journal, batch_size=batch_size, suppress=True, kv_bits=16)
            self.parts = journal_seconds(journal)
        return self.parts["total"], {each.id: [int(token) for token in each.hypothesis.split()] for each in found}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _clips(root: str, name: str, limit: int | None, order: str) -> list[Utterance]:
    config, split = name.split("/")
    limited = "null" if limit is None else limit
    chosen = (f"dataset.config={config}", f"dataset.split={split}", f"dataset.root={root}", f"dataset.limit={limited}")
    settings = composed("dataset=librispeech_clean", *chosen).dataset
    clips = [clip for clip in load_utterances(settings, seed=0) if clip.seconds <= 30]  # one window
    return clips if order == "id" else sorted(clips, key=lambda clip: -clip.samples)


def _settings(model: str) -> ModelSettings:
    return composed(f"model={model}", "model.random_weights=true").model


def main() -> None:
    """Prints RTFx of both, wall-clock and by the processor's own seconds, the ratio, and the seconds by part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["whisper_tiny", "moonshine_tiny", "whisper_base", "moonshine_base"])
    parser.add_argument("--root", required=True, help="folder in the hub's layout")
    parser.add_argument("--split", default="librispeech/test.clean")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16, help="the leaderboard's default")
    parser.add_argument("--order", choices=["id", "length"], default="id", help="id is LibriSpeech's own order")
    parser.add_argument("--rate", type=float, default=4.0, help="tokens a second")
    parser.add_argument("--dtype", default="float32", help="of ours")
    parser.add_argument("--peer-dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3, help="the first of them is a warm-up where there are several")
    options = parser.parse_args()

    clips = _clips(options.root, options.split, options.clips, options.order)
    audio = sum(clip.seconds for clip in clips)
    models = [load(_settings(options.model), options.device, 0) for _ in range(2)]
    peer = Peer(models[0], getattr(torch, options.peer_dtype), options.rate)
    ours = Ours(models[1], getattr(torch, options.dtype), options.rate)
    runs: dict[str, Callable[[], tuple[float, Tokens]]] = {
        "peer": lambda: peer.run(clips, options.batch),
        "ours": lambda: ours.run(clips, options.batch),
    }
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    tokens: dict[str, Tokens] = {}
    for round_ in range(options.rounds):
        for name, run in runs.items():
            before = time.process_time()
            seconds, tokens[name] = run()
            if round_ or options.rounds == 1:
                wall[name].append(seconds)
                cpu[name].append(time.process_time() - before)

    table = Table(
        "", "RTFx", "seconds", "processor seconds", title=f"{options.model}, {len(clips)} clips, {audio:.0f} s"
    )
    for name in runs:
        seconds = statistics.median(wall[name])
        table.add_row(name, f"{audio / seconds:.1f}", f"{seconds:.2f}", f"{statistics.median(cpu[name]):.2f}")
    ratios = [statistics.median(each["peer"]) / statistics.median(each["ours"]) for each in (wall, cpu)]
    table.add_row("ratio", f"{ratios[0]:.2f}", "", f"{ratios[1]:.2f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"threads {torch.get_num_threads()}, batch {options.batch}, order by {options.order}, ours by part:")
    console.print(json.dumps(ours.parts))
    _compare(console, peer, clips, tokens, options.model.startswith("moonshine"))


def _compare(console: Console, peer: Peer, clips: Sequence[Utterance], tokens: dict[str, Tokens], alone: bool) -> None:
    expected = peer.run(clips, 1)[1] if alone else tokens["peer"]
    same = sum(tokens["ours"][clip.id] == expected[clip.id] for clip in clips)
    how = "one at a time" if alone else "in the same run"
    console.print(f"identical tokens: {same} of {len(clips)} clips, peer {how}")


if __name__ == "__main__":
    main()
