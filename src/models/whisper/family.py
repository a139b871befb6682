"""What sets Whisper apart; see :class:`~src.models.family.Family`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from src.models.dimensions import Conv, Dimensions, Stack
from src.models.family import Family
from src.models.files import PROCESSORS_REMEDY, wrong
from src.models.whisper.prompt import checkpoint_prompt
from src.models.whisper.window import check_window

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, WhisperConfig

    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel
    from src.settings import ModelSettings

_HOP, _FFT = 160, 400  # samples between two log-mel frames (10 ms), and of one


class Whisper(Family):
    """Whisper of any size, and what is distilled from it."""

    name = "whisper"
    sizes: ClassVar[Mapping[str, tuple[str, int]]] = {
        "d_model": ("decoder.embed_tokens.weight", 1),
        "vocab_size": ("decoder.embed_tokens.weight", 0),
        "num_mel_bins": ("encoder.conv1.weight", 1),
        "encoder_ffn_dim": ("encoder.layers.0.fc1.weight", 0),
        "decoder_ffn_dim": ("decoder.layers.0.fc1.weight", 0),
        "max_source_positions": ("encoder.embed_positions.weight", 0),
        "max_target_positions": ("decoder.embed_positions.weight", 0),
    }
    layers: ClassVar[Mapping[str, str]] = {"encoder_layers": "encoder", "decoder_layers": "decoder"}
    width = "d_model"
    heads = ("encoder_attention_heads", "decoder_attention_heads")
    usual: ClassVar[Mapping[str, str | bool]] = {"activation_function": "gelu", "scale_embedding": False}
    pads_clips = True
    told_language = True

    @property
    def extractor(self) -> Any:
        from transformers import WhisperFeatureExtractor

        return WhisperFeatureExtractor

    def check_extractor(self, extractor: Any, config: PreTrainedConfig) -> None:
        """The window fills the encoder's positions, and frames are the published ones. Raises UserError."""
        check_window(extractor, config)
        if (extractor.hop_length, extractor.n_fft) != (_HOP, _FFT):
            frames = f"{extractor.hop_length} of {extractor.n_fft} samples, not {_HOP} of {_FFT}"
            raise wrong(f"the feature extractor's frames are {frames}", PROCESSORS_REMEDY)

    def prompt(
        self,
        generation: GenerationConfig,
        config: PreTrainedConfig,
        vocabulary: Mapping[str, int],
        language: str | None,
    ) -> tuple[int, ...]:
        """Completes ``generation``; see :mod:`src.models.whisper.prompt`."""
        return checkpoint_prompt(generation, config, vocabulary, language)

    def graph(self, config: PreTrainedConfig) -> ModelGraph:
        from src.models.whisper.graph import whisper_graph

        return whisper_graph(config)

    def dimensions(self, config: WhisperConfig) -> Dimensions:
        """All norms have weight and bias; every linear has a bias except k_proj and the head; positions are tables."""
        d, heads = config.d_model, config.decoder_attention_heads
        return Dimensions(
            width=d,
            head_dim=d // heads,
            attended_head_dim=d // heads,
            encoder=_stack(config.encoder_layers, config.encoder_attention_heads, config.encoder_ffn_dim, d),
            decoder=_stack(config.decoder_layers, heads, config.decoder_ffn_dim, d),
            cross_vectors=2 * d + 2 * d,
            cross_frame_vectors=d,
            vocab=config.vocab_size,
            tied=config.tie_word_embeddings,
            frontend=(Conv(config.num_mel_bins, d, 3, 1, 1, True), Conv(d, d, 3, 2, 1, True)),
            frontend_vectors=config.max_source_positions * d,
            token_positions=config.max_target_positions,
            max_tokens=config.max_target_positions,
            hop=_HOP,
            window=config.max_source_positions,
        )

    def speech(
        self, module: PreTrainedModel, settings: ModelSettings, extractor: Any | None, tokenizer: Any | None
    ) -> SpeechModel:
        """Raises UserError where the language does not fit the checkpoint."""
        from src.models.whisper.speech import WhisperSpeech

        parts = {"extractor": extractor, "tokenizer": tokenizer}
        return WhisperSpeech(module, name=settings.name, language=settings.language, **parts)


def _stack(layers: int, heads: int, ffn: int, d: int) -> Stack:
    attention, mlp, norms = 3 * d, ffn + d, 2 * 2 * d
    return Stack(layers, heads, heads, ffn, vectors=attention + mlp + norms, final_norm=2 * d)
