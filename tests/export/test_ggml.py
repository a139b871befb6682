"""The file for whisper.cpp: our codes in GGML's blocks, read back by hand, and the transcripts whisper.cpp writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _pywhispercpp as whisper_cpp
import numpy as np
import pytest
import torch
from pywhispercpp.model import Model

from src.export.ggml import FILE
from src.export.ggml_blocks import TYPES, encode
from src.lowbit.granularity import WeightSpec
from src.quant.checkpoint import load_weights
from src.quant.grid import round_to_nearest
from src.stages.quantize import CHECKPOINT
from tests.export.exporting import agreement, export, opened, quantized, tokens, utterances

SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)}  # weights, bytes

WIDEST = {"q4_0": (4, 3), "q4_1": (4, 4), "q5_0": (5, 4), "q5_1": (5, 5), "q8_0": (8, 7)}  # symmetric, asymmetric


@dataclass
class File:
    """A file of whisper.cpp, taken apart."""

    sizes: tuple[int, ...]
    filters: np.ndarray
    vocabulary: list[bytes]
    tensors: dict[str, tuple[int, tuple[int, ...], bytes]]


def read(path: Path) -> File:
    with path.open("rb") as file:

        def integers(count: int) -> tuple[int, ...]:
            return struct.unpack(f"<{count}i", file.read(4 * count))

        sizes = integers(12)
        shape = integers(2)
        filters = np.frombuffer(file.read(4 * shape[0] * shape[1]), "<f4").reshape(shape)
        vocabulary = [file.read(integers(1)[0]) for _ in range(integers(1)[0])]
        tensors: dict[str, Any] = {}
        while header := file.read(12):
            axes, length, kind = struct.unpack("<3i", header)
            dimensions = integers(axes)[::-1]
            name = file.read(length).decode()
            weights, size = SIZES[kind]
            tensors[name] = kind, dimensions, file.read(int(np.prod(dimensions)) // weights * size)
    return File(sizes, filters, vocabulary, tensors)


def dequantized(kind: int, shape: tuple[int, ...], data: bytes) -> np.ndarray:
    """``d (q - offset) + m`` of every block, from its bytes."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, SIZES[kind][1])
    heads = 2 if kind in {3, 7} else 1
    floats = blocks[:, : 2 * heads].copy().view("<f2").astype(np.float32)
    rest = blocks[:, 2 * heads :]
    if kind == 8:
        q = rest.view(np.int8).astype(np.float32)
    else:
        low = rest[:, -16:]
        q = np.concatenate([low & 15, low >> 4], axis=1).astype(np.float32)
        if kind in {6, 7}:
            q += 16 * np.unpackbits(rest[:, :4], axis=1, bitorder="little")
        q -= {2: 8, 6: 16}.get(kind, 0)
    return (floats[:, :1] * q + (floats[:, 1:] if heads == 2 else 0)).reshape(shape)


def greedy_model(path: Path, **more: bool) -> Model:
    """whisper.cpp with a file of ours: greedy, one window, no fallbacks; ``more`` of its settings."""
    return Model(
        str(path),
        context_params={"use_gpu": False, "flash_attn": False},
        redirect_whispercpp_logs_to=None,
        n_threads=1,
        no_timestamps=True,
        single_segment=True,
        no_context=True,
        temperature_inc=0.0,
        print_progress=False,
        **more,
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", TYPES)
def test_a_block_that_holds_a_grid_holds_its_weights(name: str, symmetric: bool, bits: int) -> None:
    kind, spec = TYPES[name], WeightSpec(bits, 64, symmetric)
    weight = round_to_nearest(torch.randn(3, 128, generator=torch.Generator().manual_seed(bits)) * 0.1 + 0.03, spec)
    signed = (weight.codes.int() - weight.zero.int().repeat_interleave(64, dim=1)).flatten()
    assert kind.holds(spec) == (bits <= WIDEST[name][0 if symmetric else 1])
    if not kind.holds(spec):
        return
    data, moved = encode(weight, kind)
    found = dequantized(kind.tensor_type, weight.shape, data)
    if not kind.offset:
        assert signed.min() >= kind.lowest
        assert signed.max() <= -kind.lowest - 1
        assert moved == 0
        assert (found == weight.dequantize().numpy()).all()
    else:
        step = weight.scale.float().repeat_interleave(64, dim=1).numpy()
        assert moved <= spec.max_code / 2048
        assert np.abs(found - weight.dequantize().numpy()).max() <= (moved + 1e-5) * step.max()


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        (["wbits=4"], "q5_0"),
        (["wbits=3", "group_size=-1"], "q4_0"),
        (["wbits=4", "method=hqq", "export.weights=q4_1"], "q4_1"),
    ],
)
def test_the_file_holds_the_weights_that_were_evaluated(chosen: list[str], kind: str, tmp_path: Path) -> None:
    point = opened(tmp_path, "export=ggml", "model=sandbox_whisper", "method=rtn", "group_size=32", *chosen)
    file = read(export(point) / FILE)
    stored = load_weights(point.quantized.path / CHECKPOINT)
    assert file.sizes == (0x67676D6C, 51864, 300, 192, 6, 4, 64, 192, 6, 3, 80, 2000 + TYPES[kind].file_type)
    assert len(file.tensors) == len(stored.weights) + len(stored.leftovers)
    pairs = {
        "model.encoder.layers.2.self_attn.k_proj": "encoder.blocks.2.attn.key",
        "model.decoder.layers.1.encoder_attn.out_proj": "decoder.blocks.1.cross_attn.out",
        "model.decoder.layers.0.fc2": "decoder.blocks.0.mlp.2",
    }
    for ours, theirs in pairs.items():
        number, shape, data = file.tensors[f"{theirs}.weight"]
        weight = stored.weights[ours]
        assert (number, shape) == (TYPES[kind].tensor_type, weight.shape)
        tolerance = 0 if not TYPES[kind].offset else 0.01 * float(weight.scale.max())
        np.testing.assert_allclose(dequantized(number, shape, data), weight.dequantize().numpy(), 0, tolerance)
    _, shape, data = file.tensors["decoder.blocks.1.cross_attn_ln.bias"]
    norm = stored.leftovers["model.decoder.layers.1.encoder_attn_layer_norm.bias"]
    assert (np.frombuffer(data, "<f4") == norm.float().numpy()).all()
    assert b"".join(file.vocabulary[token] for token in tokens(point, quantized(point))[0]).decode().strip()


def test_whisper_cpp_writes_the_same_tokens(tmp_path: Path) -> None:
    """Up to clips that rounded activations and a rounded embedding turn: one in twelve is granted."""
    chosen = ("model=sandbox_whisper", "method=rtn", "wbits=8", "symmetric=true", "group_size=32")
    point = opened(tmp_path, "export=ggml", *chosen)
    folder, speech = export(point), quantized(point)
    model = greedy_model(folder / FILE)
    written, texts = [], []
    for utterance in utterances(point):
        [segment] = model.transcribe(utterance.waveform().astype(np.float32))
        count = whisper_cpp.whisper_full_n_tokens(model._ctx, 0)
        ids = [whisper_cpp.whisper_full_get_token_id(model._ctx, 0, index) for index in range(count)]
        written.append([token for token in ids if token < speech.eos])
        texts.append(segment.text.strip())
    ours = tokens(point, speech)
    assert agreement(ours, written) >= 0.9
    assert sum(a == speech.text(b).strip() for a, b in zip(texts, ours, strict=True)) >= len(ours) - 1
