"""The exported graphs in onnxruntime: the quantized model's codes, and its tokens."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from src.decoding.decode import greedy
from src.export.base import Exportable
from src.export.onnx_codes import packed
from src.export.onnx_generate import Recogniser
from src.export.onnx_graph import Graph
from src.export.onnx_linear import OnnxForm, linear
from src.quant.checkpoint import load_weights
from src.stages.quantize import CHECKPOINT
from tests.export.exporting import agreement, export, opened, quantized, tokens, utterances

POINTS = {
    "codes of 3 bits": ["model=sandbox_whisper", "method=rtn", "wbits=3", "group_size=96"],
    "codes of 8 bits": ["model=sandbox_moonshine", "method=rtn", "wbits=8", "symmetric=true"],
    "real zero points": ["model=sandbox_moonshine", "method=hqq", "wbits=4", "group_size=16", "scope.encoder=false"],
    "groups in the order of activations": [
        *("model=sandbox_whisper", "method=gptq", "method.static_groups=false", "group_size=32"),
        "scope.encoder=false",
    ],
    "outliers as float32": [
        *("model=sandbox_moonshine", "method=quik", "wbits=4", "export.weights=float32", "scope.encoder=false")
    ],
    "full precision": ["model=sandbox_whisper", "method=fp"],
    "float32 products": ["model=sandbox_moonshine", "method=rtn", "wbits=4", "export.accuracy_level=1"],
    "a head of 4 bits": ["model=sandbox_whisper", "method=rtn", "wbits=4", "head_bits=4", "group_size=32"],
    "a symmetric head": ["model=sandbox_moonshine", "method=rtn", "wbits=8", "head_bits=8", "symmetric=true"],
}


@pytest.mark.parametrize("name", POINTS)
def test_onnxruntime_writes_the_same_tokens(name: str, tmp_path: Path) -> None:
    point = opened(tmp_path, "export=onnx", *POINTS[name])
    folder = export(point)
    clips = [utterance.waveform() for utterance in utterances(point)]
    together = Recogniser(folder, threads=1).generate(clips)
    assert agreement(tokens(point, quantized(point)), together) >= 0.99


def test_clips_that_half_of_the_window_holds_are_heard_in_half_of_it(tmp_path: Path) -> None:
    """As evaluate hears them; another clip among them has all of the window."""
    point = opened(tmp_path, "export=onnx", "model=sandbox_whisper", "method=rtn", "wbits=8", "evaluate.window=clip")
    recogniser = Recogniser(export(point), threads=1)
    short = utterances(point)[0].waveform()[: 2 * 16_000]
    full = recogniser.told["window"]
    assert len(short) + 16_000 <= full // 2
    speech = quantized(point)
    [features] = speech.features([short])
    half = features[:, : features.shape[1] // 2]
    [expected] = greedy(speech, [half], [len(short)], suppress=True)
    [mel] = recogniser.features([short]).values()
    assert mel.shape[-1] == half.shape[-1]
    assert agreement([expected], recogniser.generate([short])) >= 0.99
    [mel] = recogniser.features([short, np.zeros(full // 2, np.float32)]).values()
    assert mel.shape[-1] == features.shape[-1]


def test_inputs_rounded_in_blocks_change_few_tokens(tmp_path: Path) -> None:
    chosen = ("model=sandbox_whisper", "method=rtn", "wbits=4", "head_bits=8", "group_size=32")
    point = opened(tmp_path, "export=onnx", *chosen, "export.accuracy_level=4")
    folder = export(point)
    clips = [utterance.waveform() for utterance in utterances(point)]
    assert agreement(tokens(point, quantized(point)), Recogniser(folder, threads=1).generate(clips)) >= 0.9


@pytest.mark.parametrize(("wbits", "abits"), [(4, 6), (7, 8), (8, 7), (8, 8)])  # the last has unsigned weights
def test_integer_products_are_those_that_were_simulated(wbits: int, abits: int, tmp_path: Path) -> None:
    """To float rounding in one linear. Over layers an input that falls on another code moves many more, hence clips
    whose best two tokens are nearly tied may go another way: one in twelve is granted."""
    chosen = ("model=sandbox_moonshine", "method=rtn", "export.weights=int8_dynamic")
    point = opened(tmp_path, "export=onnx", *chosen, f"wbits={wbits}", f"abits={abits}")
    folder, speech = export(point), quantized(point)
    path = "model.decoder.layers.1.mlp.fc1"
    stored = load_weights(point.quantized.path / CHECKPOINT)
    graph = Graph(Exportable(point.settings.model, stored, abits, 0))
    x = graph.input("x", onnx.TensorProto.FLOAT, ["batch", "new", 192])
    graph.output(
        "y", linear(graph, x, path, OnnxForm("int8_dynamic", 1)), onnx.TensorProto.FLOAT, ["batch", "new", 1536]
    )
    session = onnxruntime.InferenceSession(graph.finish("linear").SerializeToString())
    tokens_of_all_sizes = torch.randn(3, 7, 192) * torch.logspace(-3, 3, 7).view(-1, 1)
    expected = speech.module.get_submodule(path)(tokens_of_all_sizes).numpy()
    [found] = session.run(None, {"x": tokens_of_all_sizes.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    clips = [utterance.waveform() for utterance in utterances(point)]
    together = Recogniser(folder, threads=1).generate(clips)
    equal = [ours == theirs for ours, theirs in zip(tokens(point, speech), together, strict=True)]
    assert sum(equal) >= len(equal) - 1


def test_clips_of_a_batch_do_not_see_each_other(tmp_path: Path) -> None:
    point = opened(tmp_path, "export=onnx", "model=sandbox_moonshine", "method=rtn", "wbits=4")
    recogniser = Recogniser(export(point), threads=1)
    clips = [utterance.waveform() for utterance in utterances(point)][:4]
    clips[0] = clips[0][:500]  # shorter than one frame
    together, alone = recogniser.encode(clips), [recogniser.encode([clip]) for clip in clips]
    assert together["frame_mask"].sum(axis=1).tolist() == [each["frame_mask"].shape[1] for each in alone]
    for name in ("cross_keys.0", "cross_values.2"):
        for row, each in zip(together[name], alone, strict=True):
            own = row[..., : each[name].shape[-1]] if name.startswith("cross_keys") else row[:, : each[name].shape[2]]
            np.testing.assert_allclose(own, each[name][0], atol=1e-4)
    assert recogniser.generate(clips) == [recogniser.generate([clip])[0] for clip in clips]


def held(folder: Path) -> dict[str, tuple[Any, list[np.ndarray]]]:
    """Attributes and stored operands of every MatMulNBits, by the linear's path."""
    found = {}
    for name in ("encoder.onnx", "decoder.onnx"):
        graph = onnx.load(folder / name).graph
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "MatMulNBits":
                told = {attribute.name: attribute.i for attribute in node.attribute}
                paths = node.input[1].removesuffix(".codes").split("+")  # linears of one input are one product
                operands = [np.split(stored[each], len(paths)) for each in node.input[1:4] if each]
                found |= {path: (told, list(parts)) for path, *parts in zip(paths, *operands, strict=True)}
    return found


