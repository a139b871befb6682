"""The graph of Moonshine Streaming: its blocks, their linears, and what feeds each.

Blocks are built and named as Moonshine's, but for an encoder whose width need not be the decoder's, nor that of its own
attention. The k and v of the cross-attention read the adapter (:mod:`src.models.moonshine_streaming.parts`).
"""

from __future__ import annotations

from transformers import MoonshineStreamingConfig

from src.errors import UserError
from src.models.graph import Block, Component, Feed, Linear, ModelGraph, cross_kv_link
from src.models.moonshine.graph import attention, decoder_links, encoder_links
from src.models.moonshine_streaming.original import ADAPTER


def streaming_graph(config: MoonshineStreamingConfig) -> ModelGraph:
    """Raises UserError: heads of the encoder and of the decoder have not one width."""
    own = config.encoder_config
    if own.head_dim != config.head_dim:
        problem = (
            f"the encoder's heads are {own.head_dim} wide and the decoder's {config.head_dim}; methods know one width"
        )
        raise UserError("model.source", problem, "Use a published size")
    encoder = [f"model.encoder.layers.{i}" for i in range(own.num_hidden_layers)]
    decoder = [f"model.decoder.layers.{i}" for i in range(config.num_hidden_layers)]
    one_to_one = own.num_attention_heads == own.num_key_value_heads
    links = [link for path in encoder for link in encoder_links(path, one_to_one=one_to_one)]
    links.append(cross_kv_link(decoder, ADAPTER, Feed.ADAPTER))
    links += [link for path in decoder for link in decoder_links(path, config.intermediate_size, one_to_one=True)]
    return ModelGraph(
        encoder=tuple(_encoder_block(config, path) for path in encoder),
        decoder=tuple(_decoder_block(config, path) for path in decoder),
        links=tuple(links),
        encoder_norm="model.encoder.final_norm",
        decoder_norm="model.decoder.norm",
        frontend=tuple(f"model.encoder.embedder.{name}" for name in ("linear", "conv1", "conv2")),
        embedding="model.decoder.embed_tokens",
        head="proj_out",
        head_dim=config.head_dim,
        adapter=None if own.hidden_size == config.hidden_size else ADAPTER,
    )


def _encoder_block(config: MoonshineStreamingConfig, path: str) -> Block:
    own, kind = config.encoder_config, Component.ENCODER
    d, heads, kv_heads = own.hidden_size, own.num_attention_heads, own.num_key_value_heads
    linears = attention(f"{path}.self_attn", kind, d, heads, kv_heads, own.head_dim)
    return Block(path, (*linears, *_mlp(path, kind, d, own.intermediate_size, own.intermediate_size)))


def _decoder_block(config: MoonshineStreamingConfig, path: str) -> Block:
    """Its queries are as many as keys and values, whatever config.json says: transformers takes no others there."""
    d, ffn, heads, kind = config.hidden_size, config.intermediate_size, config.num_attention_heads, Component.DECODER
    linears = attention(f"{path}.self_attn", kind, d, heads, heads, config.head_dim)
    linears += attention(f"{path}.encoder_attn", Component.CROSS_ATTENTION, d, heads, heads, config.head_dim)
    return Block(path, (*linears, *_mlp(path, kind, d, 2 * ffn, ffn)))


def _mlp(path: str, component: Component, d: int, made: int, read: int) -> tuple[Linear, Linear]:
    """``made`` outputs of fc1, of which a gate leaves ``read`` for fc2."""
    return Linear(f"{path}.mlp.fc1", component, made, d), Linear(f"{path}.mlp.fc2", component, d, read)
