"""Whisper in CTranslate2's format, which faster-whisper runs: model.bin, config.json and tokenizer.json.

model.bin, binary version 6: the name and revision of a specification; variables, each a name, a shape, a type and its
bytes; then names that stand for others. Query, key and value are one matrix, as are key and value of what the decoder
attends to. 8-bit variables have a scale beside them, by which they were multiplied: one a row.
https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from src.models.files import wrong
from src.models.formats.ctranslate2_settings import TOKENIZER_REMEDY, settings_files
from src.models.formats.foreign import Foreign, mapped, parsing
from src.models.tensors import Stored

_WEIGHTS: Final = "model.bin"
_PARTS: Final = "model.bin.part*"  # a large file in pieces, in order of name
_KIND: Final = "model of CTranslate2"
_DTYPES: Final = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_GELU: Final = 3
_REMEDY: Final = "Convert the model anew: ct2-transformers-converter --model openai/whisper-tiny.en --output_dir DIR"


@dataclass(frozen=True)
class _Variable:
    dtype: str
    shape: tuple[int, ...]
    begin: int


@dataclass(frozen=True)
class _Piece:
    """A tensor of transformers': some rows of a variable's weight or bias, or all."""

    variable: str
    rows: slice


def describe(folder: Path) -> Foreign | None:
    """What is in a folder with model.bin, whole or in pieces.

    Raises:
        UserError: the model is damaged, cut off, no Whisper, or of another version, or settings are missing.
    """
    parts = sorted(folder.glob(_PARTS), key=lambda part: (len(part.name), part.name))  # the second before the tenth
    files = [folder / _WEIGHTS] if (folder / _WEIGHTS).exists() else parts
    if not files:
        return None
    data = _Joined(files)
    with parsing(files[0], _KIND):
        variables = _variables(data)
    if not (folder / "tokenizer.json").exists():
        raise wrong(f"{folder} has no tokenizer.json beside {_WEIGHTS}", TOKENIZER_REMEDY)
    with parsing(files[0], _KIND):
        config = _config(data, variables)
        pieces = dict(_pieces(config, variables))
        for name in {piece.variable for piece in pieces.values()}:
            _check_scale(name, variables)
        tensors = {name: Stored(files[0], "F32", _shape(piece, variables), 0, 0) for name, piece in pieces.items()}

    def read() -> dict[str, np.ndarray]:
        whole: dict[str, np.ndarray] = {}  # scaled once, though cut in three
        for piece in pieces.values():
            if piece.variable not in whole:
                whole[piece.variable] = _values(data, variables, piece.variable)
        return {name: whole[piece.variable][piece.rows] for name, piece in pieces.items()}

    integers = [
        8 * np.dtype(variable.dtype).itemsize
        for name, variable in variables.items()
        if name.endswith("/weight") and variable.dtype in ("i1", "<i2")
    ]
    rounded = f"weights rounded to {max(integers)} bits in CTranslate2's format" if integers else None
    beside = [folder / "config.json", folder / "tokenizer.json"]
    return Foreign((*files, *beside), settings_files(folder, config), tensors, read, rounded)


class _Joined:
    """The bytes of one file, or of its pieces one behind the other."""

    def __init__(self, files: list[Path]) -> None:
        self._parts = [mapped(file) for file in files]
        self.size = sum(len(part) for part in self._parts)

    def __getitem__(self, span: slice) -> np.ndarray:
        """Bytes ``span.start`` to ``span.stop``. Raises ValueError where the file has fewer."""
        begin, end, found = span.start, span.stop, []
        if end > self.size:
            raise ValueError(f"{self.size} bytes of at least {end}")
        for part in self._parts:
            if begin < len(part) and end > 0:
                found.append(part[max(begin, 0) : end])
            begin, end = begin - len(part), end - len(part)
        return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint8), *found])


def _variables(data: _Joined) -> dict[str, _Variable]:
    at = 0

    def take(kind: str) -> int:
        nonlocal at
        at += struct.calcsize(f"<{kind}")
        (value,) = struct.unpack(f"<{kind}", data[at - struct.calcsize(f"<{kind}") : at].tobytes())
        return int(value)

    def text() -> str:
        nonlocal at
        length = take("H")
        at += length
        return data[at - length : at].tobytes().removesuffix(b"\0").decode()

    version = take("I")
    if version != 6:
        raise ValueError(f"it begins with {version}, and binary version 6 is read: {_REMEDY}")
    if (name := text()) != "WhisperSpec":
        raise ValueError(f"its specification is {name!r}, and Whisper's is WhisperSpec")
    take("I")  # revision of the specification
    variables = {}
    for _ in range(take("I")):
        name = text()
        shape = tuple(take("I") for _ in range(take("B")))
        number, size = take("B"), take("I")
        if number not in _DTYPES:
            raise ValueError(f"{name} is of type {number}, not one of {sorted(_DTYPES)}")
        if prod(shape) * np.dtype(_DTYPES[number]).itemsize != size:
            raise ValueError(f"{name} has {size} bytes for {list(shape)} of {_DTYPES[number]}")
        variables[name] = _Variable(_DTYPES[number], shape, at)
        at += size
    for _ in range(take("I")):
        alias, name = text(), text()
        variables[alias] = variables[name]
    if at != data.size:
        raise ValueError(f"{data.size} bytes, not {at}")
    return variables


def _array(data: _Joined, variable: _Variable) -> np.ndarray:
    size = prod(variable.shape) * np.dtype(variable.dtype).itemsize
    return data[variable.begin : variable.begin + size].view(variable.dtype).reshape(variable.shape)


def _values(data: _Joined, variables: Mapping[str, _Variable], name: str) -> np.ndarray:
    """What a variable stands for: integers are divided by their scale."""
    values = _array(data, variables[name])
    if values.dtype.kind == "f":
        return values
    scale = _array(data, variables[f"{name}_scale"]).astype(np.float32)
    return values.astype(np.float32) / scale.reshape(-1, *[1] * (values.ndim - 1))


def _check_scale(name: str, variables: Mapping[str, _Variable]) -> None:
    """Whether a variable is there and, if it holds integers, one scale or one a row. Raises LookupError, ValueError."""
    variable = variables[name]
    if variable.dtype not in ("<f2", "<f4") and variables[f"{name}_scale"].shape not in ((), (1,), variable.shape[:1]):
        raise ValueError(f"{name}_scale is {variables[f'{name}_scale'].shape} for {variable.shape}")


def _shape(piece: _Piece, variables: Mapping[str, _Variable]) -> tuple[int, ...]:
    rows, *others = variables[piece.variable].shape
    return len(range(rows)[piece.rows]), *others


def _config(data: _Joined, variables: Mapping[str, _Variable]) -> dict[str, Any]:
    """transformers' configuration, from the variables' shapes."""

    def number(name: str, default: int | None = None) -> int:
        if name not in variables and default is not None:
            return default
        return int(_array(data, variables[name]).reshape(-1)[0])

    def layers(side: str) -> int:
        return len(
            {
                name.split("/")[1]
                for name in variables
                if name.startswith(f"{side}/layer_") and "norm" not in name.split("/")[1]
            }
        )

    vocabulary, width = variables["decoder/embeddings/weight"].shape
    if number("decoder/activation", _GELU) != _GELU:
        raise ValueError("an activation that is not Whisper's GELU")
    english = vocabulary == 51864
    end = 50256 if english else 50257
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "dtype": "float32" if variables["decoder/layer_norm/gamma"].dtype == "<f4" else "float16",
        "d_model": width,
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": number("encoder/num_heads"),
        "decoder_attention_heads": number("decoder/num_heads"),
        "encoder_ffn_dim": variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        "decoder_ffn_dim": variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        "vocab_size": vocabulary,
        "num_mel_bins": variables["encoder/conv1/weight"].shape[1],
        "max_source_positions": variables["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": variables["decoder/position_encodings/encodings"].shape[0],
        "activation_function": "gelu",
        "scale_embedding": bool(number("decoder/scale_embeddings", 0)),
        "tie_word_embeddings": True,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": end + 1,
    }


def _pieces(config: Mapping[str, Any], variables: Mapping[str, _Variable]) -> Iterator[tuple[str, _Piece]]:
    """Every weight of transformers' Whisper. Raises LookupError where a variable is missing."""
    d, every = config["d_model"], slice(None)

    def both(to: str, source: str, rows: slice = every, *, bias: bool = True) -> Iterator[tuple[str, _Piece]]:
        for part in ("weight", "bias") if bias else ("weight",):
            yield f"model.{to}.{part}", _Piece(f"{source}/{part}", rows)

    def norm(to: str, source: str) -> Iterator[tuple[str, _Piece]]:
        for part, name in (("weight", "gamma"), ("bias", "beta")):
            yield f"model.{to}.{part}", _Piece(f"{source}/{name}", every)

    for number in (1, 2):
        yield from both(f"encoder.conv{number}", f"encoder/conv{number}")
    yield "model.decoder.embed_tokens.weight", _Piece("decoder/embeddings/weight", every)
    head = variables.get("decoder/projection/weight")
    if head is not None and head != variables["decoder/embeddings/weight"]:
        yield "proj_out.weight", _Piece("decoder/projection/weight", every)
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", _Piece(f"{side}/position_encodings/encodings", every)
        yield from norm(f"{side}.layer_norm", f"{side}/layer_norm")
        for i in range(config[f"{side}_layers"]):
            to, source = f"{side}.layers.{i}", f"{side}/layer_{i}"
            yield from norm(f"{to}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
            for j, part in enumerate("qkv"):
                rows = slice(j * d, (j + 1) * d)
                yield from both(
                    f"{to}.self_attn.{part}_proj", f"{source}/self_attention/linear_0", rows, bias=part != "k"
                )
            yield from both(f"{to}.self_attn.out_proj", f"{source}/self_attention/linear_1")
            if side == "decoder":
                yield from norm(f"{to}.encoder_attn_layer_norm", f"{source}/attention/layer_norm")
                yield from both(f"{to}.encoder_attn.q_proj", f"{source}/attention/linear_0")
                yield from both(f"{to}.encoder_attn.k_proj", f"{source}/attention/linear_1", slice(0, d), bias=False)
                yield from both(f"{to}.encoder_attn.v_proj", f"{source}/attention/linear_1", slice(d, 2 * d))
                yield from both(f"{to}.encoder_attn.out_proj", f"{source}/attention/linear_2")
            yield from norm(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm")
            for j in (0, 1):
                yield from both(f"{to}.fc{j + 1}", f"{source}/ffn/linear_{j}")
