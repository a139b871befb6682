"""How candidates fared that raced for the best within a budget: what was heard of each, why it fell out, what won.

Told in a file of its own below ``races``, whose name follows from the command: the same command again tells the same
race in the same place, and whoever shows the points of a folder finds its races without knowing of sweeps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import FiniteFloat

from src.records.record import RecordPart, read_checked
from src.storage.checksum import with_checksum
from src.storage.redaction import redact, without_secrets
from src.storage.store import write_json

RACES: Final = "races"  # below output_dir
CHOSEN: Final = "chosen"


class Hearing(RecordPart):
    """A round of a candidate: ``clips`` of each test set, None for all, and what its ``record`` says of them, in %."""

    clips: int | None
    record: str
    utterances: int
    wer: FiniteFloat
    wer_low: FiniteFloat
    wer_high: FiniteFloat


class Entrant(RecordPart):
    """A candidate.

    Attributes:
        overrides: what makes it, beside what all have in common.
        outcome: :data:`CHOSEN`, or why it was not, in words.
        front: whether no other one of its size or smaller had a lower error rate, on the most clips that both were
            heard on; of those that were heard.
        record: of the quantized model, with its plan; None where none could be made, as what follows.
        megabytes: 10^6 bytes of its file.
        rtf: real-time factor that the edge device allows at best.
        proxies: what was known before it was heard, by name; the less, the better.
        rounds: that it was heard in.
    """

    overrides: Sequence[str]
    outcome: str
    front: bool
    record: str | None = None
    model: str | None = None
    method: str | None = None
    bits: str | None = None
    megabytes: FiniteFloat | None = None
    rtf: FiniteFloat | None = None
    proxies: Mapping[str, FiniteFloat] = {}
    rounds: Sequence[Hearing] = ()

    @property
    def name(self) -> str:
        return " ".join(self.overrides)


class Agreement(RecordPart):
    """Spearman's rank correlation of a proxy with the WER of a later round, over candidates that have both.

    Attributes:
        proxy: its name, or that of an earlier round.
        model: whose candidates; None for those of all models.
        clips: of the round, None for all.
        candidates: how many.
    """

    proxy: str
    model: str | None
    clips: int | None
    candidates: int
    spearman: FiniteFloat


class Race(RecordPart):
    """A whole race.

    Attributes:
        name: a fingerprint of what follows from the command.
        bounds: ``megabytes``, ``rtf`` and ``wer``, those that were set.
        clips: of each test set, heard in the rounds before the last.
        fixed: overrides that all candidates have in common, but for where results go.
        metric: what the error rates are, WER or CER; None where nothing was heard.
        dataset: what was heard.
        candidates: in the order of the command.
        agreements: of proxies and rounds, how well they foretold a later one.
        export: folder of the chosen one's files for another runtime, below the race's; None where none were wanted.
    """

    name: str
    bounds: Mapping[str, FiniteFloat]
    clips: Sequence[int]
    fixed: Sequence[str]
    metric: str | None
    dataset: str | None
    candidates: Sequence[Entrant]
    agreements: Sequence[Agreement]
    export: str | None = None

    @property
    def chosen(self) -> Entrant | None:
        return next((each for each in self.candidates if each.outcome == CHOSEN), None)

    @property
    def rounds(self) -> list[int | None]:
        """Clips of each test set in every round; None for all."""
        return [*self.clips, None]

    @property
    def ranked(self) -> list[Entrant]:
        """The chosen one first, then those that came furthest, the lowest error rate first."""
        return sorted(
            self.candidates,
            key=lambda each: (
                each.outcome != CHOSEN,
                not each.rounds,
                -self.rounds.index(each.rounds[-1].clips) if each.rounds else 0,
                each.rounds[-1].wer if each.rounds else 0.0,
            ),
        )

    @property
    def heard(self) -> int:
        """Utterances that were decoded, by all candidates together."""
        return sum(each.utterances for candidate in self.candidates for each in candidate.rounds)

    @property
    def title(self) -> str:
        """What was asked for, in words."""
        units = {"megabytes": "at most {:g} MB", "rtf": "a real-time factor of at most {:g}", "wer": "at most {:g} %"}
        told = [text.format(self.bounds[name]) for name, text in units.items() if name in self.bounds]
        wanted = "the smallest file" if "wer" in self.bounds else "the lowest error rate"
        return ", ".join([f"{wanted} on {self.dataset or 'nothing'}", *told])


def save_race(race: Race, output_dir: Path) -> Path:
    """Writes a race, with a digest of its content; returns the file."""
    path = output_dir / RACES / f"{race.name}.json"
    write_json(path, with_checksum(json.loads(without_secrets(json.dumps(redact(race.model_dump(mode="json")))))))
    return path


def read_race(file: Path) -> Race:
    """The race in a file.

    Raises:
        ValueError: it cannot be read, is no race, or is not as it was written; says what is wrong in a few words.
    """
    plain: Any = read_checked(file)
    return Race.checked(plain)
