"""What a speaker's own unlabelled clips bring where a model is quantized for that speaker.

    python -m tests.benchmarks.personalisation LEADERBOARD OUT model=moonshine_tiny_package method=gptq bits=w3a16

LEADERBOARD is a copy of LibriSpeech in the leaderboard's layout. Of every speaker with enough clips some are calibrated
on and the others heard. Three models a speaker: calibrated on clips of others (``librispeech_sample_calibration``), on
the own, and on both. Word errors are pooled over speakers, and differences paired by utterance, with intervals
over speakers. Runs again from where it was stopped; what stands in OUT is reused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from src.project import ROOT
from src.records import Record
from src.reporting.reading import read_records
from src.scoring.bootstrap import paired
from src.scoring.comparison import Scored, scored
from src.stages.decoding import TRANSCRIPTS
from src.text.normalizers import Rules

KINDS: Final = ("others", "own", "both")  # whose clips are calibrated on
SAMPLE: Final = ROOT / "src" / "embedded" / "librispeech_sample"
Clip = dict[str, Any]


def clips(file: Path) -> list[Clip]:
    """Rows of a parquet file of the leaderboard; ids are speaker-chapter-utterance."""
    return [{**row, "speaker": row["id"].split("-")[0]} for row in pq.read_table(file).to_pylist()]


def write(folder: Path, chosen: list[Clip]) -> None:
    """A manifest and its audio."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for clip in chosen:
        (folder / f"{clip['id']}.flac").write_bytes(clip["audio"]["bytes"])
        lines.append({"audio": f"{clip['id']}.flac", **{name: clip[name] for name in ("id", "text", "speaker")}})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")


def prepare(leaderboard: Path, folder: Path, own: int, most: int) -> list[Path]:
    """A folder for each of at most ``most`` speakers with twice ``own`` clips: one of clips to hear, one a kind."""
    others = clips(next((SAMPLE / "librispeech").glob("calibration-*.parquet")))
    by_speaker = defaultdict(list)
    for file in sorted((leaderboard / "librispeech").glob("test.*.parquet")):
        for clip in clips(file):
            by_speaker[clip["speaker"]].append(clip)
    enough = [name for name, each in sorted(by_speaker.items()) if len(each) >= 2 * own]
    for name in enough[:most]:
        order = np.random.default_rng(int(name)).permutation(len(by_speaker[name]))
        mine = [by_speaker[name][i] for i in order]
        for kind, chosen in zip(("heard", *KINDS), (mine[own:], others, mine[:own], others + mine[:own]), strict=True):
            write(folder / name / kind, chosen)
    return [folder / name for name in enough[:most]]


def run(speakers: list[Path], out: Path, overrides: list[str]) -> None:
    """Three sweeps over the speakers."""
    heard = ",".join(str(speaker / "heard") for speaker in speakers)
    for kind in KINDS:
        calibrate = [f"calib.dataset.root=${{dataset.root}}/../{kind}", "calib.n=64"]
        chosen = ["dataset=local", "dataset.language=en", f"dataset.root={heard}", "dataset@calib.dataset=local"]
        command = [sys.executable, "-m", "src.main", "-m", *chosen, "calib.dataset.language=en", *calibrate]
        subprocess.run([*command, "tracking=none", f"output_dir={out}", *overrides], check=True)


def results(out: Path) -> dict[str, dict[str, Scored]]:
    """Scores of every speaker by whose clips were calibrated on."""
    found: dict[str, dict[str, Scored]] = {kind: {} for kind in KINDS}
    for record in read_records(out)[0]:
        kind, speaker = Path(_root(record, "calib")).name, Path(record.settings["dataset"]["root"]).parent.name
        rules = Rules.named(record.versions.normalizer)
        found[kind][speaker] = scored(out / "cache" / "transcripts" / str(record.transcripts) / TRANSCRIPTS, rules)
    return found


def _root(record: Record, group: str) -> str:
    return str(record.settings[group]["dataset"]["root"])


def main() -> None:
    parser = argparse.ArgumentParser(description="calibration on a speaker's own clips")
    parser.add_argument("leaderboard", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--own", type=int, default=3, help="clips of a speaker that are calibrated on (default: 3)")
    parser.add_argument("--speakers", type=int, default=40, help="at most (default: 40)")
    options = parser.parse_args()
    out = options.out.resolve()
    speakers = prepare(options.leaderboard, out / "speakers", options.own, options.speakers)
    run(speakers, out, options.overrides)
    found = results(out)
    names = sorted(found["others"])
    words = np.concatenate([found["others"][name].scores.utterance_words for name in names])
    labels = [name for name in names for _ in found["others"][name].transcripts]
    errors = {kind: np.concatenate([found[kind][name].scores.utterance_errors for name in names]) for kind in KINDS}
    print(f"{len(names)} speakers, {len(labels)} utterances, {words.sum()} words")
    for kind in KINDS:
        told = paired(errors[kind], errors["others"], words, 10_000, 0, labels)
        rate = 100 * errors[kind].sum() / words.sum()
        print(f"{kind:8} {rate:6.2f} %  {told.difference:+.2f} ({told.low:+.2f} to {told.high:+.2f})")


if __name__ == "__main__":
    main()
