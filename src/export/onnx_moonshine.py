"""Moonshine's encoder and decoder as ONNX graphs.

The front-end normalises over time, so padding would change every frame. Its mean and variance are therefore taken over
each clip's own frames: clips of different lengths can share a batch, and the others do not see the padding.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto
from transformers import PreTrainedConfig

from src.export.base import Exportable
from src.export.onnx_decoder import Cached, cached_decoder, cross_outputs
from src.export.onnx_graph import Graph
from src.export.onnx_linear import OnnxForm, embedded, linear, projected
from src.machine.progress import progress

CONVOLUTIONS = ((127, 64), (7, 3), (3, 2))  # width and stride of conv1, conv2, conv3
_GROUP_NORM_EPSILON = 1e-5


def is_usual(config: PreTrainedConfig) -> bool:
    """GELU, in the decoder a gated SiLU, a key head per query head, and default positions."""
    sides = ("encoder", "decoder")
    heads = [(getattr(config, f"{side}_num_{kind}_heads")) for kind in ("attention", "key_value") for side in sides]
    functions = (config.encoder_hidden_act, config.decoder_hidden_act) == ("gelu", "silu")
    return heads[:2] == heads[2:] and functions and config.rope_parameters.get("rope_type", "default") == "default"


def encoder(model: Exportable, form: OnnxForm) -> onnx.ModelProto:
    """From ``audio`` [batch, samples] and ``samples`` int64 [batch], each clip's own length.

    Outputs: ``frame_mask`` bool [batch, frames], and the ``cross_*`` of :func:`cross_outputs`.
    """
    config, graph = model.config, Graph(model)
    heads = config.encoder_num_attention_heads
    audio = graph.input("audio", TensorProto.FLOAT, ["batch", "padded_samples"])
    hidden, mask = _frontend(graph, audio, graph.input("samples", TensorProto.INT64, ["batch"]))
    own = graph.op("Unsqueeze", mask, graph.constant([1, 2]))
    bias = graph.bias_of(own)
    turn = Rotary(graph, graph.span(graph.constant([0]), graph.size(hidden, 1)))
    for block in progress(model.graph.encoder, "export, encoder blocks"):
        hidden = encoder_block(graph, hidden, block.path, heads, form, bias, turn)
    states = graph.layer_norm(hidden, model.graph.encoder_norm)
    graph.output("frame_mask", mask, TensorProto.BOOL, ["batch", "frames"])
    cross_outputs(graph, states, config.decoder_num_attention_heads, "frames", form, own)
    return graph.finish("encoder")


def decoder(model: Exportable, form: OnnxForm) -> onnx.ModelProto:
    return gated_decoder(model, model.config.decoder_num_attention_heads, form)


def encoder_block(
    graph: Graph, hidden: str, path: str, heads: int, form: OnnxForm, bias: str, turn: Rotary | None = None
) -> str:
    """One block of ``hidden`` [batch, frames, d]; ``bias`` [batch, 1, 1 or frames, frames] is added to its scores."""
    normed = graph.layer_norm(hidden, f"{path}.input_layernorm")
    q, k, v = projected(graph, normed, f"{path}.self_attn", heads, form)
    if turn is not None:
        q, k = turn(q), turn(k)
    mixed = graph.attention(q, k, v, bias, graph.model.graph.head_dim)
    hidden = graph.op("Add", hidden, linear(graph, mixed, f"{path}.self_attn.o_proj", form))
    normed = graph.layer_norm(hidden, f"{path}.post_attention_layernorm")
    wide = graph.op("Gelu", linear(graph, normed, f"{path}.mlp.fc1", form))
    return graph.op("Add", hidden, linear(graph, wide, f"{path}.mlp.fc2", form))


def gated_decoder(model: Exportable, heads: int, form: OnnxForm) -> onnx.ModelProto:
    """As :func:`cached_decoder` says: rotary positions, and a gate in every block's feed-forward part."""
    turns: list[Rotary] = []

    def embed(graph: Graph, tokens: str, positions: str) -> str:
        turns.append(Rotary(graph, positions))
        return embedded(graph, tokens, form)

    def block(graph: Graph, hidden: str, path: str, cached: Cached) -> str:
        normed = graph.layer_norm(hidden, f"{path}.input_layernorm")
        q, k, v = projected(graph, normed, f"{path}.self_attn", heads, form)
        mixed = cached.attend(*(graph.joined(each) for each in (turns[0](q), turns[0](k), v)))
        hidden = graph.op("Add", hidden, linear(graph, mixed, f"{path}.self_attn.o_proj", form))
        normed = graph.layer_norm(hidden, f"{path}.post_attention_layernorm")
        mixed = cached.attend_frames(linear(graph, normed, f"{path}.encoder_attn.q_proj", form))
        hidden = graph.op("Add", hidden, linear(graph, mixed, f"{path}.encoder_attn.o_proj", form))
        normed = graph.layer_norm(hidden, f"{path}.final_layernorm")
        wide, gate = graph.ops(
            "Split", linear(graph, normed, f"{path}.mlp.fc1", form), outputs=2, axis=-1, num_outputs=2
        )
        gated = graph.op("Mul", wide, graph.silu(gate))
        return graph.op("Add", hidden, linear(graph, gated, f"{path}.mlp.fc2", form))

    return cached_decoder(model, heads, "frames", embed, block, form, masked=True)


