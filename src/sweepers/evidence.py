"""What a race leaves behind: its Pareto front, how well each proxy foretold the error rate, and who fell out why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from src.metrics import WER
from src.records import CHOSEN, Agreement, Entrant, Hearing, Race, Record
from src.sweepers.candidate import Candidate, last_common_round

_FEWEST: Final = 3  # candidates that have an order worth telling


@dataclass(frozen=True)
class Asked:
    """What was asked for, by the fields of :class:`~src.records.race.Race`."""

    name: str
    bounds: Mapping[str, float]
    clips: Sequence[int]
    fixed: Sequence[str]


def race_of(asked: Asked, field: Sequence[Candidate], chosen: Candidate | None, made: Record | None) -> Race:
    """The account of a race that is over; ``made`` is the record of the last run of the chosen one."""
    rounds = [*asked.clips, None]
    heard = next((record for each in field for record in each.heard.values()), None)
    return Race(
        **vars(asked),
        metric=None if heard is None or heard.results.evaluate is None else heard.results.evaluate.metric,
        dataset=None if heard is None else heard.dataset,
        candidates=[_entrant(each, field, rounds, is_chosen=each is chosen) for each in field],
        agreements=list(_agreements(field, rounds)),
        export=None if made is None else made.plain["results"].get("export", {}).get("folder"),
    )


def _entrant(
    candidate: Candidate, field: Sequence[Candidate], rounds: Sequence[int | None], *, is_chosen: bool
) -> Entrant:
    outcome = CHOSEN if is_chosen else candidate.out or candidate.told
    if candidate.sized is None:
        return Entrant(overrides=candidate.overrides, outcome=outcome, front=False)
    sized = candidate.sized
    return Entrant(
        overrides=candidate.overrides,
        outcome=outcome,
        front=_on_front(candidate, field),
        record=sized.fingerprint,
        model=sized.model,
        method=sized.method,
        bits=sized.precision,
        megabytes=candidate.megabytes,
        rtf=candidate.rtf,
        proxies={name: cost for name, of in PROXIES.items() if (cost := of(sized)) is not None},
        rounds=[_hearing(candidate, number, rounds[number]) for number in candidate.heard],
    )


def _hearing(candidate: Candidate, number: int, clips: int | None) -> Hearing:
    scores = candidate.scores(number)
    return Hearing(
        clips=clips,
        record=candidate.heard[number].fingerprint,
        utterances=scores.utterances,
        wer=scores.wer,
        wer_low=scores.wer_low,
        wer_high=scores.wer_high,
    )


def _on_front(candidate: Candidate, field: Sequence[Candidate]) -> bool:
    """Whether no other one is as good in size and error rate, and better in one; rates of the same clips only."""
    return bool(candidate.heard) and not any(_dominates(other, candidate) for other in field)


def _dominates(one: Candidate, other: Candidate) -> bool:
    number = last_common_round(one, other)
    if number is None:
        return False
    own, others = ((each.megabytes, each.scores(number).wer) for each in (one, other))
    return own != others and all(mine <= theirs for mine, theirs in zip(own, others, strict=True))


def _output_error(record: Record) -> float | None:
    """Relative error of the outputs of what was rounded, on the calibration clips; the mean over the weights."""
    layers = record.results.quantize.layers if record.results.quantize else ()
    errors = [each.output_error for each in layers if each.output_error is not None]
    return fmean(errors) if errors else None


def _expected_cost(record: Record) -> float | None:
    """Nats a token, where the method foretells them."""
    return None if record.results.quantize is None else record.results.quantize.expected_nats


PROXIES: Final[Mapping[str, Callable[[Record], float | None]]] = {
    "mean output error": _output_error,
    "sum of sensitivities": _expected_cost,
}


def _agreements(field: Sequence[Candidate], rounds: Sequence[int | None]) -> Iterator[Agreement]:
    """Of what was known before anything was heard, within each model, whose errors they are; of rounds, over all."""
    models = dict.fromkeys(each.sized.model for each in field if each.sized is not None)
    for model in models:
        own = [each for each in field if each.sized is not None and each.sized.model == model]
        for name, of in PROXIES.items():
            for number, clips in enumerate(rounds):
                known = [(of(each.sized), each) for each in own if each.sized is not None and number in each.heard]
                pairs = [(cost, each.scores(number).wer) for cost, each in known if cost is not None]
                yield from _agreement(name, model, clips, pairs)
    for earlier, heard in enumerate(rounds[:-1]):
        for number, clips in enumerate(rounds[earlier + 1 :], earlier + 1):
            both = [each for each in field if earlier in each.heard and number in each.heard]
            pairs = [(each.scores(earlier).wer, each.scores(number).wer) for each in both]
            yield from _agreement(f"{WER.heading} on {heard} clips", None, clips, pairs)


def _agreement(
    proxy: str, model: str | None, clips: int | None, pairs: Sequence[tuple[float, float]]
) -> Iterator[Agreement]:
    """Nothing where there are too few, or all are equal."""
    from scipy.stats import spearmanr  # which takes a second, and Hydra imports this in every process

    if len(pairs) < _FEWEST or any(len(set(values)) == 1 for values in zip(*pairs, strict=True)):
        return
    found = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert math.isfinite(found)
    yield Agreement(proxy=proxy, model=model, clips=clips, candidates=len(pairs), spearman=round(found, 6))
