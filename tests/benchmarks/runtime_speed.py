"""Decode steps and encoders of one model's ONNX exports: float32, 8 bits and 4 bits, utterance by utterance in turn.

``python -m tests.benchmarks.runtime_speed [model] --threads 2`` exports the model at its true shape with random
weights, loads all exports in one process, and lets each transcribe an utterance after the others did, so that whatever
else the machine does hits all alike. (Not step by step: between two calls onnxruntime's threads wait busily for a
while, and would take processors from the next export's step.) Ratios are of medians; those of the fastest tenth are
given too, which other load moves less, and those of the processor's own time (of all threads), which it moves least.
Then it says by operator what a step's time goes to, each node at its fastest tenth, and which share of the memory's
bandwidth the step reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from src.export.onnx_generate import Recogniser
from src.models.families import dimensions_of
from src.models.loading import load_config, load_graph
from src.profiling.cost_model import CostModel, Workload
from src.profiling.measured import step_bytes
from src.profiling.runtimes.job import TimingJob
from src.profiling.runtimes.launch import measure_bandwidth
from src.profiling.runtimes.onnx_engine import OnnxEngine
from src.runtimes.folder import file_bytes
from src.stages.export import FOLDER, Export
from src.stages.point import Point, open_point
from src.stages.quantize import Quantize
from src.stages.timed import Timed
from tests.composed import composed

RANDOM = ("model.random_weights=true", "tracking=none", "profile.runtimes=[onnx]")
FAST = "profile.onnx.accuracy_level=4"
CROSS = "profile.onnx.cross_cache=int8"
VARIANTS = {
    "float32": ("method=fp",),
    "int8 dynamic, head 8": ("method=rtn", "bits=w8a8", "head_bits=8", FAST),
    "int8 codes, head 8": ("method=rtn", "bits=w8a16", "group_size=32", "head_bits=8", FAST),
    "int4 codes, head 4": ("method=rtn", "bits=w4a16", "group_size=32", "head_bits=4", FAST),
    "int4 codes, head 4, cross int8": ("method=rtn", "bits=w4a16", "group_size=32", "head_bits=4", FAST, CROSS),
    "int4 codes, head float32": ("method=rtn", "bits=w4a16", "group_size=32", FAST),
    "int4 codes, head 4, level 1": ("method=rtn", "bits=w4a16", "group_size=32", "head_bits=4"),
}
FASTEST = 10  # percentile


def prepared(model: str, folder: Path, chosen: tuple[str, ...]) -> Point:
    """The point, quantized and exported."""
    settings = composed(f"model={model}", f"output_dir={folder}", *RANDOM, *chosen)
    exported = Timed(open_point(settings), "onnx").exported
    assert exported is not None
    Quantize().run(exported)
    Export().run(exported)
    return exported


def engine(point: Point, options: argparse.Namespace) -> OnnxEngine:
    recogniser = Recogniser(point.exported.path / FOLDER, options.threads)
    job = TimingJob("onnx", "", {}, options.seconds, 0, options.tokens, 1, 0, options.threads, "cpu")
    return OnnxEngine(recogniser, job)


def timed(engines: dict[str, OnnxEngine], options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by variant and part; the first round is a warm-up."""
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in engines}

    def note(name: str, part: str, call: Any, *, kept: bool) -> None:
        before = time.process_time()
        took = engines[name].timed(call)
        if kept:
            times[name][part].append(took)
            times[name][f"{part}, processor"].append((time.process_time() - before) * 1e3)

    for round_ in range(options.rounds + 1):
        kept = round_ > 0
        for name, each in engines.items():
            note(name, "encoder", each.encode, kept=kept)
            note(name, "first token", each.prefill, kept=kept)
            for _ in range(options.tokens):
                note(name, "token", each.step, kept=kept)
    return times


