"""Is one record's WER different from another's? ``python -m src.compare BASE OTHER [OTHER ...]`` says so in a table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import console
from src.errors import UserError

if TYPE_CHECKING:
    from src.evaluation.bootstrap import PairedDifference
    from src.evaluation.comparison import Scored

DESCRIPTION = """\
Compares the stored transcripts of points that were evaluated on the same utterances. Nothing is decoded.

Each OTHER is compared with BASE by a paired bootstrap: both are scored on the same resamples of the test set, of
speakers where at least five are known, else of utterances. A difference is significant where its 95 % interval leaves
out zero. "prob. of improvement" is the share of resamples in which OTHER makes fewer errors than BASE.

A record is named by its file or by the first characters of its fingerprint, the name of its file in DIR/records.
"""
EXAMPLES = """\
examples:
  python -m src.compare 1a2b 3c4d                    two records of ./outputs
  python -m src.compare 1a2b 3c4d 5e6f               two against the first
  python -m src.compare a/records/1a2b0c9d8e7f6a5b.json b/records/3c4d1e2f3a4b5c6d.json
"""
RUN_AGAIN = "Run its point again with stages=[evaluate]; what is stored is reused"


@dataclass(frozen=True)
class Evaluated:
    """A record, what its transcripts are of, and the folder they are in."""

    name: str
    record: dict[str, Any]
    dataset: dict[str, Any]
    folder: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the comparison; exits with 1 after a mistake that the user can mend."""
    options = _parser().parse_args(arguments)
    try:
        evaluated = [find(name, options.output_dir) for name in (options.base, *options.others)]
        for other in evaluated[1:]:
            require_comparable(evaluated[0], other)
        console.show_comparison(*compared(evaluated, options.samples, options.seed))
    except UserError as error:
        console.error(" ".join(str(error).split()))
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m src.compare", None, DESCRIPTION, EXAMPLES, formatter_class=layout)
    parser.add_argument("base", metavar="BASE", help="the record that the others are compared with")
    parser.add_argument("others", metavar="OTHER", nargs="+", help="records to compare with it")
    folder = "the output_dir of records that are named by their fingerprint (default: outputs)"
    parser.add_argument("--output-dir", type=Path, metavar="DIR", default=Path("outputs"), help=folder)
    samples = "bootstrap resamples, at least 100 (default: as many as for BASE's own intervals)"
    parser.add_argument("--samples", type=_at_least(100), metavar="N", help=samples)
    parser.add_argument("--seed", type=_at_least(0), metavar="N", help="of the resamples (default: BASE's seed)")
    return parser


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    number.__name__ = "number"  # what argparse calls a value that is none
    return number


