"""What sets Parakeet CTC apart; see :class:`~src.models.family.Family`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from src.models.dimensions import Conv, Conv2d, Dimensions, Stack
from src.models.family import Family
from src.models.files import PROCESSORS_REMEDY, wrong

if TYPE_CHECKING:
    from transformers import ParakeetCTCConfig, PreTrainedConfig, PreTrainedModel

    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel
    from src.settings import ModelSettings

_HOP = 160  # samples between two log-mel frames (10 ms)


class ParakeetCtc(Family):
    """Nvidia's Fast Conformer with a head for CTC."""

    name = "parakeet_ctc"
    sizes: ClassVar[Mapping[str, tuple[str, int]]] = {
        "vocab_size": ("ctc_head.weight", 0),
        "encoder_config.hidden_size": ("ctc_head.weight", 1),
        "encoder_config.intermediate_size": ("encoder.layers.0.feed_forward1.linear1.weight", 0),
        "encoder_config.conv_kernel_size": ("encoder.layers.0.conv.depthwise_conv.weight", 2),
        "encoder_config.subsampling_conv_channels": ("encoder.subsampling.layers.0.weight", 0),
    }
    layers: ClassVar[Mapping[str, str]] = {"encoder_config.num_hidden_layers": "encoder"}
    width = "encoder_config.hidden_size"
    heads = ("encoder_config.num_attention_heads",)
    usual: ClassVar[Mapping[str, str | bool]] = {
        "encoder_config.hidden_act": "silu",
        "encoder_config.scale_input": True,
    }
    tokens = ("pad_token_id",)
    rewritten = "pointwise convolutions are linears, and batch norms folded into convolutions"
    has_decoder = False

    @property
    def module(self) -> Any:
        from transformers import AutoModelForCTC

        return AutoModelForCTC

    @property
    def extractor(self) -> Any:
        from src.models.parakeet_ctc.features import LogMel

        return LogMel

    def read_extractor(self, folder: Path) -> Any:
        from src.models.parakeet_ctc.features import read_extractor

        return read_extractor(folder)

    def check_extractor(self, extractor: Any, config: PreTrainedConfig) -> None:
        """Bands are those that the front-end takes, and frames the published ones. Raises UserError."""
        bands = config.encoder_config.num_mel_bins
        if extractor.feature_size != bands:
            problem = f"the feature extractor makes {extractor.feature_size} mel bands, and the encoder takes {bands}"
            raise wrong(problem, PROCESSORS_REMEDY)
        if extractor.hop_length != _HOP:
            problem = f"the feature extractor's frames are {extractor.hop_length} samples apart, not {_HOP}"
            raise wrong(problem, PROCESSORS_REMEDY)

    def prepare(self, module: PreTrainedModel) -> None:
        from src.models.parakeet_ctc.parts import prepare

        prepare(module)

    def graph(self, config: PreTrainedConfig) -> ModelGraph:
        from src.models.parakeet_ctc.graph import parakeet_graph

        return parakeet_graph(config)

    def dimensions(self, config: ParakeetCTCConfig) -> Dimensions:
        """Norms have weight and bias, the convolution that the batch norm is folded into a bias whatever the others
        have, and so the front-end and the head."""
        own = config.encoder_config
        d, ffn, heads = own.hidden_size, own.intermediate_size, own.num_attention_heads
        vectors = 5 * 2 * d + 2 * d + (own.conv_kernel_size + 1) * d  # norms, two biases of attention, depthwise
        vectors += own.attention_bias * (2 * (ffn + d) + 4 * d) + own.convolution_bias * 3 * d
        return Dimensions(
            width=d,
            head_dim=d // heads,
            attended_head_dim=d // heads,
            encoder=Stack(
                layers=own.num_hidden_layers,
                heads=heads,
                kv_heads=heads,
                ffn=ffn,
                vectors=vectors,
                depthwise=own.conv_kernel_size,
                relative=True,
            ),
            decoder=Stack(),
            cross_vectors=0,
            cross_frame_vectors=0,
            vocab=config.vocab_size,
            tied=True,
            frontend=_frontend(config),
            frontend_vectors=0,
            token_positions=0,
            max_tokens=0,
            hop=_HOP,
            window=None,
            whole_hops=True,
            head_bias=True,
        )

    def speech(
        self, module: PreTrainedModel, settings: ModelSettings, extractor: Any | None, tokenizer: Any | None
    ) -> SpeechModel:
        from src.models.parakeet_ctc.speech import ParakeetSpeech

        return ParakeetSpeech(module, name=settings.name, extractor=extractor, tokenizer=tokenizer)


def _frontend(config: ParakeetCTCConfig) -> tuple[Conv, ...]:
    """Each halving of frames and bands after the first is a depthwise convolution and a pointwise one."""
    own = config.encoder_config
    channels, kernel, stride = (
        own.subsampling_conv_channels,
        own.subsampling_conv_kernel_size,
        own.subsampling_conv_stride,
    )
    convs: list[Conv2d] = [Conv2d(1, channels, kernel, stride, (kernel - 1) // 2, True, bands=own.num_mel_bins)]
    while len(convs) < 2 * (own.subsampling_factor.bit_length() - 1) - 1:
        bands = convs[-1].bands_after
        depthwise = Conv2d(channels, channels, kernel, stride, (kernel - 1) // 2, True, bands=bands, depthwise=True)
        convs += [depthwise, Conv2d(channels, channels, 1, 1, 0, True, bands=depthwise.bands_after)]
    return (*convs, Conv(channels * convs[-1].bands_after, own.hidden_size, 1, 1, 0, True))
