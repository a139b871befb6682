"""The graph of Moonshine: its blocks, their linears, and what feeds each."""

from __future__ import annotations

from transformers import MoonshineConfig

from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, RowKind, cross_kv_link


def moonshine_graph(config: MoonshineConfig) -> ModelGraph:
    encoder = [f"model.encoder.layers.{i}" for i in range(config.encoder_num_hidden_layers)]
    decoder = [f"model.decoder.layers.{i}" for i in range(config.decoder_num_hidden_layers)]
    links = [link for path in encoder for link in _encoder_links(config, path)]
    links.append(cross_kv_link(decoder))
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
    d, fc1_rows = config.hidden_size, config.intermediate_size
    heads, kv_heads = (getattr(config, f"{component}_num_{kind}_heads") for kind in ("attention", "key_value"))
    linears = _attention(f"{path}.self_attn", component, d, heads, kv_heads)
    if component is Component.DECODER:
        linears += _attention(f"{path}.encoder_attn", Component.CROSS_ATTENTION, d, heads, kv_heads)
        fc1_rows *= 2
    linears.append(Linear(f"{path}.mlp.fc1", component, fc1_rows, d))
    linears.append(Linear(f"{path}.mlp.fc2", component, d, config.intermediate_size))
    return Block(path, tuple(linears))


def _link(
    path: str,
    name: str,
    linears: tuple[str, ...],
    source: str,
    feed: Feed,
    rows: RowKind,
    source_rows: tuple[int, int] | None = None,
) -> Link:
    """A link with paths relative to a block."""
    full = tuple(f"{path}.{linear}" for linear in linears)
    return Link(f"{path}.{name}", full, f"{path}.{source}", feed, rows, source_rows)


def _self_attention_links(path: str, rows: RowKind, *, one_to_one: bool) -> list[Link]:
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
        *_self_attention_links(path, RowKind.FRAME, one_to_one=one_to_one),
        _link(path, "mlp.in", ("mlp.fc1",), "post_attention_layernorm", Feed.NORM, RowKind.FRAME),
        _link(path, "mlp.out", ("mlp.fc2",), "mlp.fc1", Feed.ACTIVATION, RowKind.FRAME),
    ]


def _decoder_links(config: MoonshineConfig, path: str) -> list[Link]:
    """The k and v of the cross-attention belong to the link across blocks."""
    one_to_one = config.decoder_num_attention_heads == config.decoder_num_key_value_heads
    linear_half = (0, config.intermediate_size)
    out = ("encoder_attn.o_proj",)
    return [
        *_self_attention_links(path, RowKind.TOKEN, one_to_one=one_to_one),
        _link(path, "encoder_attn.q", ("encoder_attn.q_proj",), "post_attention_layernorm", Feed.NORM, RowKind.TOKEN),
        _link(path, "encoder_attn.out", out, "encoder_attn.v_proj", _value_feed(one_to_one), RowKind.TOKEN),
        _link(path, "mlp.in", ("mlp.fc1",), "final_layernorm", Feed.NORM, RowKind.TOKEN),
        _link(path, "mlp.out", ("mlp.fc2",), "mlp.fc1", Feed.GATED, RowKind.TOKEN, linear_half),
    ]
