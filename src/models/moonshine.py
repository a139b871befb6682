"""Moonshine: its graph, and a :class:`~src.models.speech.SpeechModel` around transformers' implementation.

The front-end normalises over time (``GroupNorm(1, d)``), so audio padding would change every frame of a clip. It is
therefore run on each utterance at its own length; padding and the mask start at the first encoder block.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import MoonshineConfig, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.cache_utils import EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask

from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, Rows
from src.models.speech import Encoded, SpeechModel

_TOKENS_PER_SECOND = 6.5  # the authors' bound against repetition loops, for their 32k vocabulary
_SECONDS = 30  # the longest clips that the published models were trained on (arXiv 2410.15608)


def moonshine_graph(config: MoonshineConfig) -> ModelGraph:
    """The structure of ``MoonshineForConditionalGeneration`` with this configuration."""
    encoder = [f"model.encoder.layers.{i}" for i in range(config.encoder_num_hidden_layers)]
    decoder = [f"model.decoder.layers.{i}" for i in range(config.decoder_num_hidden_layers)]
    links = [link for path in encoder for link in _encoder_links(config, path)]
    links.append(
        Link(
            name="model.encoder.layer_norm.cross_kv",
            linears=tuple(f"{path}.encoder_attn.{name}" for path in decoder for name in ("k_proj", "v_proj")),
            source="model.encoder.layer_norm",
            feed=Feed.NORM,
            rows=Rows.FRAME,
        )
    )
    links += [link for path in decoder for link in _decoder_links(config, path)]
    return ModelGraph(
        encoder=tuple(_block(config, path, Component.ENCODER) for path in encoder),
        decoder=tuple(_block(config, path, Component.DECODER) for path in decoder),
        links=tuple(links),
        encoder_norm="model.encoder.layer_norm",
        decoder_norm="model.decoder.norm",
        frontend=("model.encoder.conv1", "model.encoder.conv2", "model.encoder.conv3"),
        embedding="model.decoder.embed_tokens",
        head="proj_out",
        head_dim=config.hidden_size // config.encoder_num_attention_heads,
    )


def _attention(path: str, component: Component, d: int, heads: int, kv_heads: int) -> list[Linear]:
    kv = d // heads * kv_heads
    widths = {"q_proj": d, "k_proj": kv, "v_proj": kv, "o_proj": d}
    return [Linear(f"{path}.{name}", component, out, d) for name, out in widths.items()]


def _block(config: MoonshineConfig, path: str, component: Component) -> Block:
    """Linears of one block, in execution order; the decoder's MLP is gated and its fc1 twice as tall."""
    d, ffn = config.hidden_size, config.intermediate_size
    if component is Component.ENCODER:
        heads, kv_heads = config.encoder_num_attention_heads, config.encoder_num_key_value_heads
        linears = _attention(f"{path}.self_attn", component, d, heads, kv_heads)
        fc1_rows = ffn
    else:
        heads, kv_heads = config.decoder_num_attention_heads, config.decoder_num_key_value_heads
        linears = _attention(f"{path}.self_attn", component, d, heads, kv_heads)
        linears += _attention(f"{path}.encoder_attn", Component.CROSS_ATTENTION, d, heads, kv_heads)
        fc1_rows = 2 * ffn
    linears += [Linear(f"{path}.mlp.fc1", component, fc1_rows, d), Linear(f"{path}.mlp.fc2", component, d, ffn)]
    return Block(path, tuple(linears))


def _link(
    path: str,
    name: str,
    linears: tuple[str, ...],
    source: str,
    feed: Feed,
    rows: Rows,
    source_rows: tuple[int, int] | None = None,
) -> Link:
    """A link with paths relative to a block."""
    full = tuple(f"{path}.{linear}" for linear in linears)
    return Link(f"{path}.{name}", full, f"{path}.{source}", feed, rows, source_rows)


def _self_attention_links(path: str, rows: Rows, *, one_to_one: bool) -> list[Link]:
    """Links of the self-attention. Grouped-query values reach several heads, so nothing folds one to one there."""
    attention = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj"))
    return [
        _link(path, "self_attn.qkv", attention, "input_layernorm", Feed.NORM, rows),
        _link(path, "self_attn.out", ("self_attn.o_proj",), "self_attn.v_proj", _value_feed(one_to_one), rows),
    ]


def _value_feed(one_to_one: bool) -> Feed:
    return Feed.LINEAR if one_to_one else Feed.ACTIVATION


def _encoder_links(config: MoonshineConfig, path: str) -> list[Link]:
    one_to_one = config.encoder_num_attention_heads == config.encoder_num_key_value_heads
    return [
        *_self_attention_links(path, Rows.FRAME, one_to_one=one_to_one),
        _link(path, "mlp.in", ("mlp.fc1",), "post_attention_layernorm", Feed.NORM, Rows.FRAME),
        _link(path, "mlp.out", ("mlp.fc2",), "mlp.fc1", Feed.ACTIVATION, Rows.FRAME),
    ]


def _decoder_links(config: MoonshineConfig, path: str) -> list[Link]:
    """The k and v of the cross-attention belong to the link across blocks."""
    one_to_one = config.decoder_num_attention_heads == config.decoder_num_key_value_heads
    linear_half = (0, config.intermediate_size)
    out = ("encoder_attn.o_proj",)
    return [
        *_self_attention_links(path, Rows.TOKEN, one_to_one=one_to_one),
        _link(path, "encoder_attn.q", ("encoder_attn.q_proj",), "post_attention_layernorm", Feed.NORM, Rows.TOKEN),
        _link(path, "encoder_attn.out", out, "encoder_attn.v_proj", _value_feed(one_to_one), Rows.TOKEN),
        _link(path, "mlp.in", ("mlp.fc1",), "final_layernorm", Feed.NORM, Rows.TOKEN),
        _link(path, "mlp.out", ("mlp.fc2",), "mlp.fc1", Feed.GATED, Rows.TOKEN, linear_half),
    ]


