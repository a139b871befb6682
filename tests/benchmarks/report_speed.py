"""How long a report of many records takes: ``python -m tests.benchmarks.report_speed [--records 2000]``.

Records are made up: four models, eight test sets, as many methods and bit-configs as it takes, 60 linears each, with
the 16 worst transcripts stored for every point. Each row of the table is the command as a user runs it, in a process of
its own; CPU seconds are of all its processes, so that a busy machine can be seen.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import commands
from tests.reporting.recorded import record, worst_row, write, write_worst

MODELS = ("whisper_tiny", "whisper_base", "moonshine_tiny", "moonshine_base")
SETS = (
    "ami",
    "earnings22",
    "gigaspeech",
    "librispeech_clean",
    "librispeech_other",
    "spgispeech",
    "tedlium",
    "voxpopuli",
)
BITS = ("w8a8", "w4a16", "w3a16", "w2a16", "w4a8", "w4a4", "w3a8")
METHODS = tuple(f"method{number}" for number in range(9))
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def made_up(number: int, model: str, dataset: str, method: str, bits: str) -> dict[str, Any]:
    wer = random.Random(number).uniform(5, 40)
    names = {"model": model, "dataset": dataset, "method": method, "bits": bits, "wbits": int(bits[1])}
    made = record("rtn", "clean", wer) | names | {"fingerprint": f"{number:016x}", "transcripts": f"t{number}"}
    layers = [(f"model.{part}.layers.{n}.fc1", n / 60) for part in ("encoder", "decoder") for n in range(30)]
    rest = {"component": "encoder", "shape": [384, 384], "stored_bytes": 1, "notes": [], "wbits": 4, "abits": 16}
    rows = [{"linear": name, "weight_error": error, "output_error": error / 2, **rest} for name, error in layers]
    made["results"]["quantize"] = {"disk_bytes": 10**7 + number * 1000, "layers": rows}
    made["results"]["profile"] = {"memory_io_bytes": 10**8 + number * 999, "bops": 10**11, "bits_per_weight": 4.1}
    made["results"]["calibrate"] = {name: {row["linear"]: 1.25 for row in rows} for name in ("abs_max", "rows")}
    return made


def sentence(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=12))


def fill(folder: Path, records: int) -> None:
    combinations = itertools.product(BITS, METHODS, MODELS, SETS)
    for number, (bits, method, model, dataset) in enumerate(itertools.islice(combinations, records)):
        made = made_up(number, model, dataset, method, bits)
        write(folder, made)
        rows = [worst_row(f"{dataset}-{n}", sentence(n), sentence(number * 16 + n), sentence(n)) for n in range(16)]
        write_worst(folder, made, *rows)


def timed(*arguments: object) -> tuple[float, float]:
    """Wall and CPU seconds of one report."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = commands.run("src.report", *arguments)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    print((done.stderr.strip().splitlines() or [""])[-1])
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    records = parser.parse_args().records
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, records)
        size = sum(path.stat().st_size for path in (folder / "records").iterdir()) / 1e6
        jobs = {
            "table only (--format markdown)": ("--columns", "dataset", "--format", "markdown"),
            "tables and page (--plots 0)": ("--plots", "0"),
            "tables, page and plots of 4 pairs": (),
        }
        rows = {job: timed(folder, *options) for job, options in jobs.items()}
    print(f"\n| report of {records} records, {size:.0f} MB | seconds | CPU seconds |\n| --- | --- | --- |")
    for job, (wall, cpu) in rows.items():
        print(f"| {job} | {wall:.1f} | {cpu:.1f} |")


if __name__ == "__main__":
    main()
