"""Time and memory of evaluate against the number of utterances: ``python -m tests.benchmarks.evaluate_scale``.

Each count runs in a process of its own, on the sandbox test set, repeated as often as it takes. Time has to grow with
the count, peak memory not.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from src.decoding.transcribe import journal_seconds, transcribe_corpus
from src.models.loading import load
from src.project import ROOT
from tests.composed import composed
from tests.utterances import load_utterances

COUNTS = (300, 1200)


def measure(model: str, count: int) -> dict[str, float]:
    """Seconds of processing, seconds of audio, and peak memory in MiB before and after."""
    settings = composed(f"model={model}")
    clips = load_utterances(settings.dataset, 0)
    repeated = [replace(clips[i % len(clips)], id=f"{i:05d}") for i in range(count)]
    speech = load(settings.model, settings.device, settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        transcribe_corpus(
            speech, repeated, journal, batch_size=settings.evaluate.batch_size, suppress=True, kv_bits=settings.kvbits
        )
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = journal_seconds(journal)["total"]
    audio = sum(clip.seconds for clip in repeated)
    processor = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    return {
        "seconds": seconds,
        "processor": processor,
        "audio": audio,
        "before": before / 1024,
        "after": after / 1024,
    }


def main() -> None:
    """Prints one row per count."""
    model = sys.argv[1] if len(sys.argv) > 1 else "sandbox_moonshine"
    if len(sys.argv) > 2:
        print(json.dumps(measure(model, int(sys.argv[2]))))
        return
    table = Table(
        "utterances", "seconds", "ms an utterance", "processor s", "RTFx", "peak MiB, model loaded", "peak MiB, at end"
    )
    for count in COUNTS:
        command = [sys.executable, "-m", "tests.benchmarks.evaluate_scale", model, str(count)]
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(output.splitlines()[-1])
        table.add_row(
            str(count),
            f"{found['seconds']:.1f}",
            f"{1000 * found['seconds'] / count:.1f}",
            f"{found['processor']:.1f}",
            f"{found['audio'] / found['seconds']:.1f}",
            f"{found['before']:.0f}",
            f"{found['after']:.0f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
