"""Moonshine as its authors' runtime has it: encoder_model.ort, decoder_model_merged.ort and tokenizer.bin.

The .ort files are FlatBuffers of onnxruntime: graphs of nodes, whose weights are 8-bit integers with a scale and a zero
point a tensor, but for convolutions, norms and biases. A node is named after the module that it was exported from.
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/flatbuffers/schema/ort.fbs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from src.models.files import wrong
from src.models.formats.flatbuffer import Table
from src.models.formats.foreign import Foreign, as_json, mapped, parsing
from src.models.formats.moonshine_tokenizer import tokenizer_json
from src.models.tensors import Stored

_ENCODER: Final = "encoder_model.ort"
_DECODER: Final = "decoder_model_merged.ort"
_KIND: Final = "file of onnxruntime"
_DTYPES: Final = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?"}  # of ONNX
# Fields of the schema's tables, by number.
_SESSION_MODEL, _MODEL_GRAPH = 1, 7
_GRAPH_INITIALIZERS, _GRAPH_NODES = 0, 2
_NODE_NAME, _NODE_TYPE, _NODE_INPUTS, _NODE_ATTRIBUTES, _ATTRIBUTE_GRAPH = 0, 5, 8, 10, 7
_TENSOR_NAME, _TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_BYTES = 0, 2, 3, 4
_PRODUCTS: Final = ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")
_OPERATION: Final = re.compile(r"/(MatMul_quant|Gather)$")
_PLAIN: Final = re.compile(r"(norm|conv\d|fc\d)\.(weight|bias)$")
_COPY: Final = re.compile(r"(_merged_\d+)?(_add_tensor)?$")  # what merging and optimising add to names
_GROUP_NORM: Final = re.compile(r"onnx::(Mul|Add)_\d+")
_HEADS: Final = 8
_ROTARY: Final = {288: 0.9, 416: 0.62}  # tiny, base: the share of a head's channels that is rotated, by width


@dataclass(frozen=True)
class _Weight:
    """One weight: its shape as transformers has it, and what reads it."""

    file: Path
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def describe(folder: Path) -> Foreign | None:
    """What is in a folder with both .ort files.

    Raises:
        UserError: one is missing, damaged, cut off, or of another model, or there is no tokenizer.
    """
    files = [folder / _ENCODER, folder / _DECODER]
    if not any(file.exists() for file in files):
        return None
    tokenizer = folder / ("tokenizer.json" if (folder / "tokenizer.json").exists() else "tokenizer.bin")
    for file in (*files, tokenizer):
        if not file.exists():
            raise wrong(f"{folder} has no {file.name}", "Copy all files of the model")
    weights: dict[str, _Weight] = {}
    for file, prefix in zip(files, ("model.encoder.", ""), strict=True):
        with parsing(file, _KIND):
            weights |= {f"{prefix}{name}": weight for name, weight in _weights(file).items()}
    with parsing(files[1], _KIND):
        config = _config(weights)
    with parsing(tokenizer, "tokenizer of Moonshine"):
        content = tokenizer.read_bytes()
        content = content if tokenizer.suffix == ".json" else tokenizer_json(content)
    tensors = {name: Stored(weight.file, "F32", weight.shape, 0, 0) for name, weight in weights.items()}

    def read() -> dict[str, np.ndarray]:
        return {name: weight.read() for name, weight in weights.items()}

    rounded = "linears and embedding rounded to 8 bits, a scale and a zero point a tensor, by its authors"
    return Foreign((*files, tokenizer), _settings(config) | {"tokenizer.json": content}, tensors, read, rounded)


def _weights(file: Path) -> dict[str, _Weight]:
    """Weights by module path, from the nodes that use them or, where they kept them, their own names."""
    data = mapped(file)
    if data[4:8].tobytes() != b"ORTM":
        raise ValueError(f"it begins with {data[:8].tobytes()!r}")
    model = Table.root(data).table(_SESSION_MODEL)
    top = model.table(_MODEL_GRAPH) if model else None
    if top is None:
        raise ValueError("no graph")
    graphs = list(_graphs(top))
    held = {each.text(_TENSOR_NAME): each for graph in graphs for each in graph.tables(_GRAPH_INITIALIZERS)}
    found: dict[str, _Weight] = {}

    for node in (node for graph in graphs for node in graph.tables(_GRAPH_NODES)):
        kind, inputs = node.text(_NODE_TYPE), node.texts(_NODE_INPUTS)
        path = _OPERATION.sub("", node.text(_NODE_NAME)).strip("/").replace("/", ".")
        if kind in _PRODUCTS and path != "proj_out":  # the head is the embedding
            grid = _grid(held, inputs[1])
            found[f"{path}.weight"] = _Weight(file, grid[0].shape[::-1], partial(_transposed, *grid))
        elif kind == "Gather" and inputs[0].endswith("_quantized"):
            grid = _grid(held, inputs[0])
            found[f"{path}.weight"] = _Weight(file, grid[0].shape, partial(_real, *grid))
    for name, tensor in held.items():
        plain = _COPY.sub("", name)
        match = _GROUP_NORM.fullmatch(plain)
        if match and len(shape := _shape(tensor)) == 2 and shape[0] > 1 and shape[1] == 1:
            plain, array = f"groupnorm.{'weight' if match[1] == 'Mul' else 'bias'}", _array(tensor)[:, 0]
        elif _PLAIN.search(plain):
            array = _array(tensor)
        else:
            continue
        found[plain] = _Weight(file, array.shape, partial(np.asarray, array))
    return found


def _graphs(top: Table, depth: int = 0) -> Iterator[Table]:
    """A graph and those inside its nodes: the decoder has one for the first step and one for those after it."""
    if depth > 8:
        raise ValueError("graphs inside graphs without end")
    yield top
    for node in top.tables(_GRAPH_NODES):
        for attribute in node.tables(_NODE_ATTRIBUTES):
            inside = attribute.table(_ATTRIBUTE_GRAPH)
            if inside is not None:
                yield from _graphs(inside, depth + 1)


def _shape(tensor: Table) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.octets(_TENSOR_DIMS, 8).view("<i8"))


def _array(tensor: Table) -> np.ndarray:
    number = tensor.number(_TENSOR_TYPE)
    if number not in _DTYPES:
        raise ValueError(f"{tensor.text(_TENSOR_NAME)} is of type {number}, not one of {sorted(_DTYPES)}")
    array: np.ndarray = tensor.octets(_TENSOR_BYTES).view(_DTYPES[number]).reshape(_shape(tensor))
    return array


def _grid(held: Mapping[str, Table], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, scale and zero point of a tensor; nothing is read yet."""
    codes, scale, zero = (
        _array(held[name.replace("_quantized", part)]) for part in ("_quantized", "_scale", "_zero_point")
    )
    if codes.ndim != 2 or codes.itemsize != 1 or scale.size != 1 or zero.size != 1:
        raise ValueError(f"{name} is {codes.dtype} {list(codes.shape)}, with {scale.size} scales")
    return codes, scale, zero


