"""What the decoders of both families share: caches in and out, the causal mask, the tied head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from src.export.base import Exportable
from src.export.onnx_graph import Graph
from src.export.onnx_linear import Form, head, linear


@dataclass
class Cached:
    """What one block attends to, and what it adds to the cache.

    Attributes:
        keys: of the tokens so far [batch, heads, past, h]; after :meth:`extend`, with the new ones.
        values: likewise.
        cross_keys: of the encoder's frames, scaled and transposed [batch, heads, h, frames].
        cross_values: of the encoder's frames [batch, heads, frames, h].
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


def cross_outputs(graph: Graph, states: str, heads: int, frames: int | str, form: Form) -> None:
    """Keys and values of every decoder block's cross-attention as outputs: the decoder never sees the states.

    ``cross_keys.i`` [batch, heads, h, frames] have the scores' scale, ``cross_values.i`` are [batch, heads, frames, h].
    """
    head_dim = graph.model.graph.head_dim
    for number, block in enumerate(graph.model.graph.decoder):
        keys, values = (
            graph.heads(linear(graph, states, f"{block.path}.encoder_attn.{name}_proj", form), heads) for name in "kv"
        )
        keys = graph.scaled_keys(keys, head_dim)
        graph.output(f"cross_keys.{number}", keys, TensorProto.FLOAT, ["batch", heads, head_dim, frames])
        graph.output(f"cross_values.{number}", values, TensorProto.FLOAT, ["batch", heads, frames, head_dim])


def cached_decoder(
    model: Exportable,
    heads: int,
    frames: int | str,
    embed: Callable[[Graph, str, str], str],
    block: Callable[[Graph, str, str, Cached], str],
    form: Form,
    *,
    masked: bool = False,
) -> onnx.ModelProto:
    """The decoder of one family.

    Inputs: ``tokens`` int64 [batch, new]; per block ``past_keys.i``, ``past_values.i`` [batch, heads, past, h] (past is
    0 for the prompt) and ``cross_keys.i``, ``cross_values.i`` of the encoder (:func:`cross_outputs`); with ``masked``
    also its ``frame_mask`` bool [batch, frames]. Outputs: ``logits`` [batch, new, vocabulary], ``keys.i``, ``values.i`` with the new tokens.

    Args:
        model: the quantized model.
        heads: attention heads.
        frames: encoder frames, or the name of their number.
        embed: what the first block reads, from tokens and their positions.
        block: one block: hidden, its path, its caches.
        form: how weights are written.
        masked: whether encoder frames can be padding.
    """
    graph, head_dim = Graph(model), model.graph.head_dim
    tokens = graph.input("tokens", TensorProto.INT64, ["batch", "new"])
    mask = graph.input("frame_mask", TensorProto.BOOL, ["batch", frames]) if masked else None
    shapes: dict[str, list[int | str]] = {
        "past_keys": ["past", head_dim],
        "past_values": ["past", head_dim],
        "cross_keys": [head_dim, frames],
        "cross_values": [frames, head_dim],
    }
    inputs = [
        [graph.input(f"{name}.{i}", TensorProto.FLOAT, ["batch", heads, *rest]) for name, rest in shapes.items()]
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
    logits = head(graph, normed, form)
    graph.output("logits", logits, TensorProto.FLOAT, ["batch", "new", model.config.vocab_size])
    return graph.finish("decoder")