class MoonshineSpeech(SpeechModel):
    """Moonshine of any size."""

    def __init__(
        self,
        module: PreTrainedModel,
        *,
        name: str,
        extractor: Wav2Vec2FeatureExtractor | None = None,
        tokenizer: Any | None = None,
    ) -> None:
        """Without an extractor waveforms are taken as they are, which is what the published checkpoints do."""
        super().__init__(
            module,
            moonshine_graph(module.config),
            name=name,
            prompt=(module.config.decoder_start_token_id,),
            extractor=extractor or Wav2Vec2FeatureExtractor(do_normalize=False),
            tokenizer=tokenizer,
        )
        self._shortest = _receptive_field(module.model.encoder)
        self._rate: float = getattr(module.config, "max_tokens_per_second", _TOKENS_PER_SECOND)
        positions = module.config.max_position_embeddings
        limit = getattr(module.generation_config, "max_length", None) or positions
        self._most: int = min(positions, limit) - len(self.prompt)

    @property
    def window(self) -> int:
        """What the models were trained on, or less where the decoder's positions hold fewer tokens than its bound."""
        held = math.ceil((self._most - 1) * self.sampling_rate / self._rate) - 1
        return min(held, _SECONDS * self.sampling_rate)

    def features(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        """Waveforms ``[samples]``, zero-padded to the front-end's receptive field where they are shorter."""
        return [self._waveform(waveform) for waveform in waveforms]

    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        """Front-end an utterance at a time; see :meth:`SpeechModel.encoder_inputs`."""
        frames = [self._frontend(waveform.to(self.device, self.module.dtype)) for waveform in features]
        hidden = pad_sequence(frames, batch_first=True)
        lengths = torch.tensor([len(frame) for frame in frames], device=self.device)
        positions = torch.arange(hidden.shape[1], device=self.device).unsqueeze(0)
        mask = positions < lengths.unsqueeze(1)
        arguments = {
            "attention_mask": create_bidirectional_mask(
                config=self.module.config, inputs_embeds=hidden, attention_mask=mask, encoder_hidden_states=hidden
            ),
            "position_ids": positions,
            "position_embeddings": self.module.model.encoder.rotary_emb(hidden, position_ids=positions),
        }
        return hidden, arguments, mask

    def decoder_inputs(self, tokens: Tensor, encoded: Encoded) -> tuple[Tensor, dict[str, Any]]:
        """Embedding, masks and rotary positions; see :meth:`SpeechModel.decoder_inputs`."""
        config, decoder = self.module.config, self.module.model.decoder
        hidden = decoder.embed_tokens(tokens)
        positions = torch.arange(tokens.shape[1], device=self.device).unsqueeze(0)
        causal = create_causal_mask(config=config, inputs_embeds=hidden, attention_mask=None, past_key_values=None)
        cross = create_bidirectional_mask(
            config=config,
            inputs_embeds=hidden,
            attention_mask=encoded.mask,
            encoder_hidden_states=encoded.states,
        )
        return hidden, {
            "attention_mask": causal,
            "encoder_hidden_states": encoded.states,
            "encoder_attention_mask": cross,
            "position_ids": positions,
            "position_embeddings": decoder.rotary_emb(hidden, position_ids=positions),
            "use_cache": False,
        }

    def max_new_tokens(self, samples: int) -> int:
        """The authors' 6.5 tokens a second plus 2, within the positions the model was configured for.

        A checkpoint with a smaller vocabulary, hence more tokens a second, states its bound as
        ``max_tokens_per_second`` in config.json.
        """
        return min(int(samples * self._rate // self.sampling_rate + 2), self._most)

    def limits(self) -> dict[str, Any]:
        """See :meth:`SpeechModel.limits`."""
        return {"max_tokens": self._most, "tokens_per_second": self._rate, "shortest": self._shortest}

    def _decoder_states(self, tokens: Tensor, encoded: Encoded, cache: EncoderDecoderCache | None) -> Tensor:
        output = self.module.model.decoder(
            input_ids=tokens,
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=encoded.mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        states: Tensor = output.last_hidden_state
        return states

    def _waveform(self, waveform: np.ndarray) -> Tensor:
        batch = self._extractor(waveform, sampling_rate=self.sampling_rate, return_tensors="pt")
        samples: Tensor = batch["input_values"][0]
        return torch.nn.functional.pad(samples, (0, max(0, self._shortest - len(samples))))

    def _frontend(self, waveform: Tensor) -> Tensor:
        """Convolutions of one utterance: ``[samples]`` to ``[frames, d]``."""
        encoder = self.module.model.encoder
        hidden = torch.tanh(encoder.conv1(waveform[None, None]))
        hidden = encoder.groupnorm(hidden)
        hidden = torch.nn.functional.gelu(encoder.conv2(hidden))
        hidden = torch.nn.functional.gelu(encoder.conv3(hidden))
        return hidden[0].T


def _receptive_field(encoder: torch.nn.Module) -> int:
    """Samples the front-end needs to make one frame."""
    samples = 1
    for name in ("conv3", "conv2", "conv1"):
        conv: Any = encoder.get_submodule(name)
        samples = (samples - 1) * conv.stride[0] + conv.kernel_size[0]
    return samples