@pytest.mark.parametrize("grid", [["wbits=4", "symmetric=true"], ["wbits=3", "group_size=48"]])
def test_the_file_holds_the_codes_that_were_evaluated(grid: list[str], tmp_path: Path) -> None:
    point = opened(tmp_path, "export=onnx", "model=sandbox_whisper", "method=rtn", *grid)
    operands = held(export(point))
    weights = load_weights(point.quantized.path / CHECKPOINT).weights
    assert operands.keys() == weights.keys()
    for path, weight in weights.items():
        told, (codes, scale, *zeros) = operands[path]
        rows, columns = weight.shape
        assert told["block_size"] == (16 if "group_size=48" in grid else 32)
        unpacked = codes if told["bits"] == 8 else np.stack([codes & 15, codes >> 4], axis=-1)
        blocks = columns // told["block_size"]
        assert (unpacked.reshape(rows, columns) == weight.codes.numpy()).all()
        zero = np.full((rows, blocks), 1 << (told["bits"] - 1))
        if zeros:
            flat = zeros[0].reshape(rows, -1)
            halves = flat if told["bits"] == 8 else np.stack([flat & 15, flat >> 4], axis=-1)
            zero = halves.reshape(rows, -1)[:, :blocks]
        value = (unpacked.reshape(rows, blocks, -1).astype(np.float32) - zero[..., None]) * scale.reshape(rows, -1, 1)
        assert (value.reshape(rows, columns) == weight.dequantize().numpy()).all()


def test_two_codes_share_a_byte() -> None:
    assert packed(np.array([[1, 2, 15]], np.uint8), 4).tolist() == [[0x21, 0x0F]]
    assert packed(np.array([[1, 255]], np.uint8), 8).tolist() == [[1, 255]]


def test_the_folder_transcribes_a_file_without_the_project_or_torch(tmp_path: Path) -> None:
    point = opened(tmp_path / "outputs", "export=onnx", "model=sandbox_whisper", "method=rtn", "wbits=8")
    folder, utterance = export(point), utterances(point)[0]
    with wave.open(str(tmp_path / "speech.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((utterance.waveform() * 32767).round().astype("<i2").tobytes())
    script = "import json, sys, generate as g; r = g.Recogniser('.', 1)\n"
    script += (
        "ids = r.generate([g.read_wave(sys.argv[1])])[0]; print(json.dumps([ids, r.text(ids), 'torch' in sys.modules]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "speech.wav")]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    speech = quantized(point)
    [ids, text, torch_is_there] = json.loads(process.stdout)
    assert ids == tokens(point, speech)[0]
    assert text == speech.text(ids).strip()
    assert not torch_is_there
