"""One loaded recogniser behind one interface: encode audio, walk its blocks, decode token by token.

All families are driven the same way by calibration, quantization and evaluation; what differs between them lives in
packages of their own. An utterance's result never depends on which other utterances share its batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicCache, DynamicLayer, EncoderDecoderCache

from src.data.audio import SAMPLING_RATE
from src.models.graph import Block, ModelGraph


@dataclass(frozen=True)
class Encoded:
    """What the decoder attends to.

    Attributes:
        states: output of the encoder's final norm, or of the adapter after it, ``[batch, frames, d]``.
        mask: ``[batch, frames]`` bool, True where a frame belongs to the utterance.
    """

    states: Tensor
    mask: Tensor


@dataclass(frozen=True)
class TimeTokens:
    """Tokens that stand for times within the window, from 0 to its end, an encoder position of 0.02 s apart.

    Attributes:
        prompt: what a transcript with times starts with: the prompt without "no timestamps".
        first: id of the time 0. The id below it is "no timestamps".
        last: id of the time at which the window ends. Ids above it are what a fine-tune added, words mostly.
        latest_start: the latest time that a transcript may begin with, in time tokens.
        cap: most tokens a window's transcript may have after the prompt.
        frames: mel frames that one of them stands for.
    """

    prompt: tuple[int, ...]
    first: int
    last: int
    latest_start: int
    cap: int
    frames: int

    @property
    def window(self) -> int:
        """Mel frames of the window."""
        return (self.last - self.first) * self.frames

    def holds(self, token: int) -> bool:
        return self.first <= token <= self.last


class SpeechModel(ABC):
    """A recogniser in evaluation mode with frozen weights. Built by :func:`src.models.loading.load`.

    Attributes:
        module: the transformers model; quantization replaces linears inside it.
        graph: its declared structure.
        name: the model's name in ``conf/model``.
        prompt: token ids every transcript starts with.
        eos: token id that ends a transcript; the blank where none does.
        blank: token id that CTC's head gives frames in which nothing new is heard; None where a decoder writes.
        sampling_rate: of the waveforms it takes, in Hz.
    """

    sampling_rate: int = SAMPLING_RATE
    begins: ClassVar[str] = ""  # of every transcript that it was trained on

    def __init__(
        self,
        module: PreTrainedModel,
        graph: ModelGraph,
        *,
        name: str,
        prompt: tuple[int, ...],
        extractor: Any,
        tokenizer: Any | None,
        blank: int | None = None,
    ) -> None:
        """Freezes ``module``. ``extractor`` is a transformers feature extractor; without ``tokenizer`` text is ids."""
        self.module = module.eval().requires_grad_(False)
        self.graph = graph
        self.name = name
        self.prompt = prompt
        self.blank = blank
        self.eos = _eos(module) if blank is None else blank
        self._extractor = extractor
        self._tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where encoding and decoding run."""
        device: torch.device = self.module.device
        return device

    @property
    @abstractmethod
    def window(self) -> int:
        """Most audio samples one pass takes; what to do with longer audio: :mod:`src.decoding.longform`."""

    def fits_half(self, samples: int) -> bool:  # noqa: ARG002 - a hook
        """Whether the first half of a clip's features holds all of it; only of models that pad clips to a window."""
        return False

    def heard_share(self, features: Tensor, samples: int) -> float:  # noqa: ARG002 - a hook
        """Share of the encoder's frames that hear a clip of ``samples``, not only the silence it is padded with."""
        return 1.0

    @property
    def time_tokens(self) -> TimeTokens | None:
        """What it writes times with; None where it knows none."""
        return None

    def whole_features(self, waveform: np.ndarray) -> Tensor:
        """As :meth:`features` of audio of any length, neither cut nor padded to the window."""
        return self.features([waveform])[0]

    @abstractmethod
    def features(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """What the encoder takes, one CPU tensor an utterance, from mono 16 kHz float32 waveforms ``[samples]``."""

    @abstractmethod
    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """Runs the front-end: what the first encoder block gets.

        Returns:
            hidden ``[batch, frames, d]``, keyword arguments every encoder block takes, and the mask of
            :class:`Encoded`.
        """

    def decoder_inputs(self, tokens: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Any]]:
        """What the first decoder block gets under teacher forcing without a cache.

        Returns:
            hidden ``[batch, length, d]`` of ``tokens`` (LongTensor ``[batch, length]``), and keyword arguments every
            decoder block takes.

        Raises:
            NotImplementedError: it has no decoder.
        """
        raise NotImplementedError(f"{self.name} has no decoder")

    @abstractmethod
    def max_new_tokens(self, samples: int) -> int:
        """Most tokens a transcript of ``samples`` audio samples may have after the prompt."""

    def is_capped(self, tokens: int, samples: int) -> bool:
        """Whether the cap has ended a transcript of so many ``tokens``; CTC's ends with the audio."""
        return self.blank is None and tokens >= self.max_new_tokens(samples)

    @abstractmethod
    def limits(self) -> dict[str, Any]:
        """What :meth:`features` and :meth:`max_new_tokens` rest on, as plain data for other runtimes.

        ``max_tokens``, ``tokens_per_second`` (or None), ``window`` in samples; Whisper: ``mel_filters`` as
        [frequencies, mels]; Moonshine: ``shortest``, the samples that shorter clips are padded to.
        """

    def decoder_states(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None = None) -> Tensor:
        """Output of the decoder's final norm ``[batch, length, d]``; writes to ``cache`` if there is one."""
        raise NotImplementedError(f"{self.name} has no decoder")

    def block(self, block: Block) -> torch.nn.Module:
        """The module of a block: takes hidden and the block arguments, returns hidden."""
        return self.module.get_submodule(block.path)  # type: ignore[no-any-return]

    def cast(self, dtype: torch.dtype) -> None:
        """Computes in ``dtype`` from here on. Buffers (rotary frequencies, rotations) keep their precision."""
        for parameter in self.module.parameters():
            parameter.data = parameter.data.to(dtype)

    def encode(self, features: list[Tensor]) -> Encoded:
        """Encodes utterances together, each as if it were alone up to floating-point rounding."""
        hidden, arguments, mask = self.encoder_inputs(features)
        for block in self.graph.encoder:
            hidden = self.block(block)(hidden, **arguments)
        return self.encoded(hidden, mask)

    def encoded(self, hidden: Tensor, mask: Tensor) -> Encoded:
        """What the decoder attends to, from the last encoder block's output ``[batch, frames, d]``."""
        return Encoded(self.module.get_submodule(self.graph.encoder_norm)(hidden), mask)

    def forward_tokens(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None = None) -> Tensor:
        """Logits ``[batch, length, vocab]`` after each of ``tokens`` ``[batch, length]``.

        With ``cache``, tokens continue those already in it, and their keys and values are added to it.
        """
        return self._head(self.decoder_states(tokens, encoded, cache))

    def frame_logits(self, encoded: Encoded) -> Tensor:
        """Logits ``[batch, frames, vocab]`` of a head that reads the encoder, for CTC."""
        return self._head(encoded.states)

    def logits(self, features: list[Tensor], tokens: Tensor) -> Tensor:
        """Logits of a batch of clips by all of the model: under teacher forcing by ``tokens``, or of each frame."""
        encoded = self.encode(features)
        return self.frame_logits(encoded) if self.blank is not None else self.forward_tokens(tokens, encoded)

    def decode_step(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache) -> Tensor:
        """Logits ``[batch, vocab]`` after the last of ``tokens`` ``[batch, new]``, which continue those in ``cache``.

        Keys and values of the cross-attention are computed on the first step and read from ``cache`` afterwards.
        """
        return self._head(self.decoder_states(tokens, encoded, cache)[:, -1])

    def new_cache(self, layer_factory: Callable[[], CacheLayerMixin] = DynamicLayer) -> EncoderDecoderCache:
        """An empty cache, with a layer from ``layer_factory`` for each self- and each cross-attention."""
        return EncoderDecoderCache(self._empty_cache(layer_factory), self._empty_cache(layer_factory))

    def suppressed(self, first_step: bool) -> Tensor:
        """Token ids the checkpoint's generation settings forbid, LongTensor; ``first_step`` adds those for it only."""
        generation = self.module.generation_config
        ids = list(getattr(generation, "suppress_tokens", None) or ())
        if first_step:
            ids += list(getattr(generation, "begin_suppress_tokens", None) or ())
        vocabulary = self.module.config.vocab_size
        valid = sorted({token for token in ids if 0 <= token < vocabulary})
        return torch.tensor(valid, dtype=torch.long, device=self.device)

    def text(self, ids: Sequence[int]) -> str:
        """Transcript of token ids, special tokens dropped; without a tokenizer, the ids separated by spaces."""
        if self._tokenizer is None:
            return " ".join(str(token) for token in ids)
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def tokens(self, text: str) -> list[int]:
        """Token ids of a transcript, without prompt and end token: what :meth:`text` turns back into it.

        Raises:
            ValueError: the model was made without a tokenizer.
        """
        if self._tokenizer is None:
            raise ValueError(f"{self.name} has no tokenizer")
        return list(self._tokenizer(f"{self.begins}{text.strip()}", add_special_tokens=False).input_ids)

    def token_bytes(self) -> list[bytes]:
        """The bytes that each token before the end token stands for, by a byte-level vocabulary; none without one."""
        if self._tokenizer is None:
            return []
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
        known = self._tokenizer.convert_ids_to_tokens(list(range(self.eos)))
        return [bytes(map(bytes_of.__getitem__, token or "")) for token in known]

    def _head(self, states: Tensor) -> Tensor:
        logits: Tensor = self.module.get_submodule(self.graph.head)(states)
        return logits

    def _empty_cache(self, layer_factory: Callable[[], CacheLayerMixin]) -> DynamicCache:
        """A :class:`DynamicCache`, so that finished utterances can leave the batch, made of the given layers."""
        cache = DynamicCache()
        cache.layers = [layer_factory() for _ in self.graph.decoder]
        return cache


def _eos(module: PreTrainedModel) -> int:
    """The end token of the generation settings, or of the architecture where those name none."""
    eos = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    if eos is None:
        eos = module.config.eos_token_id
    return int(eos[0] if isinstance(eos, list | tuple) else eos)
