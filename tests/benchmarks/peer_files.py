"""What each peer's runtime loads, made from the weights that our points start from."""

from __future__ import annotations

import ctypes
import json
import struct
from collections.abc import Mapping
from importlib.metadata import files
from pathlib import Path

import numpy as np
import torch

from src.export.ggml import FILE, tensor_name
from src.export.ggml_blocks import TYPES
from src.models.files import CONFIG, GENERATION, settings_files
from src.models.loading import load
from src.models.source import checkpoint_folder, resolve_source
from src.models.speech import SpeechModel
from src.settings import ModelSettings
from tests.benchmarks.peer_worker import LIMITS
from tests.export.test_ggml import read

_FILE_TYPE = 44  # byte of a ggml file where it says which blocks its matrices have


def transformers_folder(model: ModelSettings, folder: Path, dtype: str) -> Path:
    """A checkpoint of transformers' with weights of ``dtype``."""
    if folder.is_dir():
        return folder
    speech, source = load(model, "cpu", 0), checkpoint_folder(model)
    assert source is not None
    speech.module.to(getattr(torch, dtype)).save_pretrained(folder)
    for file in settings_files(source):
        if file.name not in (CONFIG, GENERATION):
            (folder / file.name).write_bytes(file.read_bytes())
    return _limited(speech, folder)


def ctranslate2_folder(model: ModelSettings, folder: Path, quantization: str) -> Path:
    """By CTranslate2's own converter, which rounds to int8 a row."""
    from ctranslate2.converters import TransformersConverter

    if not folder.is_dir():
        source = transformers_folder(model, folder.with_name("transformers float32"), "float32")
        beside = ["tokenizer.json", "preprocessor_config.json", LIMITS]
        TransformersConverter(str(source), copy_files=beside).convert(str(folder), quantization=quantization)
    return folder


def authors_folder(model: ModelSettings, folder: Path) -> Path:
    """The files of Moonshine's authors, as they are."""
    source = resolve_source(model.source)
    assert source is not None
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for file in source.iterdir():
            (folder / file.name).symlink_to(file)
        _limited(load(model, "cpu", 0), folder)
    return folder


def ggml_folder(model: ModelSettings, folder: Path, kind: str, exported: Path) -> Path:
    """``exported`` (of ours, in q8_0 blocks) with every matrix rounded by ggml from full precision instead.

    As whisper.cpp's own ``quantize`` does, which its package lacks: it calls the same function for all matrices but the
    positions, and leaves convolutions, positions, norms and biases alone.
    """
    if not folder.is_dir():
        speech = load(model, "cpu", 0)
        weights = {
            f"{tensor_name(path)}.weight": speech.module.get_parameter(f"{path}.weight").detach().float().numpy()
            for path in (*(linear.path for linear in speech.graph.linears), speech.graph.embedding)
        }
        folder.mkdir(parents=True)
        (folder / FILE).write_bytes(_requantized(exported / FILE, weights, kind))
    return folder


def _requantized(source: Path, weights: Mapping[str, np.ndarray], kind: str) -> bytes:
    tensors, whole, block = read(source).tensors, bytearray(source.read_bytes()), TYPES[kind]
    size = sum(12 + 4 * len(shape) + len(name) + len(data) for name, (_, shape, data) in tensors.items())
    whole[_FILE_TYPE : _FILE_TYPE + 4] = struct.pack("<i", 2000 + block.file_type)
    parts = [bytes(whole[:-size])]
    quantize = _ggml().ggml_quantize_chunk
    for name, (was, shape, data) in tensors.items():
        now = was
        if name in weights:
            W, now = np.ascontiguousarray(weights[name]), block.tensor_type
            assert W.shape == shape, name
            made = ctypes.create_string_buffer(W.size // 32 * block.block_bytes)
            written = quantize(now, W.ctypes.data, made, 0, *W.shape, None)
            assert written == len(made), name
            data = made.raw
        header = struct.pack(f"<{3 + len(shape)}i", len(shape), len(name), now, *reversed(shape))
        parts.append(header + name.encode() + data)
    return b"".join(parts)


def _ggml() -> ctypes.CDLL:
    """The library that whisper.cpp's package brings."""
    [path] = [file.locate() for file in files("pywhispercpp") or () if "pywhispercpp.libs/libggml-base" in str(file)]
    library = ctypes.CDLL(str(path))
    longs = [ctypes.c_int64] * 3
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *longs, ctypes.c_void_p]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


def _limited(speech: SpeechModel, folder: Path) -> Path:
    limits = speech.limits()
    kept = {name: limits[name] for name in ("max_tokens", "tokens_per_second")}
    (folder / LIMITS).write_text(json.dumps(kept), encoding="utf-8")
    return folder
