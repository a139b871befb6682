"""The calibration set: clips, their features, and the text the decoder is fed on them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from src.data.corpora import Utterance
from src.decoding.longform import announce
from src.decoding.transcribe import transcribe
from src.machine.progress import progress
from src.models.speech import SpeechModel
from src.storage.journal import Journal, digest, program

CLIPS = "clips.json"
WAVEFORMS = "waveforms.safetensors"
_OF_A_CLIP = ("ids", "seconds", "waveforms", "features", "tokens")


@dataclass(frozen=True)
class Calibration:
    """Clips in a fixed order, longest first, so that a batch holds little padding.

    Attributes:
        ids: utterance id of each clip.
        seconds: length of each clip.
        waveforms: what is heard of each clip, float32 [samples].
        features: model features of each clip, on the CPU.
        tokens: decoder input of each clip: the prompt, then the fp model's tokens or those of the reference, without
            the end token; empty without a decoder.
        batch_size: clips that go through a block together.
        silence: what a frame of the encoder counts in Gram matrices and losses, beside one that hears speech, where it
            hears the silence that a clip is padded with.
    """

    ids: list[str]
    seconds: list[float]
    waveforms: list[np.ndarray]
    features: list[Tensor]
    tokens: list[list[int]]
    batch_size: int
    silence: float = 1.0

    def batches(self) -> Iterator[tuple[list[Tensor], list[list[int]]]]:
        """Features and decoder inputs, batch by batch."""
        for start in range(0, len(self.ids), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            yield self.features[chosen], self.tokens[chosen]

    def frame_weights(self, speech: SpeechModel, frames: int) -> list[Tensor] | None:
        """``R`` of ``H = X R^2 X^T``, [clips, frames] a batch, if the encoder makes so many frames of every clip.

        None where all count alike, as they always do where clips are not padded to one length.
        """
        clips = zip(self.features, self.seconds, strict=True)
        shares = [speech.heard_share(features, round(seconds * speech.sampling_rate)) for features, seconds in clips]
        if self.silence == 1 or min(shares) == 1:
            return None
        heard = torch.tensor([[math.ceil(share * frames)] for share in shares], device=speech.device)
        weights = torch.where(torch.arange(frames, device=speech.device) < heard, 1.0, math.sqrt(self.silence))
        return [weights[start : start + self.batch_size] for start in range(0, len(weights), self.batch_size)]

    def in_half(self, speech: SpeechModel) -> Calibration:
        """Those that half of the model's window holds, in half of it: a fourth of the silence, and half the time.

        Views of the same features. See :meth:`~src.models.speech.SpeechModel.fits_half`.
        """
        fits = [speech.fits_half(round(seconds * speech.sampling_rate)) for seconds in self.seconds]
        heard = zip(self.features, fits, strict=True)
        return replace(self, features=[each[..., : each.shape[-1] // (1 + half)] for each, half in heard])

    def part(self, clips: Iterable[int]) -> Calibration:
        """Those of the given numbers."""
        chosen = list(clips)
        return self._with({name: [getattr(self, name)[clip] for clip in chosen] for name in _OF_A_CLIP})

    def __add__(self, other: Calibration) -> Calibration:
        """The clips of both, these first."""
        return self._with({name: [*getattr(self, name), *getattr(other, name)] for name in _OF_A_CLIP})

    def _with(self, lists: dict[str, Any]) -> Calibration:
        return replace(self, **lists)

    @staticmethod
    def pad(tokens: Sequence[Sequence[int]], fill: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Right-padded tokens ``[batch, length]`` and the mask that is True on real ones."""
        length = max(map(len, tokens))
        padded = torch.full((len(tokens), length), fill, device=device)
        valid = torch.zeros(len(tokens), length, dtype=torch.bool, device=device)
        for row, sequence in enumerate(tokens):
            padded[row, : len(sequence)] = torch.tensor(sequence, device=device)
            valid[row, : len(sequence)] = True
        return padded, valid

    def save(self, folder: Path) -> None:
        """Writes :data:`CLIPS` and :data:`WAVEFORMS`; features are computed faster than read."""
        clips = [
            {"id": clip, "seconds": seconds, "tokens": tokens}
            for clip, seconds, tokens in zip(self.ids, self.seconds, self.tokens, strict=True)
        ]
        (folder / CLIPS).write_text(json.dumps(clips, indent=1) + "\n", encoding="utf-8")
        waveforms = {f"{index:05d}": np.ascontiguousarray(each) for index, each in enumerate(self.waveforms)}
        (folder / WAVEFORMS).write_bytes(save(waveforms))


