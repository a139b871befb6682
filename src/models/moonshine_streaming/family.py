"""What sets Moonshine Streaming (arXiv 2602.12241) apart; see :class:`~src.models.family.Family`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from src.models.dimensions import AttentionWindow, Conv, Dimensions, Stack
from src.models.family import Family

if TYPE_CHECKING:
    import numpy as np
    from transformers import MoonshineStreamingConfig, PreTrainedConfig, PreTrainedModel

    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel
    from src.settings import ModelSettings


class MoonshineStreaming(Family):
    name = "moonshine_streaming"
    sizes: ClassVar[Mapping[str, tuple[str, int]]] = {
        "hidden_size": ("decoder.embed_tokens.weight", 1),
        "vocab_size": ("decoder.embed_tokens.weight", 0),
        "intermediate_size": ("decoder.layers.0.mlp.fc2.weight", 1),
        "encoder_config.hidden_size": ("encoder.embedder.linear.weight", 0),
        "encoder_config.intermediate_size": ("encoder.layers.0.mlp.fc1.weight", 0),
    }
    layers: ClassVar[Mapping[str, str]] = {
        "encoder_config.num_hidden_layers": "encoder",
        "num_hidden_layers": "decoder",
    }
    width = "hidden_size"
    heads = ("num_attention_heads",)
    usual: ClassVar[Mapping[str, str | bool]] = {"encoder_config.hidden_act": "gelu", "hidden_act": "silu"}
    tokens = ("eos_token_id", "decoder_start_token_id")
    more_fields = frozenset({"num_key_value_heads"})

    @property
    def extractor(self) -> Any:
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor

    def prepare(self, module: PreTrainedModel) -> None:
        from src.models.moonshine_streaming.parts import prepare

        prepare(module)

    def restored(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        from src.models.moonshine_streaming.original import restored

        return restored(tensors)

    def graph(self, config: PreTrainedConfig) -> ModelGraph:
        from src.models.moonshine_streaming.graph import streaming_graph

        return streaming_graph(config)

    def dimensions(self, config: MoonshineStreamingConfig) -> Dimensions:
        """The front-end's linear is a convolution over pieces of 5 ms; convolutions that look back pad as much before
        the clip as others pad on both sides. Only the decoder pads its heads. config.json counts a frame itself among
        those before, and one more after it than it sees."""
        own, d = config.encoder_config, config.hidden_size
        frame = round(own.sample_rate * own.frame_ms / 1000)
        e, multiple = own.hidden_size, config.pad_head_dim_to_multiple_of or 1
        heads, bias = config.num_attention_heads, config.attention_bias * config.head_dim
        return Dimensions(
            width=d,
            head_dim=config.head_dim,
            attended_head_dim=-(-config.head_dim // multiple) * multiple,
            encoder=_encoder(config),
            decoder=Stack(
                layers=config.num_hidden_layers,
                heads=heads,
                kv_heads=heads,
                ffn=config.intermediate_size,
                vectors=2 * d + 2 * config.intermediate_size + d + 3 * bias * heads,
                final_norm=d,
            ),
            cross_vectors=d + bias * heads,
            cross_frame_vectors=2 * bias * heads,
            vocab=config.vocab_size,
            tied=config.tie_word_embeddings,
            frontend=(
                Conv(frame, e, 1, 1, 0, False),
                Conv(e, 2 * e, 5, 2, 2, True),
                Conv(2 * e, e, 5, 2, 2, True),
            ),
            frontend_vectors=1,
            token_positions=0,
            max_tokens=config.max_position_embeddings,
            hop=frame,
            window=None,
            encoder_width=e,
            encoder_attended_head_dim=own.head_dim,
            encoder_windows=tuple(AttentionWindow(past - 1, max(ahead, 1) - 1) for past, ahead in own.sliding_windows),
            adapter=0 if e == d else e * d,
            frame_positions=config.max_position_embeddings,
        )

    def speech(
        self, module: PreTrainedModel, settings: ModelSettings, extractor: Any | None, tokenizer: Any | None
    ) -> SpeechModel:
        from src.models.moonshine_streaming.speech import StreamingSpeech

        return StreamingSpeech(module, name=settings.name, extractor=extractor, tokenizer=tokenizer)


def _encoder(config: MoonshineStreamingConfig) -> Stack:
    own = config.encoder_config
    e, ffn, heads, kv_heads = own.hidden_size, own.intermediate_size, own.num_attention_heads, own.num_key_value_heads
    biases = own.attention_bias * ((heads + 2 * kv_heads) * own.head_dim + e)
    return Stack(
        layers=own.num_hidden_layers,
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        vectors=2 * e + ffn + e + biases,
        final_norm=e,
    )
