"""How long the quantize stage takes, method by method: ``python -m tests.benchmarks.quantize_speed --help``.

A Whisper of true shape with random weights, real recordings as calibration clips, 4-bit weights in groups of 128. Every
row is a process of its own and quantizes from an empty store but for what the calibrate stage made (clips, features,
teacher tokens, cheap statistics); rows that say "again" also find the Gram matrices that an earlier point stored.
With ``--peer-python`` llm-compressor's GPTQ does the same job in the same run (see ``peer_gptq.py``); its limits are
shares of that time. A random model never ends a transcript: its teacher tokens fill the decoder, about six times as
many as speech would give.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from src.models.loading import load
from src.project import ROOT
from tests.composed import composed

BITS, GROUP_SIZE = 4, 128
DATA = Path(os.environ.get("EDGE_ASR_ESB_MIRROR", ROOT.parent / "shared" / "data" / "esb-mirror"))
FP, QUANTIZED = "calib.propagate=fp", "calib.propagate=quantized"
PEER = "llm-compressor gptq"

Figures = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One row: what to quantize with, and its limit in seconds, or as a share of the peer's time.

    ``again`` keeps the Gram matrices that earlier jobs stored.
    """

    name: str
    overrides: tuple[str, ...]
    seconds: float | None = None
    share: float | None = None
    again: bool = False


JOBS = (
    Job("rtn", ("method=rtn",), 3),
    Job("hqq", ("method=hqq",), 3),
    Job("smoothquant", ("method=smoothquant", QUANTIZED), 6),
    Job("gptq, fp inputs", ("method=gptq", FP), share=0.6),
    Job("gptq w3, fp inputs, again", ("method=gptq", FP, "wbits=3"), 4, again=True),
    Job("smoothquant_gptq, fp inputs, again", ("method=smoothquant_gptq", FP), 4, again=True),
    Job("gptq, quantized inputs", ("method=gptq", QUANTIZED), share=1.2),
    Job("awq", ("method=awq",), 12),
    Job("spqr", ("method=spqr", QUANTIZED), 20),
    Job("quik", ("method=quik", QUANTIZED), 20),
)
SLOW_JOBS = (  # schedules as in conf/method: tesseraq takes a fifth of the published steps, the others all
    Job("omniquant", ("method=omniquant", QUANTIZED), 8 * 60),
    Job("spinquant", ("method=spinquant", QUANTIZED, "abits=8"), 10 * 60),
    Job("tesseraq", ("method=tesseraq", QUANTIZED), 15 * 60),
    Job("autoround", ("method=autoround", QUANTIZED), 12 * 60),
)
SCALING_JOBS = (JOBS[3], JOBS[6])


@dataclass(frozen=True)
class Workplace:
    """A model and its calibration clips, in a folder of their own."""

    model: str
    clips: int
    folder: Path
    data: Path
    environment: dict[str, str]

    def overrides(self) -> list[str]:
        """What all jobs have in common."""
        return [
            f"model={self.model}",
            "model.random_weights=true",
            "dataset@calib.dataset=librispeech_clean",
            f"calib.dataset.root={self.data}",
            f"calib.n={self.clips}",
            f"wbits={BITS}",
            f"group_size={GROUP_SIZE}",
            "tracking=none",
            f"output_dir={self.folder}",
        ]

    def stage(self, name: str, overrides: Sequence[str]) -> Figures:
        """Times one stage in a process of its own."""
        command = [sys.executable, "-m", "tests.benchmarks.timed_stage", name, *self.overrides(), *overrides]
        return self._run(command)

    def job(self, job: Job) -> Figures:
        """Times the quantize stage of one job."""
        if not job.again:
            shutil.rmtree(self.folder / "cache" / "statistics", ignore_errors=True)
        return self.stage("quantize", job.overrides)

    def peer(self, python: str, calibration: str) -> Figures:
        """Times llm-compressor on the same model, clips and tokens."""
        checkpoint = self.folder / "checkpoint"
        settings = composed(*self.overrides())
        load(settings.model, settings.device, settings.seed).module.save_pretrained(checkpoint)
        script = str(Path(__file__).with_name("peer_gptq.py"))
        options = ["--bits", str(BITS), "--group-size", str(GROUP_SIZE)]
        return self._run([python, script, str(checkpoint), calibration, *options])

    def _run(self, command: Sequence[str]) -> Figures:
        # the peer starts outside the project, whose packages it must not find, and leaves its log in the folder
        place = ROOT if command[0] == sys.executable else self.folder
        result = subprocess.run(command, cwd=place, env=self.environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
        figures: Figures = json.loads(result.stdout.splitlines()[-1])
        return figures


@contextmanager
def workplace(model: str, clips: int, arguments: argparse.Namespace) -> Iterator[Workplace]:
    """A workplace in a temporary folder."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(arguments.threads))
    with tempfile.TemporaryDirectory() as folder:
        yield Workplace(model, clips, Path(folder), arguments.data.resolve(), {**os.environ, **threads})


def rows(place: Workplace, jobs: Sequence[Job], peer_python: str | None) -> Iterator[list[str]]:
    """One table row a job; the peer's first, where there is one."""
    calibrated = place.stage("calibrate", ())
    reference = None
    if peer_python is not None:
        reference = place.peer(peer_python, calibrated["folder"])
        yield [PEER, *_measured(reference), "", "1.00"]
    for job in jobs:
        figures = place.job(job)
        limit = f"{job.share:g} x peer" if job.seconds is None else f"{job.seconds:g} s"
        allowed = job.seconds
        if allowed is None and reference is not None and job.share is not None:
            allowed = job.share * reference["seconds"]
        of_limit = "" if allowed is None else f"{figures['seconds'] / allowed:.2f}"
        of_peer = "" if reference is None else f"{figures['seconds'] / reference['seconds']:.2f}"
        yield [job.name, *_measured(figures), f"{limit}: {of_limit}" if of_limit else limit, of_peer]


def _measured(figures: Figures) -> list[str]:
    return [f"{figures['seconds']:.1f}", f"{figures['processor']:.1f}", f"{figures['peak_mib']:.0f}"]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter of an environment with llmcompressor 0.14")
    parser.add_argument("--data", type=Path, default=DATA, help="folder in the layout of the leaderboard's test sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--slow", action="store_true", help="also the methods that learn for minutes")
    parser.add_argument("--scaling", action="store_true", help="also 64 clips, and whisper_small: gptq alone")
    parser.add_argument("--only", default="", help="only rows whose name contains this, e.g. gptq")
    return parser.parse_args()


def main() -> None:
    """Prints a row per job as soon as it is done."""
    arguments = parse()
    if not arguments.data.is_dir():
        raise SystemExit(f"no recordings in {arguments.data}: set --data")
    console = Console(width=120)
    if arguments.peer_python is None:
        console.print("no --peer-python: llm-compressor is not timed, and limits that are shares of it are not checked")
    jobs = [each for each in JOBS + (SLOW_JOBS if arguments.slow else ()) if arguments.only in each.name]
    plans: list[tuple[str, int, Sequence[Job]]] = [("whisper_tiny", 16, jobs)]
    if arguments.scaling:
        plans += [("whisper_tiny", 64, SCALING_JOBS), ("whisper_small", 16, SCALING_JOBS)]
    for model, clips, chosen in plans:
        table = Table("job", "s", "processor s", "peak MiB", "limit: share of it", "of peer")
        table.title = f"quantize, {model}, {clips} clips, {arguments.threads} threads"
        with workplace(model, clips, arguments) as place:
            for row in rows(place, chosen, arguments.peer_python):
                table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
