"""The same GPTQ job with llm-compressor, for an interpreter that has it: one process, one JSON line.

Started by ``quantize_speed.py``; imports nothing of this project, which need not be installed there. The one-pass
pipeline, as the default one cannot trace Whisper; the defaults of its GPTQ (static activation order, damping 0.01,
blocks of 128) are those of ``conf/method/gptq.yaml``.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from llmcompressor import oneshot  # type: ignore[import-not-found]  # not a dependency
from llmcompressor.modifiers.gptq import GPTQModifier  # type: ignore[import-not-found]
from safetensors.numpy import load_file
from torch.utils.data import DataLoader
from transformers import AutoModelForSpeechSeq2Seq, WhisperFeatureExtractor


def samples(calibration: Path, extractor: WhisperFeatureExtractor) -> list[dict[str, torch.Tensor]]:
    """One dictionary of model inputs a clip, from what the calibrate stage stored."""
    waveforms = load_file(calibration / "waveforms.safetensors")
    clips = json.loads((calibration / "clips.json").read_text(encoding="utf-8"))
    return [
        {
            "input_features": extractor(waveforms[name], sampling_rate=16_000, return_tensors="pt").input_features[0],
            "decoder_input_ids": torch.tensor(clip["tokens"]),
        }
        for name, clip in zip(sorted(waveforms), clips, strict=True)
    ]


def modifier(bits: int, group_size: int) -> Any:
    """Weight-only GPTQ of every linear but the output head, on asymmetric grids."""
    weights = {"num_bits": bits, "type": "int", "symmetric": False, "strategy": "group", "group_size": group_size}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return GPTQModifier(config_groups=groups, ignore=["proj_out"])


def main() -> None:
    """Prints seconds, processor seconds and peak memory in MiB of ``oneshot`` alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("--bits", type=int, required=True)
    parser.add_argument("--group-size", type=int, required=True)
    arguments = parser.parse_args()
    model = AutoModelForSpeechSeq2Seq.from_pretrained(arguments.model, dtype=torch.float32)
    clips: Any = samples(arguments.calibration, WhisperFeatureExtractor.from_pretrained(arguments.model))
    recipe = modifier(arguments.bits, arguments.group_size)
    start, processor = time.perf_counter(), time.process_time()
    oneshot(
        model=model,
        dataset=DataLoader(clips, batch_size=1),
        processor=WhisperFeatureExtractor(),  # asked for, and not used
        recipe=recipe,
        num_calibration_samples=len(clips),
        pipeline="basic",
    )
    figures = {"seconds": time.perf_counter() - start, "processor": time.process_time() - processor}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "peak_mib": peak}))


if __name__ == "__main__":
    main()