def _real(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """What the integers of a tensor stand for, float32."""
    real: np.ndarray = (codes.astype(np.float32) - zero.astype(np.float32)) * scale
    return real


def _transposed(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """The same as [out, in], which is [in, out] here."""
    return np.ascontiguousarray(_real(codes, scale, zero).T)


def _config(weights: Mapping[str, _Weight]) -> dict[str, Any]:
    """transformers' configuration, from the weights' shapes. Raises ValueError for another model's."""
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    if width not in _ROTARY:
        raise ValueError(f"a width of {width}, and those of Moonshine tiny and base are {', '.join(map(str, _ROTARY))}")
    fields: dict[str, Any] = {"hidden_size": width, "vocab_size": vocabulary}
    for side in ("encoder", "decoder"):
        layers = {name.split(".")[3] for name in weights if name.startswith(f"model.{side}.layers.")}
        fields[f"{side}_num_hidden_layers"] = len(layers)
        fields |= dict.fromkeys((f"{side}_num_attention_heads", f"{side}_num_key_value_heads"), _HEADS)
    return {
        "architectures": ["MoonshineForConditionalGeneration"],
        "model_type": "moonshine",
        "dtype": "float32",
        **fields,
        "intermediate_size": weights["model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "encoder_hidden_act": "gelu",
        "decoder_hidden_act": "silu",
        "partial_rotary_factor": _ROTARY[width],
        "rope_theta": 10000.0,
        "pad_head_dim_to_multiple_of": 8,
        "max_position_embeddings": 194,
        "attention_bias": False,
        "decoder_start_token_id": 1,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
    }


def _settings(config: Mapping[str, Any]) -> dict[str, bytes]:
    ids = {field: config[field] for field in ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")}
    return as_json(
        config=config,
        generation_config={**ids, "max_length": config["max_position_embeddings"]},
        tokenizer_config={
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "</s>",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["max_position_embeddings"],
        },
        preprocessor_config={
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "processor_class": "Wav2Vec2Processor",
            "feature_size": 1,
            "sampling_rate": 16000,
            "padding_side": "right",
            "padding_value": 0.0,
            "do_normalize": False,
            "return_attention_mask": True,
        },
    )
