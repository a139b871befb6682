"""A race as a run of its own in Weights & Biases, beside those of its points, in the sweep's group."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.records import Entrant, Race
from src.runs.telling import group_of, mark_of, telling
from src.settings import TrackingSettings
from src.settings.wandb_variables import obeyed
from src.storage.digest import fingerprint
from src.storage.redaction import redact
from src.storage.store import Store
from src.tracking import RunInfo, Tracker

_COLUMNS = ("candidate", "model", "method", "bits", "MB", "rtf", "front", "outcome", "record")
_AGREEMENT = ("proxy", "model", "with WER on clips", "candidates", "spearman")


def log_race(race: Race, config: DictConfig, sweep: Path) -> None:
    """Logs it, once; ``config`` is what the command line composed, ``sweep`` the folder."""
    tracking = obeyed(TrackingSettings.model_validate(OmegaConf.to_container(config.tracking, resolve=True)))
    output_dir = Path(config.output_dir)
    run = f"race-{race.name}"
    models = dict.fromkeys(each.model for each in race.candidates if each.model is not None)
    info = RunInfo(
        id=run,
        name=f"{race.title}: {', '.join(models)}",
        group=group_of(tracking, sweep),
        job_type="race",
        tags=("race", *models, *([race.dataset] if race.dataset else [])),
        config=redact(race.model_dump(mode="json", include={"bounds", "clips", "fixed", "dataset", "metric"})),
        directory=output_dir,
    )
    told = {"race": fingerprint(race.model_dump(mode="json"))}
    mark = mark_of(Store(output_dir / "cache"), tracking, run, told)
    with telling(tracking, info) as run_told:
        run_told.once(mark, "race", lambda tracker: _log(race, tracker))


def _log(race: Race, tracker: Tracker) -> None:
    chosen = race.chosen
    tracker.config({"chosen": None if chosen is None else {"overrides": chosen.overrides, "record": chosen.record}})
    tracker.log(
        "race",
        {
            "candidates": len(race.candidates),
            "utterances": race.heard,
            **({} if chosen is None else _figures(chosen)),
        },
    )
    rates = [f"{end}, {clips}" for clips in map(_heard, race.rounds) for end in ("WER", "low", "high")]
    rows = [_row(each, race) for each in race.ranked]
    tracker.table("race", "candidates", [*_COLUMNS[:5], *rates, *_COLUMNS[5:]], rows)
    agreements = [
        [each.proxy, each.model or "all", _heard(each.clips), each.candidates, each.spearman]
        for each in race.agreements
    ]
    tracker.table("race", "agreements", _AGREEMENT, agreements)


def _figures(chosen: Entrant) -> dict[str, float]:
    last = chosen.rounds[-1]
    assert chosen.megabytes is not None  # it was heard
    size = {"disk_bytes": round(chosen.megabytes * 10**6)}
    return {"wer": last.wer, "wer_low": last.wer_low, "wer_high": last.wer_high, **size}


def _heard(clips: int | None) -> str:
    return "all" if clips is None else str(clips)


def _row(each: Entrant, race: Race) -> list[object]:
    heard = {one.clips: (one.wer, one.wer_low, one.wer_high) for one in each.rounds}
    rates = [value for clips in race.rounds for value in heard.get(clips, (None, None, None))]
    about = [each.name, each.model, each.method, each.bits, each.megabytes]
    return [*about, *rates, each.rtf, each.front, each.outcome, each.record]
