"""The exported checkpoint as transformers loads it: the same weights to the last bit, the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from src.quant.checkpoint import load_weights
from src.stages.quantize import CHECKPOINT
from tests.export.exporting import export, opened, quantized, tokens, utterances

POINTS = {
    "4 bits, asymmetric groups": ["model=sandbox_whisper", "method=rtn", "wbits=4", "group_size=32"],
    "3 bits, order of activations": [
        *("model=sandbox_moonshine", "method=gptq", "wbits=3", "group_size=48", "scope.encoder=false")
    ],
    "2 bits, one scale a channel": ["model=sandbox_moonshine", "method=rtn", "wbits=2"],
    "8 bits, symmetric": ["model=sandbox_moonshine", "method=rtn", "wbits=8", "symmetric=true"],
    "mixed widths": ["model=sandbox_whisper", "method=myqasr", "method.budget_bits=4"],
}


@pytest.mark.parametrize("name", POINTS)
def test_transformers_loads_the_folder_with_the_weights_that_were_evaluated(name: str, tmp_path: Path) -> None:
    point = opened(tmp_path, "export=compressed_tensors", *POINTS[name])
    folder = export(point)
    loaded = AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    ours = quantized(point).module.state_dict()
    theirs = loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    assert loaded.config.architectures == [type(loaded).__name__]
    stored = load_weights(point.quantized.path / CHECKPOINT)
    assert stored.weights
    told = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"]["group_0"]
    assert told["weights"]["num_bits"] == max(weight.spec.bits for weight in stored.weights.values())


def test_generate_writes_the_same_tokens(tmp_path: Path) -> None:
    point = opened(tmp_path, "export=compressed_tensors", "model=sandbox_whisper", "method=rtn", "wbits=3")
    folder = export(point)
    speech = quantized(point)
    loaded, processor = AutoModelForSpeechSeq2Seq.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    written = []
    for utterance in utterances(point):
        features = processor(utterance.waveform(), sampling_rate=16000, return_tensors="pt")
        ids = loaded.generate(**features, max_new_tokens=62)[0].tolist()
        written.append([token for token in ids if token not in (*speech.prompt, speech.eos)])
    assert written == tokens(point, speech)
