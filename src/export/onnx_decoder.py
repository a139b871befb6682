"""What the decoders of all families share: caches in and out, the causal mask, the tied head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from src.export.base import Exportable
from src.export.onnx_cross import CROSSES, Cross, OnnxShape
from src.export.onnx_graph import MICROSOFT, Graph
from src.export.onnx_linear import OnnxForm, head, linear
from src.machine.progress import progress


@dataclass
class Cached:
    """What one block attends to, and what it adds to the cache.

    Attributes:
        keys: of the tokens so far [batch, heads, past, h]; after :meth:`attend`, with the new ones.
        values: likewise.
        cross: how the encoder's frames are kept.
        held: their tensors, by the names of ``cross``.
        heads: attention heads.
        bias: added to the scores of the frames, [batch, 1, 1, frames]; None where all frames count.
    """

    graph: Graph
    keys: str
    values: str
    cross: Cross
    held: Mapping[str, str]
    heads: int
    bias: str | None

    def attend(self, q: str, k: str, v: str) -> str:
        """Appends keys and values of the new tokens, and lets each attend to all before it and itself.

        ``q``, ``k``, ``v`` and what is returned: [batch, new, heads h]. One operator, as a step has one row, and what
        it costs beside the weights is the number of operators.
        """
        inputs = (q, k, v, "", "", "", self.keys, self.values)
        mixed, self.keys, self.values = self.graph.ops(
            "MultiHeadAttention", *inputs, outputs=3, domain=MICROSOFT, num_heads=self.heads, unidirectional=1
        )
        return mixed

    def attend_frames(self, q: str) -> str:
        """Lets ``q`` [batch, new, heads h] attend to the encoder's frames; returns the same shape."""
        return self.cross.attend(self.graph, self.graph.heads(q, self.heads), self.held, self.bias)


def cross_outputs(
    graph: Graph, states: str, heads: int, frames: int | str, form: OnnxForm, mask: str | None = None
) -> None:
    """Keys and values of every decoder block's cross-attention as outputs: the decoder never sees the states.

    ``mask``: bool [batch, 1, 1, frames] of the frames that are not padding. :mod:`src.export.onnx_cross` tells the
    tensors.
    """
    cross, head_dim = CROSSES[form.cross_cache], graph.model.graph.head_dim
    shapes = cross.shapes(head_dim, frames)
    for number, block in enumerate(graph.model.graph.decoder):
        keys, values = (
            graph.heads(linear(graph, states, f"{block.path}.encoder_attn.{name}_proj", form), heads) for name in "kv"
        )
        for name, tensor in cross.stored(graph, keys, values, mask).items():
            kind, shape = shapes[name]
            graph.output(f"{name}.{number}", tensor, kind, ["batch", heads, *shape])


def cached_decoder(
    model: Exportable,
    heads: int,
    frames: int | str,
    embed: Callable[[Graph, str, str], str],
    block: Callable[[Graph, str, str, Cached], str],
    form: OnnxForm,
    *,
    masked: bool = False,
) -> onnx.ModelProto:
    """The decoder of one family.

    Inputs: ``tokens`` int64 [batch, new]; per block ``past_keys.i``, ``past_values.i`` [batch, heads, past, h] (past is
    0 for the prompt) and the ``cross_*.i`` of the encoder (:func:`cross_outputs`); with ``masked`` also its
    ``frame_mask`` bool [batch, frames]. Outputs: ``logits`` [batch, new, vocabulary], ``keys.i``, ``values.i``
    with the new tokens.

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
    cross = CROSSES[form.cross_cache]
    shapes: dict[str, tuple[int, OnnxShape]] = {
        "past_keys": (TensorProto.FLOAT, ["past", head_dim]),
        "past_values": (TensorProto.FLOAT, ["past", head_dim]),
        **cross.shapes(head_dim, frames),
    }
    inputs = [
        {name: graph.input(f"{name}.{i}", kind, ["batch", heads, *rest]) for name, (kind, rest) in shapes.items()}
        for i in range(len(model.graph.decoder))
    ]
    past, new = graph.size(inputs[0]["past_keys"], 2), graph.size(tokens, 1)
    # not a range from past on: onnxruntime makes a slice of a gathered range, and a wrong one
    positions = graph.op("Add", past, graph.span(graph.constant([0]), new))
    frame_bias = None if mask is None else graph.bias_of(graph.op("Unsqueeze", mask, graph.constant([1, 2])))
    hidden = embed(graph, tokens, positions)
    for number, each in enumerate(progress(model.graph.decoder, "export, decoder blocks")):
        held = inputs[number]
        cached = Cached(graph, held["past_keys"], held["past_values"], cross, held, heads, frame_bias)
        hidden = block(graph, hidden, each.path, cached)
        for name, tensor in (("keys", cached.keys), ("values", cached.values)):
            graph.output(f"{name}.{number}", tensor, TensorProto.FLOAT, ["batch", heads, "total", head_dim])
    normed = graph.layer_norm(hidden, model.graph.decoder_norm)
    logits = head(graph, normed, form)
    graph.output("logits", logits, TensorProto.FLOAT, ["batch", "new", model.config.vocab_size])
    return graph.finish("decoder")
