"""The graph of Moonshine: its blocks, their linears, and what feeds each."""

from __future__ import annotations

from transformers import MoonshineConfig

from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, RowKind, cross_kv_link

_NORM = "model.encoder.layer_norm"


def moonshine_graph(config: MoonshineConfig) -> ModelGraph:
    encoder = [f"model.encoder.layers.{i}" for i in range(config.encoder_num_hidden_layers)]
    decoder = [f"model.decoder.layers.{i}" for i in range(config.decoder_num_hidden_layers)]
    one_to_one = {
        side: getattr(config, f"{side}_num_attention_heads") == getattr(config, f"{side}_num_key_value_heads")
        for side in ("encoder", "decoder")
    }
    links = [link for path in encoder for link in encoder_links(path, one_to_one=one_to_one["encoder"])]
    links.append(cross_kv_link(decoder, _NORM))
    ffn = config.intermediate_size
    links += [link for path in decoder for link in decoder_links(path, ffn, one_to_one=one_to_one["decoder"])]
    return ModelGraph(
        encoder=tuple(_block(config, path, Component.ENCODER) for path in encoder),
        decoder=tuple(_block(config, path, Component.DECODER) for path in decoder),
        links=tuple(links),
        encoder_norm=_NORM,
        decoder_norm="model.decoder.norm",
        frontend=("model.encoder.conv1", "model.encoder.conv2", "model.encoder.conv3"),
        embedding="model.decoder.embed_tokens",
        head="proj_out",
        head_dim=config.hidden_size // config.encoder_num_attention_heads,
    )


def attention(path: str, component: Component, d: int, heads: int, kv_heads: int, head_dim: int) -> list[Linear]:
    """The linears of an attention on a stream of width ``d``, in execution order."""
    inner, kv = heads * head_dim, kv_heads * head_dim
    widths = {"q_proj": (inner, d), "k_proj": (kv, d), "v_proj": (kv, d), "o_proj": (d, inner)}
    return [Linear(f"{path}.{name}", component, *shape) for name, shape in widths.items()]


def _block(config: MoonshineConfig, path: str, component: Component) -> Block:
    """Linears of one block, in execution order; the decoder's MLP is gated and its fc1 twice as tall."""
    d, fc1_rows = config.hidden_size, config.intermediate_size
    heads, kv_heads = (getattr(config, f"{component}_num_{kind}_heads") for kind in ("attention", "key_value"))
    linears = attention(f"{path}.self_attn", component, d, heads, kv_heads, d // heads)
    if component is Component.DECODER:
        linears += attention(f"{path}.encoder_attn", Component.CROSS_ATTENTION, d, heads, kv_heads, d // heads)
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


def encoder_links(path: str, *, one_to_one: bool) -> list[Link]:
    """Links of one encoder block; ``one_to_one``: every query head has keys and values of its own."""
    return [
        *_self_attention_links(path, RowKind.FRAME, one_to_one=one_to_one),
        _link(path, "mlp.in", ("mlp.fc1",), "post_attention_layernorm", Feed.NORM, RowKind.FRAME),
        _link(path, "mlp.out", ("mlp.fc2",), "mlp.fc1", Feed.ACTIVATION, RowKind.FRAME),
    ]


def decoder_links(path: str, ffn: int, *, one_to_one: bool) -> list[Link]:
    """Links of one decoder block. The k and v of the cross-attention belong to the link across blocks."""
    linear_half = (0, ffn)
    out = ("encoder_attn.o_proj",)
    return [
        *_self_attention_links(path, RowKind.TOKEN, one_to_one=one_to_one),
        _link(path, "encoder_attn.q", ("encoder_attn.q_proj",), "post_attention_layernorm", Feed.NORM, RowKind.TOKEN),
        _link(path, "encoder_attn.out", out, "encoder_attn.v_proj", _value_feed(one_to_one), RowKind.TOKEN),
        _link(path, "mlp.in", ("mlp.fc1",), "final_layernorm", Feed.NORM, RowKind.TOKEN),
        _link(path, "mlp.out", ("mlp.fc2",), "mlp.fc1", Feed.GATED, RowKind.TOKEN, linear_half),
    ]
