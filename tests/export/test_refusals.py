"""What a runtime cannot hold is refused with the reason and the nearest thing that it can, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.errors import UserError
from src.export.build import build_runtime
from src.export.checks import check_stored
from src.models.loading import load_graph
from src.quant.checkpoint import StoredModel
from src.quant.structure import RotationEdit
from src.stages.export import Export
from tests import commands
from tests.composed import composed
from tests.export.exporting import opened

WHISPER = "model=sandbox_whisper"
REFUSED = {  # what is asked for, and what the sentence says: why, and what would do
    "learned transforms": (["export=compressed_tensors", "method=flatquant"], ["rotations", "method=gptq"]),
    "online rotations": (["export=compressed_tensors", "method=quarot"], ["rotations", "method=gptq"]),
    "sparse outliers": (["export=onnx", "method=spqr", "group_size=16"], ["single weights", "export.weights=float32"]),
    "outlier columns": (["export=ggml", WHISPER, "method=quik"], ["input columns", "method=gptq"]),
    "static activations": (
        ["export=onnx", "bits=w8a8", "activation.range=static", "export.weights=int8_dynamic"],
        ["static ranges", "activation.range=token"],
    ),
    "rounded activations": (["export=compressed_tensors", "bits=w8a8"], ["8 bits", "abits=16", "int8_dynamic"]),
    "a rounded cache": (["export=onnx", "kvbits=4"], ["key-value cache", "kvbits=16"]),
    "a rounded head": (["export=compressed_tensors", "head_bits=4"], ["embedding and head", "head_bits=16"]),
    "a rounded front-end": (["export=onnx", "scope=everything"], ["front-end", "frontend_bits=16"]),
    "real zero points": (["export=compressed_tensors", "method=hqq"], ["between two codes", "rtn_mse"]),
    "a column order": (
        ["export=compressed_tensors", "method=gptq", "method.static_groups=false", "group_size=32"],
        ["side by side", "method.static_groups=true"],
    ),
    "shifts": (["export=ggml", WHISPER, "method=osplus"], ["biases", "method.shift=false"]),
    "nothing quantized": (["export=compressed_tensors", "method=fp"], ["none would be", "wbits below 16"]),
    "groups that make no blocks": (["export=onnx", "group_size=24"], ["blocks", "24", "group_size=32"]),
    "groups in integer products": (
        ["export=onnx", "export.weights=int8_dynamic", "bits=w4a8", "group_size=32"],
        ["groups of 32", "group_size=-1"],
    ),
    "a family whisper.cpp does not know": (["export=ggml"], ["moonshine", "export=onnx"]),
    "a front-end of its own": (
        ["export=ggml", "model=moonshine_streaming_tiny", "model.random_weights=true"],
        ["is a moonshine_streaming model", "export=onnx"],
    ),
    "convolutions as linears": (
        ["export=compressed_tensors", "model=parakeet_ctc_0_6b", "model.random_weights=true"],
        ["pointwise convolutions are linears", "export=none"],
    ),
    "a family without graphs": (
        ["export=onnx", "model=parakeet_ctc_0_6b", "model.random_weights=true"],
        ["has no graphs of parakeet_ctc models", "export=none; no runtime holds such a model yet"],
    ),
    "a grid no block holds": (["export=ggml", WHISPER, "wbits=8"], ["8 bits with zero points", "symmetric=true"]),
    "a grid the chosen block does not hold": (
        ["export=ggml", WHISPER, "wbits=4", "export.weights=q4_0"],
        ["q4_0", "export.weights=q4_1 or q5_0 or q5_1 or q8_0"],
    ),
    "a part at 16 bits": (["export=ggml", WHISPER, "scope.encoder=false"], ["one type", "scope.encoder"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused_with_the_nearest_that_can(name: str, tmp_path: Path) -> None:
    asked, told = REFUSED[name]
    with pytest.raises(UserError) as caught:
        Export().check(opened(tmp_path, *asked))
    assert caught.value.field == "export"
    for words in told:
        assert words in str(caught.value)


def test_the_command_refuses_before_it_quantizes(tmp_path: Path) -> None:
    process = commands.run("src.main", "export=onnx", "method=quarot", f"output_dir={tmp_path / 'outputs'}")
    assert process.returncode == 1
    [sentence] = [line for line in process.stderr.splitlines() if line.startswith("Error:")]
    assert sentence.startswith("Error: export: onnx cannot hold what quarot leaves: rotations")
    assert "Traceback" not in process.stderr
    assert [path for path in (tmp_path / "outputs/cache").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "outputs/records").exists()


def test_the_command_leaves_a_folder_and_says_where(tmp_path: Path) -> None:
    asked = ["export=compressed_tensors", "method=rtn", "bits=w4a16", "group_size=32", "stages=[quantize]"]
    process = commands.run("src.main", *asked, "tracking=none", f"output_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    [folder] = (tmp_path / "cache/export").glob("*/model")
    assert f"export: {folder}" in process.stderr
    [record] = (tmp_path / "records").glob("*.json")
    assert f'"folder": "cache/export/{folder.parent.name}/model"' in record.read_text()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["export=onnx", "export.weights=q4_0"], "codes, float32, int8_dynamic"),
        (["export=none", "export.weights=codes"], "None). Leave it to a yaml of conf/export"),
    ],
)
def test_a_form_of_the_weights_that_the_runtime_does_not_know(asked: list[str], told: str) -> None:
    with pytest.raises(UserError, match=r"^export\.weights: ") as caught:
        composed(*asked)
    assert told in str(caught.value)


def test_a_runtime_that_there_is_not_is_told() -> None:
    with pytest.raises(UserError, match=r"^export\.runtime: 'tflite' is no runtime\. Choose a yaml of conf/export"):
        composed("export=onnx", "export.runtime=tflite")


def test_what_only_the_quantized_model_tells_is_refused_too() -> None:
    settings = composed("export=onnx", WHISPER)
    rotated = StoredModel({}, {}, (RotationEdit("rotate_linear", "model.encoder.layers.0.fc2", 4),))
    with pytest.raises(UserError, match="rotations"):
        check_stored(build_runtime(settings.export), load_graph(settings.model), rotated)
