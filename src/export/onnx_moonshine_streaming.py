"""Moonshine Streaming's encoder and decoder as ONNX graphs: the blocks are Moonshine's.

The front-end looks at pieces of 5 ms and back from them only, so no frame of a clip knows of what follows the clip; its
last piece counts as silence where it is incomplete. What differs from block to block is the window of frames that one
attends to.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto
from transformers import PreTrainedConfig

from src.export.base import Exportable
from src.export.onnx_decoder import cross_outputs
from src.export.onnx_graph import Graph
from src.export.onnx_linear import OnnxForm, linear
from src.export.onnx_moonshine import encoder_block, gated_decoder, within
from src.machine.progress import progress
from src.models.moonshine_streaming.original import ADAPTER

_EMBEDDER = "model.encoder.embedder"
_STRIDE = 2  # of both convolutions
_BEFORE = 4  # frames that their kernels of 5 look back
_CMVN_EPSILON = 1e-6


def is_usual(config: PreTrainedConfig) -> bool:
    """GELU, in the decoder a gated SiLU, a key head per query head, and default positions."""
    own = config.encoder_config
    functions = (own.hidden_act, config.hidden_act) == ("gelu", "silu")
    one_to_one = own.num_attention_heads == own.num_key_value_heads
    return one_to_one and functions and config.rope_parameters.get("rope_type", "default") == "default"


def encoder(model: Exportable, form: OnnxForm) -> onnx.ModelProto:
    """From ``audio`` [batch, samples] and ``samples`` int64 [batch], each clip's own length.

    Outputs: ``frame_mask`` bool [batch, frames], and the ``cross_*`` of :func:`cross_outputs`.
    """
    config, graph = model.config, Graph(model)
    windows = config.encoder_config.sliding_windows
    audio = graph.input("audio", TensorProto.FLOAT, ["batch", "padded_samples"])
    hidden, mask = _frontend(graph, audio, graph.input("samples", TensorProto.INT64, ["batch"]), form)
    own = graph.op("Unsqueeze", mask, graph.constant([1, 2]))
    for block, window in zip(progress(model.graph.encoder, "export, encoder blocks"), windows, strict=True):
        bias = _window_bias(graph, own, *window)
        hidden = encoder_block(graph, hidden, block.path, config.encoder_config.num_attention_heads, form, bias)
    graph.output("frame_mask", mask, TensorProto.BOOL, ["batch", "frames"])
    cross_outputs(graph, _adapted(graph, hidden, form), config.num_attention_heads, "frames", form, own)
    return graph.finish("encoder")


def decoder(model: Exportable, form: OnnxForm) -> onnx.ModelProto:
    return gated_decoder(model, model.config.num_attention_heads, form)


def _frontend(graph: Graph, audio: str, samples: str, form: OnnxForm) -> tuple[str, str]:
    """Frames [batch, frames, d], and a bool mask [batch, frames] of those that belong to their clip."""
    own = graph.model.config.encoder_config
    piece = round(own.sample_rate * own.frame_ms / 1000)
    rest = graph.op("Mod", graph.op("Neg", graph.size(audio, 1)), graph.constant([piece]))
    padded = graph.op("Pad", audio, graph.op("Concat", graph.constant([0, 0, 0]), rest, axis=0))
    hidden = _compressed(graph, graph.op("Reshape", padded, graph.constant([0, -1, piece])))
    hidden = graph.silu(linear(graph, hidden, f"{_EMBEDDER}.linear", form))
    whole = within(graph, graph.size(hidden, 1), graph.op("Div", samples, graph.constant([piece])))
    silence = graph.constant(0.0, np.float32)
    hidden = graph.op("Where", graph.op("Unsqueeze", whole, graph.constant([2])), hidden, silence)
    hidden = graph.op("Transpose", hidden, perm=[0, 2, 1])
    hidden = graph.conv(hidden, f"{_EMBEDDER}.conv1", stride=_STRIDE, pads=(_BEFORE, 0))
    hidden = graph.conv(graph.silu(hidden), f"{_EMBEDDER}.conv2", stride=_STRIDE, pads=(_BEFORE, 0))
    hidden = graph.op("Transpose", hidden, perm=[0, 2, 1])
    counts = samples
    for step in (piece, _STRIDE, _STRIDE):  # a part counts as a whole
        counts = graph.op("Div", graph.op("Add", counts, graph.constant([step - 1])), graph.constant([step]))
    return hidden, within(graph, graph.size(hidden, 1), counts)


def _compressed(graph: Graph, pieces: str) -> str:
    """``asinh(k x)`` of ``pieces`` [batch, pieces, samples], each with mean 0 and deviation 1 before."""
    last = graph.constant([-1])
    centred = graph.op("Sub", pieces, graph.op("ReduceMean", pieces, last))
    variance = graph.op("ReduceMean", graph.op("Mul", centred, centred), last)
    deviation = graph.op("Sqrt", graph.op("Add", variance, graph.constant(_CMVN_EPSILON, np.float32)))
    k = graph.op("Exp", graph.parameter(f"{_EMBEDDER}.comp.log_k"))
    return graph.op("Asinh", graph.op("Mul", graph.op("Div", centred, deviation), k))


def _window_bias(graph: Graph, own: str, past: int, ahead: int) -> str:
    """What is added to scores [batch, heads, frames, frames], by :func:`src.models.moonshine_streaming.speech._sees`.

    ``own``: bool [batch, 1, 1, frames], which frames are not padding.
    """

    def make() -> str:
        frames = graph.span(graph.constant([0]), graph.size(own, 3))
        distance = graph.op("Sub", graph.op("Unsqueeze", frames, graph.constant([1])), frames)
        near = graph.op("Greater", distance, graph.constant(-max(ahead, 1)))
        seen = graph.op("And", near, graph.op("Less", distance, graph.constant(past)))
        return graph.bias_of(graph.op("And", seen, own))

    return graph.once(("window", past, ahead), make)


def _adapted(graph: Graph, hidden: str, form: OnnxForm) -> str:
    """Final norm, positions, and the projection where there is one: [batch, frames, width of the decoder]."""
    start, frames = graph.constant([0]), graph.size(hidden, 1)

    def placed(normed: str, table: str) -> str:
        return graph.op("Add", normed, graph.op("Slice", table, start, frames, start))

    if graph.model.graph.adapter is None:  # the norm has left its weight to the adapter
        return placed(graph.layer_norm(hidden, ADAPTER), graph.parameter(f"{ADAPTER}.positions", transposed=True))
    normed = graph.layer_norm(hidden, graph.model.graph.encoder_norm)
    return linear(graph, placed(normed, graph.parameter(f"{ADAPTER}.positions.weight")), ADAPTER, form)
