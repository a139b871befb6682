"""Training of one sandbox recogniser: attention loss and a CTC loss that is dropped afterwards.

Warm-up, a constant rate, then a linear decay to zero; checkpointed, and resumed with the same or other step counts.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.sandbox.making.acoustics import MILD, STRONG, change_tempo, distort, noise_bank
from tests.sandbox.making.pool import Pool
from tests.sandbox.making.recipe import ALPHABET, CHUNK_SECONDS, Recipe, Schedule
from tests.sandbox.making.synthesis import RATE

BATCH = 32
_BUCKETED = 32  # batches that are sorted by length together
_BABBLE_UTTERANCES = 240
CTC_WEIGHT = 0.5
_TEMPO = (0.88, 1.14)  # factors on the duration of a whole batch
_TEMPO_SHARE = 0.6  # of the strongly distorted batches


class Trainer:
    """The state of one run; ``folder`` holds its checkpoint and its log."""

    def __init__(self, recipe: Recipe, pool_folder: Path, folder: Path, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe, self.pool_folder, self.folder, self.seed = recipe, pool_folder, folder, seed
        self.model: Any = recipe.build()
        self.model.set_attn_implementation("eager")  # on a CPU the fused bf16 kernel doubles the time of a step
        self.ctc_head = nn.Linear(recipe.width, len(ALPHABET) + 1)
        self.step, self.seconds = 0, 0.0
        weights = [*self.model.parameters(), *self.ctc_head.parameters()]
        self.weights = [weight for weight in weights if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.checkpoint = folder / "checkpoint.pt"
        if self.checkpoint.exists():
            self._resume()

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "ctc_head": self.ctc_head, "optimizer": self.optimizer}

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts().items()}
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state | {"step": self.step, "seconds": self.seconds}, partial)
        partial.replace(self.checkpoint)

    def log(self, **values: float) -> None:
        """Append a line to ``log.jsonl``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = {"step": self.step, "utterances": self.step * BATCH, "seconds": round(self.seconds)} | values
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def run(self, schedule: Schedule, save_every: int, log_every: int = 50) -> Iterator[int]:
        """Train to ``schedule.steps``; yields the step after each checkpoint."""
        if self.step >= schedule.steps:
            return
        self.model.train()
        losses: list[tuple[float, float]] = []
        started = time.monotonic() - self.seconds
        for audio, lengths, texts in self._batches(schedule):
            for group in self.optimizer.param_groups:
                group["lr"] = schedule.rate(self.step)
            attention, ctc = self._losses(audio, lengths, texts)
            loss = (1 - CTC_WEIGHT) * attention + CTC_WEIGHT * ctc
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            losses.append((attention.item(), ctc.item()))
            if self.step % log_every == 0:
                self.seconds = time.monotonic() - started
                mean = np.mean(losses, 0).round(4).tolist()
                self.log(attention=mean[0], ctc=mean[1], rate=schedule.rate(self.step))
                losses.clear()
            if self.step % save_every == 0 or self.step == schedule.steps:
                self.save()
                yield self.step
                self.model.train()
            if self.step == schedule.steps:
                return

    def _losses(self, audio: Tensor, lengths: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Label-smoothed cross-entropy a token, and CTC a character."""
        sequences = [torch.tensor(self.recipe.sequence(text)) for text in texts]
        tokens = nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=-100)
        targets = tokens[:, 1:].clone()
        targets[:, : self.recipe.prompt_length - 1] = -100
        letters = [torch.tensor([ALPHABET.index(letter) + 1 for letter in text]) for text in texts]
        with torch.autocast("cpu", torch.bfloat16):
            states, frames, mask = self.recipe.encode(self.model, audio, lengths)
            logits = self.recipe.decode(self.model, states, mask, tokens[:, :-1].clamp(min=0))
            characters = self.ctc_head(states)
        attention = nn.functional.cross_entropy(logits.float().transpose(1, 2), targets, label_smoothing=0.1)
        ctc = nn.functional.ctc_loss(
            characters.float().log_softmax(-1).transpose(0, 1),
            torch.cat(letters),
            frames,
            torch.tensor([len(text) for text in texts]),
            zero_infinity=True,
        )
        return attention, ctc

    def _batches(self, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Distorted audio (batch, samples), lengths (batch,) and texts, in buckets of near-equal length, for ever.

        Each batch depends on the seed and its step alone, so that a resumed run sees what it would have seen.
        """
        pool = Pool.read(self.pool_folder)
        speech = [torch.from_numpy(pool.samples(i)) for i in range(_BABBLE_UTTERANCES)]
        bank = noise_bank(speech, torch.Generator().manual_seed(self.seed))
        while True:
            bucket, done = divmod(self.step, _BUCKETED)
            rng = random.Random(f"{self.seed}/bucket/{bucket}")
            drawn = sorted(rng.sample(range(len(pool)), BATCH * _BUCKETED), key=lambda i: int(pool.lengths[i]))
            starts = list(range(0, len(drawn), BATCH))
            rng.shuffle(starts)
            for start in starts[done:]:
                rng = random.Random(f"{self.seed}/step/{self.step}")
                chosen = drawn[start : start + BATCH]
                generator = torch.Generator().manual_seed(rng.getrandbits(60))
                speech = [torch.from_numpy(pool.samples(i)) for i in chosen]
                audio = nn.utils.rnn.pad_sequence(speech, batch_first=True)
                lengths = torch.from_numpy(pool.lengths[chosen])
                strong = self.step >= schedule.mild
                if strong and rng.random() < _TEMPO_SHARE:
                    audio, lengths = change_tempo(audio, lengths, rng.uniform(*_TEMPO))
                audio = distort(audio, lengths, bank, STRONG if strong else MILD, generator)
                padding = self._padded(audio.shape[1], rng, schedule) - audio.shape[1]
                yield nn.functional.pad(audio, (0, padding)), lengths, [pool.texts[i] for i in chosen]

    def _padded(self, longest: int, rng: random.Random, schedule: Schedule) -> int:
        """Samples a batch is padded to: a little past the longest, or the whole chunk where the model wants it."""
        if self.recipe.needs_padding:
            if rng.random() < schedule.full_padding(self.step):
                return CHUNK_SECONDS * RATE
            longest = min(longest + rng.randrange(RATE // 2), CHUNK_SECONDS * RATE)
        return -(-longest // 320) * 320