class Rotary:
    """Rotary positions of interleaved pairs in the first part of every head; ``positions`` is int64 [n]."""

    def __init__(self, graph: Graph, positions: str) -> None:
        self._graph = graph
        frequencies = _frequencies(graph.model)
        self._pairs = len(frequencies)
        column = graph.op("Unsqueeze", graph.op("Cast", positions, to=TensorProto.FLOAT), graph.constant([1]))
        angles = graph.op("Mul", column, graph.constant(frequencies, np.float32))
        self._cos, self._sin = (
            graph.op("Unsqueeze", graph.op(kind, angles), graph.constant([2])) for kind in ("Cos", "Sin")
        )

    def __call__(self, x: str) -> str:
        """``x`` [batch, heads, n, h] turned."""
        graph, width = self._graph, 2 * self._pairs
        rest = graph.model.graph.head_dim - width
        turned, kept = graph.ops("Split", x, graph.constant([width, rest]), outputs=2, axis=-1)
        pairs = graph.op("Reshape", turned, graph.constant([0, 0, 0, self._pairs, 2]))
        first, second = graph.ops("Split", pairs, outputs=2, axis=-1, num_outputs=2)
        left = graph.op("Sub", graph.op("Mul", first, self._cos), graph.op("Mul", second, self._sin))
        right = graph.op("Add", graph.op("Mul", second, self._cos), graph.op("Mul", first, self._sin))
        both = graph.op("Concat", left, right, axis=-1)
        return graph.op("Concat", graph.op("Reshape", both, graph.constant([0, 0, 0, width])), kept, axis=-1)


def _frequencies(model: Exportable) -> np.ndarray:
    """One angle a position for every pair, computed in float32 as transformers does."""
    rope = model.config.rope_parameters
    width = int(model.graph.head_dim * rope.get("partial_rotary_factor", 1.0))
    exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
    frequencies: np.ndarray = (1.0 / rope["rope_theta"] ** exponents).numpy()
    return frequencies


def _frontend(graph: Graph, audio: str, samples: str) -> tuple[str, str]:
    """Frames [batch, frames, d], and a bool mask [batch, frames] of those that belong to their clip."""
    strides = [stride for _, stride in CONVOLUTIONS]
    counts, frames = [], samples
    for width, stride in CONVOLUTIONS:
        whole = graph.op("Div", graph.op("Sub", frames, graph.constant([width])), graph.constant([stride]))
        frames = graph.op("Add", whole, graph.constant([1]))
        counts.append(frames)
    hidden = graph.op("Unsqueeze", audio, graph.constant([1]))
    hidden = graph.op("Tanh", graph.conv(hidden, "model.encoder.conv1", stride=strides[0]))
    hidden = _group_norm(graph, hidden, counts[0])
    hidden = graph.op("Gelu", graph.conv(hidden, "model.encoder.conv2", stride=strides[1]))
    hidden = graph.op("Gelu", graph.conv(hidden, "model.encoder.conv3", stride=strides[2]))
    hidden = graph.op("Transpose", hidden, perm=[0, 2, 1])
    return hidden, within(graph, graph.size(hidden, 1), counts[2])


def within(graph: Graph, length: str, counts: str) -> str:
    """Bool [batch, length]: which of ``length`` frames are among the first ``counts`` [batch]."""
    positions = graph.span(graph.constant([0]), length)
    return graph.op("Less", positions, graph.op("Unsqueeze", counts, graph.constant([1])))


def _group_norm(graph: Graph, x: str, counts: str) -> str:
    """All of a clip's frames ``x`` [batch, d, frames] normalised together, as the first ``counts`` say."""
    d = graph.model.config.hidden_size
    own = graph.op("Unsqueeze", within(graph, graph.size(x, 2), counts), graph.constant([1]))
    own = graph.op("Cast", own, to=TensorProto.FLOAT)
    number = graph.op("Mul", graph.op("Cast", counts, to=TensorProto.FLOAT), graph.constant([d], np.float32))
    number = graph.op("Unsqueeze", number, graph.constant([1, 2]))
    axes = graph.constant([1, 2])
    mean = graph.op("Div", graph.op("ReduceSum", graph.op("Mul", x, own), axes), number)
    centred = graph.op("Sub", x, mean)
    square = graph.op("Mul", graph.op("Mul", centred, centred), own)
    variance = graph.op("Div", graph.op("ReduceSum", square, axes), number)
    deviation = graph.op("Sqrt", graph.op("Add", variance, graph.constant(_GROUP_NORM_EPSILON, np.float32)))
    weight, bias = (
        graph.op("Reshape", graph.parameter(f"model.encoder.groupnorm.{name}"), graph.constant([1, -1, 1]))
        for name in ("weight", "bias")
    )
    return graph.op("Add", graph.op("Mul", graph.op("Div", centred, deviation), weight), bias)
