"""What sets Moonshine apart; see :class:`~src.models.family.Family`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from src.models.dimensions import Conv, Dimensions, Stack
from src.models.family import Family

if TYPE_CHECKING:
    from transformers import MoonshineConfig, PreTrainedConfig, PreTrainedModel

    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel
    from src.settings import ModelSettings


class Moonshine(Family):
    name = "moonshine"
    sizes: ClassVar[Mapping[str, tuple[str, int]]] = {
        "hidden_size": ("decoder.embed_tokens.weight", 1),
        "vocab_size": ("decoder.embed_tokens.weight", 0),
        "intermediate_size": ("encoder.layers.0.mlp.fc1.weight", 0),
    }
    layers: ClassVar[Mapping[str, str]] = {
        "encoder_num_hidden_layers": "encoder",
        "decoder_num_hidden_layers": "decoder",
    }
    width = "hidden_size"
    heads = ("encoder_num_attention_heads", "decoder_num_attention_heads")
    usual: ClassVar[Mapping[str, str | bool]] = {"encoder_hidden_act": "gelu", "decoder_hidden_act": "silu"}
    tokens = ("eos_token_id", "decoder_start_token_id")
    more_fields = frozenset({"partial_rotary_factor", "rope_theta"})

    @property
    def extractor(self) -> Any:
        from transformers import Wav2Vec2FeatureExtractor

        return Wav2Vec2FeatureExtractor

    def graph(self, config: PreTrainedConfig) -> ModelGraph:
        from src.models.moonshine.graph import moonshine_graph

        return moonshine_graph(config)

    def dimensions(self, config: MoonshineConfig) -> Dimensions:
        """Norms have no bias, attention usually none, the feed-forward linears do; positions are rotary."""
        d, heads, kv_heads = config.hidden_size, config.decoder_num_attention_heads, config.decoder_num_key_value_heads
        head_dim = getattr(config, "head_dim", None) or d // heads
        multiple = config.pad_head_dim_to_multiple_of or 1
        bias = config.attention_bias * head_dim
        return Dimensions(
            width=d,
            head_dim=head_dim,
            attended_head_dim=-(-head_dim // multiple) * multiple,
            encoder=_stack(config, "encoder", bias),
            decoder=_stack(config, "decoder", bias),
            cross_vectors=d + bias * heads,
            cross_frame_vectors=bias * 2 * kv_heads,
            vocab=config.vocab_size,
            tied=config.tie_word_embeddings,
            frontend=(
                Conv(1, d, 127, 64, 0, False),
                Conv(d, 2 * d, 7, 3, 0, True),
                Conv(2 * d, d, 3, 2, 0, True),
            ),
            frontend_vectors=2 * d,
            token_positions=0,
            max_tokens=config.max_position_embeddings,
            hop=1,
            window=None,
        )

    def speech(
        self, module: PreTrainedModel, settings: ModelSettings, extractor: Any | None, tokenizer: Any | None
    ) -> SpeechModel:
        from src.models.moonshine.speech import MoonshineSpeech

        return MoonshineSpeech(module, name=settings.name, extractor=extractor, tokenizer=tokenizer)


def _stack(config: MoonshineConfig, side: str, bias: int) -> Stack:
    """The decoder's feed-forward part is gated: its first linear makes twice as much."""
    d, ffn = config.hidden_size, config.intermediate_size
    heads, kv_heads = (getattr(config, f"{side}_num_{kind}_heads") for kind in ("attention", "key_value"))
    return Stack(
        layers=getattr(config, f"{side}_num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        vectors=2 * d + (ffn if side == "encoder" else 2 * ffn) + d + bias * (heads + 2 * kv_heads),
        final_norm=d,
    )
