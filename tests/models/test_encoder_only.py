"""A family without a decoder, as a user of the project would add it: its object and one line of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCTC, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from src.errors import UserError
from src.models.claims import check_checkpoint
from src.models.dimensions import Conv, Dimensions, Stack
from src.models.families import FAMILIES, dimensions_of
from src.models.family import Family
from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, RowKind
from src.models.loading import load, load_config, load_graph, model_identity
from src.models.speech import SpeechModel
from src.settings import ModelSettings
from tests.tiny import model_settings

ARCHITECTURE: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32, 32],
    "conv_kernel": [10, 3],
    "conv_stride": [160, 2],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "do_stable_layer_norm": True,
}


class Ctc(Family):
    """Wav2vec 2.0 with a head for CTC."""

    name = "wav2vec2"
    sizes: ClassVar[Mapping[str, tuple[str, int]]] = {"vocab_size": ("lm_head.weight", 0)}
    layers: ClassVar[Mapping[str, str]] = {"num_hidden_layers": "encoder"}
    width = "hidden_size"
    heads = ("num_attention_heads",)

    @property
    def module(self) -> Any:
        return AutoModelForCTC

    @property
    def extractor(self) -> Any:
        return Wav2Vec2FeatureExtractor

    def graph(self, config: Wav2Vec2Config) -> ModelGraph:
        paths = [f"wav2vec2.encoder.layers.{i}" for i in range(config.num_hidden_layers)]
        norm = "wav2vec2.encoder.layer_norm"
        return ModelGraph(
            encoder=tuple(_block(config, path) for path in paths),
            decoder=(),
            links=tuple(link for path in paths for link in _links(path)),
            encoder_norm=norm,
            decoder_norm=norm,
            frontend=tuple(f"wav2vec2.feature_extractor.conv_layers.{i}.conv" for i in range(len(config.conv_dim))),
            embedding="lm_head",
            head="lm_head",
            head_dim=config.hidden_size // config.num_attention_heads,
        )

    def dimensions(self, config: Wav2Vec2Config) -> Dimensions:
        d, ffn, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
        widths = zip([1, *config.conv_dim], config.conv_dim, config.conv_kernel, config.conv_stride, strict=False)
        return Dimensions(
            width=d,
            head_dim=d // heads,
            attended_head_dim=d // heads,
            encoder=Stack(config.num_hidden_layers, heads, heads, ffn, vectors=9 * d + ffn, final_norm=2 * d),
            decoder=Stack(),
            cross_vectors=0,
            cross_frame_vectors=0,
            vocab=config.vocab_size,
            tied=True,
            frontend=tuple(Conv(*each, padding=0, bias=config.conv_bias) for each in widths),
            frontend_vectors=0,
            token_positions=0,
            max_tokens=0,
            hop=1,
            window=None,
        )

    def speech(self, module: Any, settings: ModelSettings, extractor: Any, tokenizer: Any) -> SpeechModel:
        return CtcSpeech(
            module,
            self.graph(module.config),
            name=settings.name,
            prompt=(),
            extractor=extractor or Wav2Vec2FeatureExtractor(do_normalize=False),
            tokenizer=tokenizer,
        )


class CtcSpeech(SpeechModel):
    window = 16_000 * 30  # type: ignore[assignment]

    def features(self, waveforms: list[np.ndarray]) -> list[Tensor]:
        return [torch.from_numpy(waveform) for waveform in waveforms]

    def encoder_inputs(self, features: list[Tensor]) -> tuple[Tensor, dict[str, Any], Tensor]:
        base, [waveform] = self.module.wav2vec2, features
        hidden, _ = base.feature_projection(base.feature_extractor(waveform[None]).transpose(1, 2))
        hidden = hidden + base.encoder.pos_conv_embed(hidden)
        return hidden, {"attention_mask": None}, torch.ones(hidden.shape[:2], dtype=torch.bool)

    def max_new_tokens(self, samples: int) -> int:
        return samples

    def limits(self) -> dict[str, Any]:
        return {"max_tokens": None, "tokens_per_second": None, "window": self.window}


def _block(config: Wav2Vec2Config, path: str) -> Block:
    d, ffn = config.hidden_size, config.intermediate_size
    linears = [Linear(f"{path}.attention.{name}_proj", Component.ENCODER, d, d) for name in ("q", "k", "v", "out")]
    linears.append(Linear(f"{path}.feed_forward.intermediate_dense", Component.ENCODER, ffn, d))
    return Block(path, (*linears, Linear(f"{path}.feed_forward.output_dense", Component.ENCODER, d, ffn)))


def _links(path: str) -> list[Link]:
    def link(name: str, linears: list[str], source: str, feed: Feed) -> Link:
        return Link(f"{path}.{name}", tuple(f"{path}.{x}" for x in linears), f"{path}.{source}", feed, RowKind.FRAME)

    into, out = "feed_forward.intermediate_dense", "feed_forward.output_dense"
    return [
        link("qkv", [f"attention.{name}_proj" for name in "qkv"], "layer_norm", Feed.NORM),
        link("out", ["attention.out_proj"], "attention.v_proj", Feed.LINEAR),
        link("mlp.in", [into], "final_layer_norm", Feed.NORM),
        link("mlp.out", [out], into, Feed.ACTIVATION),
    ]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelSettings:
    monkeypatch.setitem(FAMILIES, Ctc.name, Ctc())
    return model_settings(tmp_path, family="wav2vec2", random_weights=True, architecture=ARCHITECTURE)


def test_its_structure_and_sizes_are_those_of_its_module(settings: ModelSettings) -> None:
    graph, dimensions = load_graph(settings), dimensions_of(load_config(settings))
    assert [len(block.linears) for block in graph.blocks] == [6, 6]
    hidden, _, _ = load(settings, "cpu", 0).encoder_inputs([torch.zeros(16_000)])
    assert hidden.shape == (1, dimensions.frames(1), dimensions.width)


def test_walking_its_blocks_gives_what_transformers_gives(settings: ModelSettings) -> None:
    speech = load(settings, "cpu", 0)
    [audio] = speech.features([np.random.default_rng(0).standard_normal(16_000).astype(np.float32)])
    logits = speech.module.lm_head(speech.encode([audio]).states)
    torch.testing.assert_close(logits, speech.module(audio[None]).logits)


def test_its_checkpoint_is_checked_as_any_other(settings: ModelSettings, tmp_path: Path) -> None:
    load(settings, "cpu", 0).module.save_pretrained(tmp_path)
    stored = settings.model_copy(update={"random_weights": False, "architecture": {}})
    assert set(model_identity(stored)) == {"family", "language", "sha256"}
    assert len(load_graph(stored).encoder) == 2
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(text.replace('"vocab_size": 32', '"vocab_size": 33'), encoding="utf-8")
    with pytest.raises(UserError, match="vocab_size 33, and the weights have 32"):
        check_checkpoint(stored, tmp_path)
