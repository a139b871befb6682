"""What the decoders of both families share: caches in and out, the causal mask, the tied head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from src.export.base import Exportable
from src.export.onnx_graph import Graph
from src.export.onnx_linear import linear


@dataclass
class Cached:
    """What one block attends to, and what it adds to the cache.

    Attributes:
        keys: of the tokens so far [batch, heads, past, h]; after :meth:`extend`, with the new ones.
        values: likewise.
        cross_keys: of the encoder's frames [batch, heads, frames, h].
        cross_values: likewise.
        causal: added to scores of the self-attention, [new, past + new].
        frames: added to those of the cross-attention, [batch, 1, 1, frames]; None where all frames count.
    """

    graph: Graph
    keys: str
    values: str
    cross_keys: str
    cross_values: str
    causal: str
    frames: str | None

    def extend(self, k: str, v: str) -> tuple[str, str]:
        """Appends keys and values of the new tokens, and returns all."""
        self.keys = self.graph.op("Concat", self.keys, k, axis=2)
        self.values = self.graph.op("Concat", self.values, v, axis=2)
        return self.keys, self.values


def cross_outputs(graph: Graph, states: str, heads: int, frames: int | str, form: str) -> None:
    """Keys and values of every decoder block's cross-attention as outputs: the decoder never sees the states."""
    shape: list[int | str] = ["batch", heads, frames, graph.model.graph.head_dim]
    for number, block in enumerate(graph.model.graph.decoder):
        for kind, name in (("keys", "k_proj"), ("values", "v_proj")):
            projected = linear(graph, states, f"{block.path}.encoder_attn.{name}", form)
            graph.output(f"cross_{kind}.{number}", graph.heads(projected, heads), TensorProto.FLOAT, shape)


def cached_decoder(
    model: Exportable,
    heads: int,
    frames: int | str,
    embed: Callable[[Graph, str, str], str],
    block: Callable[[Graph, str, str, Cached], str],
    *,
    masked: bool = False,
) -> onnx.ModelProto:
    """The decoder of one family.

    Inputs: ``tokens`` int64 [batch, new]; per block ``past_keys.i``, ``past_values.i`` [batch, heads, past, h] (past is
    0 for the prompt) and ``cross_keys.i``, ``cross_values.i`` of the encoder; with ``masked`` also its ``frame_mask``
    bool [batch, frames]. Outputs: ``logits`` [batch, new, vocabulary], ``keys.i``, ``values.i`` with the new tokens.

    Args:
        model: the quantized model.
        heads: attention heads.
        frames: encoder frames, or the name of their number.
        embed: what the first block reads, from tokens and their positions.
        block: one block: hidden, its path, its caches.
        masked: whether encoder frames can be padding.
    """
    graph, head_dim = Graph(model), model.graph.head_dim
    tokens = graph.input("tokens", TensorProto.INT64, ["batch", "new"])
    mask = graph.input("frame_mask", TensorProto.BOOL, ["batch", frames]) if masked else None
    lengths = {"past_keys": "past", "past_values": "past", "cross_keys": frames, "cross_values": frames}
    inputs = [
        [graph.input(f"{name}.{i}", TensorProto.FLOAT, ["batch", heads, n, head_dim]) for name, n in lengths.items()]
        for i in range(len(model.graph.decoder))
    ]
    past, new = graph.size(inputs[0][0], 2), graph.size(tokens, 1)
    total = graph.op("Add", past, new)
    positions = graph.span(past, total)
    column = graph.op("Unsqueeze", positions, graph.constant([1]))
    causal = graph.bias_of(graph.op("LessOrEqual", graph.span(graph.constant([0]), total), column))
    frame_bias = None if mask is None else graph.bias_of(graph.op("Unsqueeze", mask, graph.constant([1, 2])))
    hidden = embed(graph, tokens, positions)
    for number, each in enumerate(model.graph.decoder):
        keys, values, cross_keys, cross_values = inputs[number]
        cached = Cached(graph, keys, values, cross_keys, cross_values, causal, frame_bias)
        hidden = block(graph, hidden, each.path, cached)
        for name, tensor in (("keys", cached.keys), ("values", cached.values)):
            graph.output(f"{name}.{number}", tensor, TensorProto.FLOAT, ["batch", heads, "total", head_dim])
    normed = graph.layer_norm(hidden, model.graph.decoder_norm)
    _head(graph, normed)
    return graph.finish("decoder")


def _head(graph: Graph, hidden: str) -> None:
    """``logits`` from the embedding's rows, which both ends of the decoder share."""
    model = graph.model
    table = graph.parameter(f"{model.graph.embedding}.weight")
    width, vocabulary = model.config.hidden_size, model.config.vocab_size
    rows = graph.op("Reshape", hidden, graph.constant([-1, width]))
    flat = graph.op("Gemm", rows, table, transB=1)
    sizes = graph.op("Shape", hidden, start=0, end=2)
    shape = graph.op("Concat", sizes, graph.constant([vocabulary]), axis=0)
    logits = graph.op("Reshape", flat, shape)
    graph.output("logits", logits, TensorProto.FLOAT, ["batch", "new", vocabulary])
