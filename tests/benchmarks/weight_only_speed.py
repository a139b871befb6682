"""Speed of evaluating a weight-only quantized model against full precision, in one process, in turn.

``python -m tests.benchmarks.weight_only_speed [model]`` transcribes one batch of the sandbox test set several times
with each; the ratio is of medians, above 1 where the quantized model is faster.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from src.decoding.transcribe import transcribe
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.models.loading import load
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.restore import restore
from src.settings import Settings
from tests.composed import composed
from tests.utterances import load_utterances

ROUNDS = 9
CLIPS = 32


def evaluated(settings: Settings) -> SpeechModel:
    """The model as evaluate runs it: quantized, written, read back."""
    speech = load(settings.model, settings.device, settings.seed)
    quantizer = Quantizer(speech, build_method(settings.method), settings)
    quantizer.run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights))
        fresh = load(settings.model, settings.device, settings.seed)
        restore(fresh, path, input_bits(fresh.graph, settings))
    return fresh


def main() -> None:
    """Prints seconds a batch, median of the rounds, and the ratio to full precision."""
    model = sys.argv[1] if len(sys.argv) > 1 else "sandbox_moonshine"
    points = {"fp": ("method=fp",), "rtn w8a16": ("method=rtn", "bits=w8a16"), "rtn w4a8": ("method=rtn", "bits=w4a8")}
    settings = {name: composed(f"model={model}", *overrides) for name, overrides in points.items()}
    models = {name: evaluated(each) for name, each in settings.items()}
    clips = load_utterances(settings["fp"].dataset, 0)[:CLIPS]
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for round_ in range(ROUNDS + 1):
        for name, speech in models.items():
            start = time.perf_counter()
            transcribe(speech, clips, suppress=True)
            if round_:  # the first is warm-up
                seconds[name].append(time.perf_counter() - start)
    baseline = statistics.median(seconds["fp"])
    table = Table("model", "method", f"s for {CLIPS} clips", "speed against fp")
    for name, times in seconds.items():
        median = statistics.median(times)
        table.add_row(model, name, f"{median:.3f}", f"{baseline / median:.3f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
