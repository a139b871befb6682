"""The graph of Whisper: its blocks, their linears, and what feeds each."""

from __future__ import annotations

from transformers import WhisperConfig

from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, RowKind, cross_kv_link

_NORM = "model.encoder.layer_norm"


def whisper_graph(config: WhisperConfig) -> ModelGraph:
    encoder = [f"model.encoder.layers.{i}" for i in range(config.encoder_layers)]
    decoder = [f"model.decoder.layers.{i}" for i in range(config.decoder_layers)]
    links = [link for path in encoder for link in _block_links(path, RowKind.FRAME, cross=False)]
    links.append(cross_kv_link(decoder, _NORM))
    links += [link for path in decoder for link in _block_links(path, RowKind.TOKEN, cross=True)]
    d = config.d_model
    return ModelGraph(
        encoder=tuple(_block(path, Component.ENCODER, d, config.encoder_ffn_dim, cross=False) for path in encoder),
        decoder=tuple(_block(path, Component.DECODER, d, config.decoder_ffn_dim, cross=True) for path in decoder),
        links=tuple(links),
        encoder_norm=_NORM,
        decoder_norm="model.decoder.layer_norm",
        frontend=("model.encoder.conv1", "model.encoder.conv2"),
        embedding="model.decoder.embed_tokens",
        head="proj_out",
        head_dim=d // config.encoder_attention_heads,
    )


def _block(path: str, component: Component, d: int, ffn: int, *, cross: bool) -> Block:
    """Linears of one block, in execution order."""
    attention = ("q_proj", "k_proj", "v_proj", "out_proj")
    linears = [Linear(f"{path}.self_attn.{name}", component, d, d) for name in attention]
    if cross:
        linears += [Linear(f"{path}.encoder_attn.{name}", Component.CROSS_ATTENTION, d, d) for name in attention]
    linears += [Linear(f"{path}.fc1", component, ffn, d), Linear(f"{path}.fc2", component, d, ffn)]
    return Block(path, tuple(linears))


def _block_links(path: str, rows: RowKind, *, cross: bool) -> list[Link]:
    """Links inside one block; the k and v of its cross-attention belong to the link across blocks."""

    def link(name: str, linears: tuple[str, ...], source: str, feed: Feed) -> Link:
        return Link(f"{path}.{name}", tuple(f"{path}.{linear}" for linear in linears), f"{path}.{source}", feed, rows)

    attention = tuple(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj"))
    links = [
        link("self_attn.qkv", attention, "self_attn_layer_norm", Feed.NORM),
        link("self_attn.out", ("self_attn.out_proj",), "self_attn.v_proj", Feed.LINEAR),
    ]
    if cross:
        links += [
            link("encoder_attn.q", ("encoder_attn.q_proj",), "encoder_attn_layer_norm", Feed.NORM),
            link("encoder_attn.out", ("encoder_attn.out_proj",), "encoder_attn.v_proj", Feed.LINEAR),
        ]
    return [
        *links,
        link("mlp.in", ("fc1",), "final_layer_norm", Feed.NORM),
        link("mlp.out", ("fc2",), "fc1", Feed.ACTIVATION),
    ]
