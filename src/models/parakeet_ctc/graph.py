"""The graph of Parakeet CTC: a Fast Conformer (arXiv 2305.05084), whose blocks are read by a head frame by frame.

A block is two feed-forward parts that count half, and between them attention and convolution, each behind a norm of its
own. These four norms feed linears alone. The fifth, ``norm_out``, ends the block and feeds the residual stream of the
next one, whence it folds into nothing and no rotation of the stream passes it.
"""

from __future__ import annotations

from transformers import ParakeetCTCConfig

from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, RowKind

POSITIONS = "encoder.encode_positions"


def parakeet_graph(config: ParakeetCTCConfig) -> ModelGraph:
    own = config.encoder_config
    paths = [f"encoder.layers.{i}" for i in range(own.num_hidden_layers)]
    subsampling = "encoder.subsampling"
    halvings = own.subsampling_factor.bit_length() - 1
    pointwise = [f"{subsampling}.layers.{3 * i}" for i in range(1, halvings)]  # behind a depthwise one each
    last = f"{paths[-1]}.norm_out"
    return ModelGraph(
        encoder=tuple(_block(config, path) for path in paths),
        decoder=(),
        links=tuple(link for path in paths for link in _links(path)),
        encoder_norm=last,
        decoder_norm=last,
        frontend=(f"{subsampling}.layers.0", *pointwise, f"{subsampling}.linear"),
        embedding="ctc_head",
        head="ctc_head",
        head_dim=own.hidden_size // own.num_attention_heads,
        rotatable=False,
    )


def _block(config: ParakeetCTCConfig, path: str) -> Block:
    own = config.encoder_config
    d, ffn = own.hidden_size, own.intermediate_size
    shapes = {
        "feed_forward1.linear1": (ffn, d),
        "feed_forward1.linear2": (d, ffn),
        **{f"self_attn.{name}": (d, d) for name in ("q_proj", "k_proj", "v_proj", "relative_k_proj", "o_proj")},
        "conv.pointwise_conv1": (2 * d, d),
        "conv.pointwise_conv2": (d, d),
        "feed_forward2.linear1": (ffn, d),
        "feed_forward2.linear2": (d, ffn),
    }
    return Block(path, tuple(Linear(f"{path}.{name}", Component.ENCODER, *shape) for name, shape in shapes.items()))


def _links(path: str) -> list[Link]:
    def link(name: str, linears: list[str], source: str, feed: Feed) -> Link:
        return Link(f"{path}.{name}", tuple(f"{path}.{x}" for x in linears), f"{path}.{source}", feed, RowKind.FRAME)

    def feed_forward(name: str) -> list[Link]:
        into, out = f"{name}.linear1", f"{name}.linear2"
        return [
            link(f"{name}.in", [into], f"norm_{name}", Feed.NORM),
            link(f"{name}.out", [out], into, Feed.ACTIVATION),
        ]

    qkv = [f"self_attn.{name}_proj" for name in "qkv"]
    positions = Link(
        f"{path}.self_attn.positions",
        (f"{path}.self_attn.relative_k_proj",),
        POSITIONS,
        Feed.POSITIONS,
        RowKind.POSITION,
    )
    return [
        *feed_forward("feed_forward1"),
        link("self_attn.qkv", qkv, "norm_self_att", Feed.NORM),
        positions,
        link("self_attn.out", ["self_attn.o_proj"], "self_attn.v_proj", Feed.LINEAR),
        link("conv.in", ["conv.pointwise_conv1"], "norm_conv", Feed.NORM),
        link("conv.out", ["conv.pointwise_conv2"], "conv.pointwise_conv1", Feed.ACTIVATION),
        *feed_forward("feed_forward2"),
    ]