def by_operator(point: Point, options: argparse.Namespace) -> tuple[dict[str, float], int]:
    """Milliseconds of a step by operator, each node at its fastest tenth, and the number of nodes."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = onnxruntime.SessionOptions()
        profiled.intra_op_num_threads = options.threads
        profiled.enable_profiling, profiled.profile_file_prefix = True, f"{folder}/steps"
        found = engine(point, options)
        path = str(point.exported.path / FOLDER / "decoder.onnx")
        session = onnxruntime.InferenceSession(path, profiled, providers=["CPUExecutionProvider"])
        found._recogniser.decoder = session
        found.encode()
        for _ in range(options.rounds):
            found.prefill()
            for _ in range(options.tokens):
                found.step()
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"] / 1e3)
    spent: dict[str, float] = defaultdict(float)
    for (kind, _), durations in nodes.items():
        spent[kind] += float(np.percentile(durations, FASTEST))
    return dict(sorted(spent.items(), key=lambda item: -item[1])), len(nodes)


def moved(point: Point, options: argparse.Namespace, prompt: int) -> int:
    """Bytes that a decode step reads."""
    settings = point.settings
    work = Workload(options.seconds, options.tokens, prompt)
    cost = CostModel(dimensions_of(load_config(settings.model)), load_graph(settings.model), work, {})
    each = Timed(point, "onnx")
    return step_bytes(cost, "onnx", each.runtime, each.specs())


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="whisper_small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("outputs/runtime_speed"), help="where exports are kept")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--prepare", action="store_true", help="export, and time nothing")
    options = parser.parse_args()
    points = {name: prepared(options.model, options.output, VARIANTS[name]) for name in options.only}
    if options.prepare:
        return
    console, before = Console(width=190), os.getloadavg()[0]
    engines = {name: engine(point, options) for name, point in points.items()}
    times = timed(engines, options)
    memory = measure_bandwidth(options.threads)
    _show(console, points, engines, times, memory, options)
    del engines
    for name, point in points.items():
        spent, nodes = by_operator(point, options)
        parts = ", ".join(f"{kind} {ms:.2f}" for kind, ms in list(spent.items())[:9])
        console.print(f"{name}: {nodes} nodes, {sum(spent.values()):.2f} ms in operators: {parts}", highlight=False)
    console.print(f"memory: {memory['read_gbs']:.1f} GB/s read ({memory['how']})", highlight=False)
    console.print(f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after", highlight=False)


def _show(
    console: Console,
    points: dict[str, Point],
    engines: dict[str, OnnxEngine],
    times: dict[str, dict[str, list[float]]],
    memory: dict[str, Any],
    options: argparse.Namespace,
) -> None:
    base = next(iter(points))
    title = (
        f"{options.model}, random weights, {options.threads} threads, {options.rounds} rounds: median (fastest tenth)"
    )
    columns = ("MiB", "encoder ms", "faster", "1st token ms", "ms/token", "faster", "step MB", "GB/s", "% of memory")
    own = ("processor ms: encoder", "faster", "token", "faster")
    table = Table("weights", *columns, *own, title=title)
    for name, point in points.items():

        def both(part: str, name: str = name) -> list[float]:
            return [float(np.percentile(times[name][part], each)) for each in (50, FASTEST)]

        def faster(part: str, name: str = name) -> str:
            pairs = zip(both(part, base), both(part, name), strict=True)
            return "{:.2f} ({:.2f})".format(*(a / b for a, b in pairs))

        size = moved(point, options, len(engines[name]._recogniser.told["prompt"]))
        rate = size / both("token")[1] / 1e6
        cells = ["{:.1f} ({:.1f})".format(*both(part)) for part in ("encoder", "first token")]
        table.add_row(
            name,
            f"{file_bytes(point.exported.path / FOLDER) / 2**20:.0f}",
            cells[0],
            faster("encoder"),
            cells[1],
            "{:.2f} ({:.2f})".format(*both("token")),
            faster("token"),
            f"{size / 1e6:.0f}",
            f"{rate:.1f}",
            f"{100 * rate / memory['read_gbs']:.0f}",
            "{:.0f} ({:.0f})".format(*both("encoder, processor")),
            faster("encoder, processor"),
            "{:.1f} ({:.1f})".format(*both("token, processor")),
            faster("token, processor"),
        )
    console.print(table)
    _show_files(console, points)


def _show_files(console: Console, points: dict[str, Point]) -> None:
    """Bytes of what is quantized: in float32 and in each file."""
    for name, point in points.items():
        each, graph = Timed(point, "onnx"), load_graph(point.settings.model)
        cost = CostModel(dimensions_of(load_config(point.settings.model)), graph, Workload(1.0, 1, 1), {})
        specs = each.specs()
        chosen = [weight for weight in (*graph.linears, *cost.ends) if weight.path in specs]
        if chosen:
            held = sum(each.runtime.read_bytes(weight, specs[weight.path]) for weight in chosen)
            dense = sum(4 * weight.out_features * weight.in_features for weight in chosen)
            share = f"{held / 1e6:.0f} of {dense / 1e6:.0f} MB, 1/{dense / held:.1f}"
            console.print(f"{name}: the quantized weights take {share}", highlight=False)


if __name__ == "__main__":
    main()
