"""Quantizing that was killed goes on from the last finished block and ends with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.calib.task import BlockTask
from src.methods.build import build_method
from src.quant.apply import Quantizer
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.journal import BlockJournal
from src.settings import Settings
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = {"embedded_whisper": tiny_whisper, "embedded_moonshine": tiny_moonshine}
KINDS = {  # what differs in how blocks are made: statistics, targets, learned parameters, rotations, kept columns
    "full precision before it": ("embedded_moonshine", ["method=gptq", "calib.propagate=fp"]),
    "static inputs and cache": ("embedded_whisper", ["method=gptq", "bits=w4a4kv4", "activation.range=static"]),
    "token weights": ("embedded_moonshine", ["method=rsq"]),
    "sparse outliers": ("embedded_whisper", ["method=spqr", "wbits=3"]),
    "exact columns": ("embedded_moonshine", ["method=quik", "bits=w4a4"]),
    "scales and added biases": ("embedded_whisper", ["method=omniquant", "method.epochs=1", "bits=w4a4"]),
    "targets": ("embedded_moonshine", ["method=tesseraq_omniquant", "method.steps=1", "method.start.epochs=1"]),
    "rotations": ("embedded_whisper", ["method=quarot", "bits=w4a4kv4"]),
}


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


def quantize(settings: Settings, folder: Path, *, dies_after: int | None = None) -> tuple[bytes, list[object], int]:
    """Bytes of the checkpoint, the layer table, and how many blocks were worked on."""
    speech = BUILDERS[settings.model.name]()
    method, made = build_method(settings.method), []
    folder.mkdir(exist_ok=True)
    quantizer = Quantizer(speech, method, settings, noise_calibration(speech, 2), journal=BlockJournal(folder))
    fit = type(method).fit_block

    def counted(self: object, bench: object, task: BlockTask) -> object:
        if len(made) == dies_after:
            raise Killed
        made.append(task.block.path)
        return fit(self, bench, task)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "fit_block", counted)
        quantizer.run()
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(folder / "whole", quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    return (folder / "whole").read_bytes(), quantizer.rows, len(made)


@pytest.mark.parametrize("kind", KINDS)
def test_the_resumed_model_has_the_bytes_of_an_unbroken_one(tmp_path: Path, kind: str) -> None:
    model, overrides = KINDS[kind]
    settings = composed(f"model={model}", *overrides)
    whole, rows, blocks = quantize(settings, tmp_path / "unbroken")
    with pytest.raises(Killed):
        quantize(settings, tmp_path / "resumed", dies_after=blocks - 1)
    again, rows_again, left = quantize(settings, tmp_path / "resumed")
    assert left == 1
    assert again == whole
    assert rows_again == rows


def test_a_block_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    settings = composed("model=embedded_whisper", "method=gptq")
    whole, _, blocks = quantize(settings, tmp_path / "blocks")
    file = max((tmp_path / "blocks").glob("*.safetensors.progress"))
    file.write_bytes(file.read_bytes()[:-8])
    again, _, made = quantize(settings, tmp_path / "blocks")
    assert made == 1 < blocks
    assert again == whole