def capture(
    speech: SpeechModel,
    clips: Sequence[Utterance],
    journal: Path,
    *,
    batch_size: int,
    suppress: bool,
    references: bool = False,
) -> Calibration:
    """Keeps features and tokens of ``clips``: the fp model's transcripts, or the ``references`` of the corpus.

    Nothing is transcribed for a model without a decoder to read it.

    Teacher forcing replays one window: of clips longer than the model's, the rest is left out, and the log says so. A
    reference is cut where a transcript of the window would be, at the model's cap on tokens. Every transcribed batch is
    appended to the :class:`~src.storage.journal.Journal` at ``journal``, so that a run that was killed goes on with the
    next.
    """
    announce(speech, clips, truncate=True)
    clips = sorted(clips, key=lambda clip: (-clip.samples, clip.id))
    waveforms = [clip.waveform()[: speech.window] for clip in clips]
    features: list[Tensor] = []
    tokens: list[list[int]] = []
    batches = [clips[start : start + batch_size] for start in range(0, len(clips), batch_size)]
    kept = None
    if not speech.graph.decoder:
        spoken: list[list[list[int]]] = [[[] for _ in batch] for batch in batches]
    elif references:
        spoken = [_references(speech, batch) for batch in batches]
    else:
        kept = _journal(journal, speech, clips, batch_size, suppress)
        spoken = list(kept.values)
    for number, batch in enumerate(progress(batches, "calibrate, batches")):
        if kept is None or number < len(spoken):
            start = number * batch_size
            features += speech.features(waveforms[start : start + batch_size])
        else:
            heard, said = transcribe(speech, batch, suppress=suppress)
            kept.append(said)
            features += heard
            spoken.append(said)
        tokens += [[*speech.prompt, *ids] for ids in spoken[number]]
    seconds = [min(clip.samples, speech.window) / speech.sampling_rate for clip in clips]
    return Calibration([clip.id for clip in clips], seconds, waveforms, features, tokens, batch_size)


def _journal(path: Path, speech: SpeechModel, clips: Sequence[Utterance], batch_size: int, suppress: bool) -> Journal:
    basis = {
        **program(),
        "clips": digest([[clip.id, clip.samples] for clip in clips]),
        "batch_size": batch_size,
        "suppress": suppress,
        "device": str(speech.device),
    }
    return Journal(path, basis)


def _references(speech: SpeechModel, clips: Sequence[Utterance]) -> list[list[int]]:
    caps = [speech.max_new_tokens(min(clip.samples, speech.window)) for clip in clips]
    return [speech.tokens(clip.text)[:cap] for clip, cap in zip(clips, caps, strict=True)]


def load_calibration(folder: Path, speech: SpeechModel, batch_size: int, silence: float = 1.0) -> Calibration:
    """Reads what :meth:`Calibration.save` wrote, of clips for ``speech``."""
    clips = json.loads((folder / CLIPS).read_text(encoding="utf-8"))
    stored = load_file(folder / WAVEFORMS)
    waveforms = [stored[name] for name in sorted(stored)]
    return Calibration(
        ids=[clip["id"] for clip in clips],
        seconds=[clip["seconds"] for clip in clips],
        waveforms=waveforms,
        features=speech.features(waveforms),
        tokens=[clip["tokens"] for clip in clips],
        batch_size=batch_size,
        silence=silence,
    )
