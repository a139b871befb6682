"""How a sandbox recogniser is made: its size, and what training needs to know of its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

VOCABULARY = 640
CHUNK_SECONDS = 6
ALPHABET = "abcdefghijklmnopqrstuvwxyz' "


@dataclass(frozen=True)
class Schedule:
    """Steps in all, steps of the final linear decay, and the learning rate between warm-up and decay.

    Until ``mild`` steps are done speech is distorted mildly; afterwards strongly, and in changing tempo.
    """

    steps: int
    decay: int
    mild: int = 3_000
    peak: float = 1.2e-3
    warm_up: int = 300

    def rate(self, step: int) -> float:
        """Learning rate of ``step``, counted from 0."""
        return self.peak * min(1.0, (step + 1) / self.warm_up, (self.steps - step) / self.decay)

    def full_padding(self, step: int) -> float:
        """Probability that a batch of a padding model is padded to the whole chunk: it costs three times as much."""
        left = (self.steps - step) / self.decay
        return 0.05 if left > 1 else 0.1 if left > 0.2 else 0.3


class Recipe(ABC):
    """One architecture: how to build and train it, and its forward pass in training form.

    ``needs_padding``: whether the real model always sees audio padded to ``CHUNK_SECONDS``; ``prompt_length``: how many
    tokens are given to the decoder before it predicts the first piece of text.
    """

    needs_padding: ClassVar[bool]
    prompt_length: ClassVar[int]
    schedule: ClassVar[Schedule]
    width, heads, inner = 192, 6, 768
    encoder_layers, decoder_layers = 4, 3
    max_tokens = 64

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    @staticmethod
    @abstractmethod
    def make_processor(sentences: list[str]) -> Any:
        """The processor, its tokenizer trained on ``sentences``."""

    @abstractmethod
    def build(self) -> Any:
        """An untrained model with its generation settings."""

    @abstractmethod
    def sequence(self, text: str) -> list[int]:
        """Token ids from the first decoder input to the end token."""

    @abstractmethod
    def encode(self, model: Any, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Encoder states (batch, frames, width), valid frames (batch,), and the mask the decoder takes, if any."""

    @abstractmethod
    def generate(self, model: Any, audio: list[Tensor]) -> list[str]:
        """Greedy transcripts through plain transformers, as a user would get them."""

    def decode(self, model: Any, states: Tensor, mask: Tensor | None, tokens: Tensor) -> Tensor:
        """Next-token logits (batch, length, vocabulary) for decoder input ``tokens`` (batch, length)."""
        arguments = {} if mask is None else {"encoder_attention_mask": mask}
        hidden = model.model.decoder(input_ids=tokens, encoder_hidden_states=states, use_cache=False, **arguments)
        logits: Tensor = model.proj_out(hidden.last_hidden_state)
        return logits
