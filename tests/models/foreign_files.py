"""Checkpoints in other formats, written byte by byte from a tiny model's weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import WhisperTokenizer

ENGLISH = {"vocab_size": 51864, "d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
TOKENS = {"decoder_start_token_id": 50257, **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 50256)}
TINY = {"hidden_size": 288, "intermediate_size": 16, "vocab_size": 300, "max_position_embeddings": 194}
ONE_LAYER = {"encoder_num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
HEADS = ("encoder_num_attention_heads", "decoder_num_attention_heads")
MOONSHINE = TINY | ONE_LAYER | dict.fromkeys(HEADS, 8)
_DTYPES = {"float32": 0, "int8": 1, "int16": 2, "float16": 4}


def write_ctranslate2(folder: Path, weights: Mapping[str, np.ndarray], *, int8: bool = False) -> None:
    """A folder of faster-whisper's with ``weights``, named as transformers does, in float16 or with 8-bit matrices."""
    variables = fused(weights)
    for side in ("encoder", "decoder"):
        variables[f"{side}/num_heads"] = np.array(2, np.int16)
    for name in [name for name, value in variables.items() if value.ndim == 2 and name.endswith("/weight")]:
        if int8:
            largest = np.abs(variables[name]).max(1).astype(np.float32)
            scale = 127 / np.where(largest == 0, 127, largest)
            variables[f"{name}_scale"] = scale
            variables[name] = np.rint(variables[name] * scale[:, None]).astype(np.int8)
    folder.mkdir()
    (folder / "model.bin").write_bytes(model_bin(variables, {"decoder/projection/weight": "decoder/embeddings/weight"}))
    told = {"suppress_ids": [1, 2], "suppress_ids_begin": [220, 50256], "alignment_heads": [[0, 1]], "lang_ids": []}
    (folder / "config.json").write_text(json.dumps(told))
    specials = {50256: "<|endoftext|>", 50257: "<|startoftranscript|>", 50258: "<|en|>", 50362: "<|notimestamps|>"}
    words = {specials.get(number, f"w{number}"): number for number in range(50363)}
    tokenizer = WhisperTokenizer(vocab=words, merges=[], additional_special_tokens=list(specials.values()))
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def fused(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Variables of CTranslate2's Whisper."""
    found: dict[str, np.ndarray] = {}
    zeros = np.zeros(weights["model.decoder.layer_norm.weight"].shape, np.float32)

    def put(source: str, *paths: str) -> None:
        for part in ("weight", "bias"):
            norm = {"weight": "gamma", "bias": "beta"}[part] if "norm" in source else part
            parts = [weights.get(f"model.{path}.{part}", zeros) for path in paths]
            found[f"{source}/{norm}"] = np.concatenate(parts).astype(np.float16)

    for number in (1, 2):
        put(f"encoder/conv{number}", f"encoder.conv{number}")
    found["decoder/embeddings/weight"] = weights["model.decoder.embed_tokens.weight"].astype(np.float16)
    for side in ("encoder", "decoder"):
        positions = weights[f"model.{side}.embed_positions.weight"]
        found[f"{side}/position_encodings/encodings"] = positions.astype(np.float16)
        put(f"{side}/layer_norm", f"{side}.layer_norm")
        for number in range(2):
            to, path = f"{side}/layer_{number}", f"{side}.layers.{number}"
            put(f"{to}/self_attention/layer_norm", f"{path}.self_attn_layer_norm")
            put(f"{to}/self_attention/linear_0", *(f"{path}.self_attn.{part}_proj" for part in "qkv"))
            put(f"{to}/self_attention/linear_1", f"{path}.self_attn.out_proj")
            if side == "decoder":
                put(f"{to}/attention/layer_norm", f"{path}.encoder_attn_layer_norm")
                put(f"{to}/attention/linear_0", f"{path}.encoder_attn.q_proj")
                put(f"{to}/attention/linear_1", *(f"{path}.encoder_attn.{part}_proj" for part in "kv"))
                put(f"{to}/attention/linear_2", f"{path}.encoder_attn.out_proj")
            put(f"{to}/ffn/layer_norm", f"{path}.final_layer_norm")
            put(f"{to}/ffn/linear_0", f"{path}.fc1")
            put(f"{to}/ffn/linear_1", f"{path}.fc2")
    return found


def model_bin(
    variables: Mapping[str, np.ndarray], aliases: Mapping[str, str], version: int = 6, kind: str = "WhisperSpec"
) -> bytes:
    """CTranslate2's file of variables."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = [struct.pack("<I", version), text(kind), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        shape = struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += [text(name), shape, struct.pack("<BI", _DTYPES[value.dtype.name], value.nbytes), value.tobytes()]
    data += [struct.pack("<I", len(aliases)), *(text(each) for pair in aliases.items() for each in pair)]
    return b"".join(data)


def write_moonshine(folder: Path, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A folder of moonshine-voice's with linears and embedding in 8 bits; the weights that it holds, as float32."""
    folder.mkdir()
    held = dict(weights)
    for side, file in (("encoder", "encoder_model.ort"), ("decoder", "decoder_model_merged.ort")):
        nodes: list[dict[int, Any]] = []
        tensors: list[dict[int, Any]] = []
        for number, (name, value) in enumerate(weights.items()):
            if not name.startswith(f"model.{side}."):
                continue
            plain = name.removeprefix("model.encoder.")
            path, _, part = plain.rpartition(".")
            if value.ndim == 2:
                scale = np.float32(np.ptp(value) / 255)
                codes = np.rint((value - value.min()) / scale).astype(np.uint8)
                zero = np.uint8(np.rint(-value.min() / scale))
                held[name] = (codes.astype(np.float32) - np.float32(zero)) * scale
                embedding = path.endswith("embed_tokens")
                stem = plain if embedding else f"onnx::MatMul_{number}"
                kinds = {"quantized": codes if embedding else codes.T, "scale": scale, "zero_point": zero}
                tensors += [_tensor(f"{stem}_{kind}", array) for kind, array in kinds.items()]
                operation, kind = ("Gather", "Gather") if embedding else ("MatMul_quant", "MatMulIntegerToFloat")
                inputs = ["", f"{stem}_quantized"][embedding:]
                nodes.append({0: f"/{path.replace('.', '/')}/{operation}", 5: kind, 8: inputs})
            elif "groupnorm" in plain:
                tensors.append(_tensor(f"onnx::{'Mul' if part == 'weight' else 'Add'}_{number}", value[:, None]))
            else:
                tensors.append(_tensor(plain + ("_add_tensor" if value.ndim == 3 else "_merged_1"), value))
        inside = {0: tensors[1:], 2: nodes[1:]}  # some of it in a branch, as the decoder's are
        branch = {0: "/If", 5: "If", 10: [{0: "else_branch", 7: inside}]}
        graph = {0: tensors[:1], 2: [*nodes[:1], branch]}
        (folder / file).write_bytes(flatbuffer({0: "1.23.2", 1: {7: graph}}, b"ORTM"))
    (folder / "tokenizer.bin").write_bytes(tokenizer_bin())
    return held


def tokenizer_bin() -> bytes:
    """300 tokens: specials, bytes, and pieces of which "▁he" and "▁hello" are made."""
    pieces = ["▁h", "el", "▁hel", "lo", "▁hello", *"▁helo", *(f"<<ST_{number}>>" for number in range(29)), "x" * 200]
    pieces = [*pieces, ""]
    tokens = [b"<unk>", b"<s>", b"</s>", *(bytes([value]) for value in range(256)), *(each.encode() for each in pieces)]
    sizes = (bytes([n]) if n < 128 else bytes([n % 128 + 128, n // 128]) for n in map(len, tokens))
    return b"".join(size + token for size, token in zip(sizes, tokens, strict=True))


def _tensor(name: str, value: np.ndarray | np.generic) -> dict[int, Any]:
    value = np.asarray(value)
    number = {"float32": 1, "uint8": 2}[value.dtype.name]
    return {0: name, 2: np.array(value.shape, np.int64), 3: number, 4: np.frombuffer(value.tobytes(), np.uint8)}


def flatbuffer(table: Mapping[int, Any], identifier: bytes) -> bytes:
    """Tables as dicts by field: numbers, strings, vectors of numbers, tables, lists of tables or strings."""
    data = bytearray(4) + identifier
    struct.pack_into("<I", data, 0, _put(data, table))
    return bytes(data)


def _put(data: bytearray, value: Any) -> int:
    """Appends a value that is no number; where it begins. What it leads to follows it."""
    if isinstance(value, Mapping):
        offsets, last = len(data), max(value)
        fields = {field: 4 + 4 * i for i, field in enumerate(value)}
        data += struct.pack("<HH", 6 + 2 * last, 4 + 4 * len(value))
        data += struct.pack(f"<{last + 1}H", *(fields.get(field, 0) for field in range(last + 1)))
        begin = len(data)
        data += struct.pack("<i", begin - offsets) + bytes(4 * len(value))
        places = {begin + fields[field]: each for field, each in value.items()}
    elif isinstance(value, list):
        begin = len(data)
        data += struct.pack("<I", len(value)) + bytes(4 * len(value))
        places = {begin + 4 + 4 * i: each for i, each in enumerate(value)}
    else:
        content = value.encode() if isinstance(value, str) else value.tobytes()
        begin = len(data)
        data += struct.pack("<I", len(value)) + content
        return begin
    for place, each in places.items():
        if isinstance(each, int):
            struct.pack_into("<i", data, place, each)
        else:
            struct.pack_into("<I", data, place, _put(data, each) - place)
    return begin