def find(name: str, output_dir: Path) -> Evaluated:
    """The record of a file or of a fingerprint's first characters, with its stored transcripts.

    Raises:
        UserError: there is no such record or more than one, it was not evaluated, or its transcripts are not stored.
    """
    path = _path(name, output_dir)
    root = path.resolve().parent.parent if path.parent.name == "records" else output_dir
    record = _read(path)
    if "members" in record:
        names = ", ".join(member["fingerprint"] for member in record["members"])
        raise UserError("record", f"{path} is a mean over test sets", f"Compare its members: {names}")
    if "evaluate" not in record.get("results", {}) or "transcripts" not in record:
        raise UserError("record", f"{path} tells of no scored transcripts", RUN_AGAIN)
    from src.store import Entry

    folder = root / "cache" / "transcripts" / record["transcripts"]
    try:
        key = json.loads((folder / "key.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        key = {}
    if not key or not Entry(root / "cache", "transcripts", key).is_complete():
        problem = f"the transcripts of {path} are absent or damaged ({folder})"
        raise UserError("record", problem, f"{RUN_AGAIN}, or name with --output-dir the folder they are in")
    return Evaluated(record["fingerprint"], record, key["dataset"], folder)


def _path(name: str, output_dir: Path) -> Path:
    given = Path(name)
    if given.is_file():
        return given
    folder = output_dir / "records"
    found = sorted(folder.glob("*.json"))
    chosen = [path for path in found if path.stem.startswith(name)]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise UserError("record", f"{name!r} is the beginning of {len(chosen)} records in {folder}", "Write more of it")
    problem = f"{name!r} is neither a file nor one of the {len(found)} records in {folder}"
    raise UserError("record", problem, "Name a record's file, or set --output-dir to where the point was run")


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError("record", f"{path} cannot be read ({error})", "Name a file of the folder records") from None
    if not isinstance(record, dict):
        raise UserError("record", f"{path} is not a record", "Name a file of the folder records")
    return record


def require_comparable(base: Evaluated, other: Evaluated) -> None:
    """Checks that both were scored on the same utterances in the same way, and that this installation does so too.

    Raises:
        UserError: test set, subset, its seed, normalizer or scorer differ.
    """
    from src.evaluation.normalizers import NORMALIZER
    from src.evaluation.wer import SCORER

    for name, installed in (("normalizer", NORMALIZER), ("scorer", SCORER)):
        versions = [each.record["versions"][name] for each in (base, other)]
        if set(versions) != {installed}:
            told = f"{base.name} was scored with {versions[0]}, {other.name} with {versions[1]}; here is {installed}"
            raise UserError(name, told, "Score both again with what is installed: stages=[evaluate]")
    if base.dataset != other.dataset:
        field, (ours, theirs) = _difference(base, other)
        raise UserError(field, f"{base.name} is of {ours}, {other.name} of {theirs}", f"Use the same {field} for both")


def _difference(base: Evaluated, other: Evaluated) -> tuple[str, tuple[str, str]]:
    """The first setting in which two test sets differ, and both values in words."""
    a, b = base.record, other.record
    if a["dataset"] != b["dataset"]:
        return "dataset", (a["dataset"], b["dataset"])
    if a["subset"] != b["subset"]:
        return "dataset.limit", (f"{a['subset'] or 'all'} utterances", f"{b['subset'] or 'all'} utterances")
    if a["subset"] is not None and a["seed"] != b["seed"]:
        return "seed", (f"a subset drawn with seed {a['seed']}", f"one drawn with seed {b['seed']}")
    keys = [key for key in {**base.dataset, **other.dataset} if base.dataset.get(key) != other.dataset.get(key)]
    return "dataset", (a["dataset"], f"another {', '.join(keys)} of it")


def compared(
    evaluated: Sequence[Evaluated], samples: int | None, seed: int | None
) -> tuple[list[str], list[tuple[str, list[str]]], str]:
    """Names of the records, the rows of the table (label, one cell a record), and what stands below it.

    Raises:
        UserError: the transcripts are not of the same utterances.
    """
    from src.evaluation.comparison import scored

    settings = evaluated[0].record["settings"]
    samples = settings["evaluate"]["bootstrap_samples"] if samples is None else samples
    seed = settings["seed"] if seed is None else seed
    systems = [scored(each.folder / "transcripts.jsonl") for each in evaluated]
    base = systems[0]
    for each, system in zip(evaluated, systems, strict=True):
        if _references(system) != _references(base):
            problem = f"{evaluated[0].name} and {each.name} do not hold the same utterances"
            raise UserError("record", problem, RUN_AGAIN)
    columns = [_column(each, system, base, samples, seed) for each, system in zip(evaluated, systems, strict=True)]
    rows = [(label, [column[label] for column in columns]) for label in columns[0]]
    speakers = f"{base.blocks.speakers} speakers" if base.blocks.unit == "speaker" else "utterances"
    about = (
        f"{evaluated[0].record['dataset']}: {len(base.transcripts)} utterances, {base.scores.words} words. Differences "
        f"are to the first record; 95 % intervals are of {samples} resamples of {speakers}, seed {seed}."
    )
    return [each.name for each in evaluated], rows, about


def _references(system: Scored) -> list[tuple[str, str]]:
    return [(item.id, item.reference) for item in system.transcripts]


def _column(each: Evaluated, own: Scored, base: Scored, samples: int, seed: int) -> dict[str, str]:
    from src.evaluation.bootstrap import interval
    from src.evaluation.comparison import changes, difference

    scores, utterances = own.scores, len(own.transcripts)
    low, high = interval(scores.utterance_errors, scores.utterance_words, samples, seed, own.blocks.labels)
    cells = {
        "model": each.record["model"],
        "method": f"{each.record['method']} {each.record['bits']}",
        "WER, %": f"{scores.wer:.2f} ({low:.2f} to {high:.2f})",
        "S / D / I": f"{scores.substitutions} / {scores.deletions} / {scores.insertions}",
        "CER, %": f"{scores.cer:.2f}",
    }
    versus, changed = difference(own, base, samples, seed), changes(own, base)
    against = {
        "difference, points": f"{versus.difference:+.2f} ({versus.low:+.2f} to {versus.high:+.2f})",
        "relative, %": _relative(versus),
        "p-value": f"{versus.p_value:.4f}",
        "prob. of improvement": f"{versus.improvement_probability:.3f}",
        "other transcripts": f"{changed.transcripts} of {utterances}",
        "better / worse": f"{changed.better} / {changed.worse} utterances",
        "word errors changed": str(changed.words),
        "difference is": _verdict(versus),
    }
    return cells | (dict.fromkeys(against, "-") if own is base else against)


def _relative(versus: PairedDifference) -> str:
    if versus.relative is None:
        return "undefined: BASE has no errors"
    if versus.relative_low is None:
        return f"{versus.relative:+.1f} (no interval: too few errors)"
    return f"{versus.relative:+.1f} ({versus.relative_low:+.1f} to {versus.relative_high:+.1f})"


def _verdict(versus: PairedDifference) -> str:
    if not versus.significant:
        return "not significant"
    return "significant: better" if versus.difference < 0 else "significant: worse"


if __name__ == "__main__":
    main()
