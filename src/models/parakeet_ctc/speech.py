"""Parakeet CTC: a :class:`~src.models.speech.SpeechModel` around transformers' implementation.

The front-end runs on each utterance at its own length, as its features are made. A head reads every frame of the
encoder: there is no decoder, and what it hears as most likely, repetitions and blanks left out, is the transcript.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from src.models.parakeet_ctc.features import LogMel
from src.models.parakeet_ctc.graph import POSITIONS, parakeet_graph
from src.models.speech import Encoded, SpeechModel


class ParakeetSpeech(SpeechModel):
    """``module`` went through ``Family.prepare``. Attention sees the whole clip."""

    def __init__(
        self,
        module: PreTrainedModel,
        *,
        name: str,
        extractor: LogMel | None = None,
        tokenizer: Any | None = None,
    ) -> None:
        config = module.config
        super().__init__(
            module,
            parakeet_graph(config),
            name=name,
            prompt=(),
            extractor=extractor or LogMel(feature_size=config.encoder_config.num_mel_bins),
            tokenizer=tokenizer,
            blank=config.pad_token_id,
        )

    @property
    def window(self) -> int:
        """As many frames as the published models have positions for: 400 s."""
        return int(self.module.config.encoder_config.max_position_embeddings * self._samples_a_frame)

    def features(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """Log-mel features ``[frames, bands]``; clips too short for two frames are padded with silence."""
        return [self._extractor(waveform) for waveform in waveforms]

    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """Front-end an utterance at a time; see :meth:`SpeechModel.encoder_inputs`."""
        encoder = self.module.encoder
        frames = [
            encoder.subsampling(bands[None].to(self.device, self.module.dtype))[0] * encoder.input_scale
            for bands in features
        ]
        hidden = pad_sequence(frames, batch_first=True)
        lengths = torch.tensor([len(frame) for frame in frames], device=self.device)
        mask = torch.arange(hidden.shape[1], device=self.device) < lengths.unsqueeze(1)
        arguments = {
            "attention_mask": (mask.unsqueeze(1) & mask.unsqueeze(2)).unsqueeze(1),
            "position_embeddings": self.module.get_submodule(POSITIONS)(hidden),
        }
        return hidden, arguments, mask

    def encoded(self, hidden: Tensor, mask: Tensor) -> Encoded:
        """What the last block gives: a norm of its own ends it."""
        return Encoded(hidden, mask)

    def max_new_tokens(self, samples: int) -> int:
        """A token a frame."""
        return -(-samples // self._samples_a_frame)

    def limits(self) -> dict[str, Any]:
        return {
            "max_tokens": None,
            "tokens_per_second": None,
            "window": self.window,
            "shortest": self._extractor.shortest,
        }

    def text(self, ids: Sequence[int]) -> str:
        """Without leaving out repetitions once more, as the tokenizer would: a blank stood between them."""
        if self._tokenizer is None:
            return super().text(ids)
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, group_tokens=False))

    @property
    def _samples_a_frame(self) -> int:
        factor: int = self.module.config.encoder_config.subsampling_factor
        return factor * int(self._extractor.hop_length)
