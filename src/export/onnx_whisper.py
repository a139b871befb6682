"""Whisper's encoder and decoder as ONNX graphs."""

from __future__ import annotations

import onnx
from onnx import TensorProto
from transformers import PreTrainedConfig

from src.export.base import Exportable
from src.export.onnx_decoder import Cached, cached_decoder, cross_outputs
from src.export.onnx_graph import MICROSOFT, Graph
from src.export.onnx_linear import OnnxForm, embedded, linear, linears
from src.machine.progress import progress


def is_usual(config: PreTrainedConfig) -> bool:
    """GELU throughout, and embeddings that are not scaled."""
    return bool(config.activation_function == "gelu" and not config.scale_embedding)


def encoder(model: Exportable, form: OnnxForm) -> onnx.ModelProto:
    """``mel`` [batch, mels, 2 frames] of one window or its start to the ``cross_*`` of :func:`cross_outputs`."""
    config, graph = model.config, Graph(model)
    mel = graph.input("mel", TensorProto.FLOAT, ["batch", config.num_mel_bins, "mel_frames"])
    hidden = graph.op("Gelu", graph.conv(mel, "model.encoder.conv1", stride=1, pads=(1, 1)))
    hidden = graph.op("Gelu", graph.conv(hidden, "model.encoder.conv2", stride=2, pads=(1, 1)))
    hidden = graph.op("Transpose", hidden, perm=[0, 2, 1])
    positions = graph.parameter("model.encoder.embed_positions.weight")
    heard = graph.op("Slice", positions, graph.constant([0]), graph.size(hidden, 1), graph.constant([0]))
    hidden = graph.op("Add", hidden, heard)
    for block in progress(model.graph.encoder, "export, encoder blocks"):
        normed = graph.layer_norm(hidden, f"{block.path}.self_attn_layer_norm")
        qkv = linears(graph, normed, [f"{block.path}.self_attn.{name}_proj" for name in "qkv"], form)
        mixed = graph.op("MultiHeadAttention", *qkv, domain=MICROSOFT, num_heads=config.encoder_attention_heads)
        hidden = graph.op("Add", hidden, linear(graph, mixed, f"{block.path}.self_attn.out_proj", form))
        hidden = _mlp(graph, hidden, block.path, form)
    states = graph.layer_norm(hidden, model.graph.encoder_norm)
    cross_outputs(graph, states, config.decoder_attention_heads, "frames", form)
    return graph.finish("encoder")


def decoder(model: Exportable, form: OnnxForm) -> onnx.ModelProto:
    heads = model.config.decoder_attention_heads

    def embed(graph: Graph, tokens: str, positions: str) -> str:
        table = graph.parameter("model.decoder.embed_positions.weight")
        return graph.op("Add", embedded(graph, tokens, form), graph.op("Gather", table, positions))

    def block(graph: Graph, hidden: str, path: str, cached: Cached) -> str:
        normed = graph.layer_norm(hidden, f"{path}.self_attn_layer_norm")
        mixed = cached.attend(*linears(graph, normed, [f"{path}.self_attn.{name}_proj" for name in "qkv"], form))
        hidden = graph.op("Add", hidden, linear(graph, mixed, f"{path}.self_attn.out_proj", form))
        normed = graph.layer_norm(hidden, f"{path}.encoder_attn_layer_norm")
        mixed = cached.attend_frames(linear(graph, normed, f"{path}.encoder_attn.q_proj", form))
        hidden = graph.op("Add", hidden, linear(graph, mixed, f"{path}.encoder_attn.out_proj", form))
        return _mlp(graph, hidden, path, form)

    return cached_decoder(model, heads, "frames", embed, block, form)


def _mlp(graph: Graph, hidden: str, path: str, form: OnnxForm) -> str:
    normed = graph.layer_norm(hidden, f"{path}.final_layer_norm")
    wide = graph.op("Gelu", linear(graph, normed, f"{path}.fc1", form))
    return graph.op("Add", hidden, linear(graph, wide, f"{path}.fc2", form))
