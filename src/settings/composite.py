"""Several test sets in one command: a point for each, and the unweighted mean of their word error rates.

A yaml of ``conf/dataset`` with ``members`` is a composite; each member is what another yaml composes. What the members
share (``root``, ``limit`` ...) they take from the composite by interpolation, so that one override reaches all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.settings import Settings, from_config
from src.settings.groups import checked_name
from src.text.languages import kind_of


@dataclass(frozen=True)
class Composite:
    """A point for each of several test sets, which differ in nothing else."""

    name: str
    members: tuple[Settings, ...]


def members(study: Settings | Composite) -> tuple[Settings, ...]:
    return study.members if isinstance(study, Composite) else (study,)


def from_hydra(config: DictConfig) -> Settings | Composite:
    """Checks a composed Hydra configuration and freezes it: one point, or one for each member of a composite.

    Raises:
        UserError: a field is missing, unknown or out of range, a composite has no member, or a setting of a composite
            reaches none of them.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    calibration = plain["calib"]["dataset"]
    if _is_composite(calibration):
        problem = f"{calibration['name']!r} is made of several sets, and clips are drawn from one"
        raise UserError("calib.dataset", problem, "Choose one, e.g. dataset@calib.dataset=librispeech_other")
    if not _is_composite(plain["dataset"]):
        return from_config(plain)
    _check(config.dataset)
    points = [from_config({**plain, "dataset": member}) for member in plain["dataset"]["members"].values()]
    _check_names(plain["dataset"]["name"], [point.dataset.name for point in points])
    _check_rules(plain["dataset"]["name"], points)
    return Composite(plain["dataset"]["name"], tuple(points))


def _is_composite(dataset: Any) -> bool:
    return isinstance(dataset, dict) and "members" in dataset


def _check_names(name: str, members: Sequence[str]) -> None:
    """The mean has a name that can be a file's, and members are told apart by theirs."""
    try:
        checked_name(name)
    except ValueError as error:
        raise UserError("dataset.name", f"{name!r} is not valid ({error})", "Choose another") from None
    twice = [member for member, count in Counter(members).items() if count > 1]
    if twice:
        remedy = "Give each a name of its own, as in dataset.members.KEY.name=..."
        raise UserError("dataset.members", f"several are named {twice[0]!r}", remedy)


def _check_rules(name: str, points: Sequence[Settings]) -> None:
    """One kind of error rate for all members, as there is no mean of several."""
    kinds = {kind_of(point.dataset.language): point.dataset for point in points}
    if len(kinds) > 1:
        told = " and ".join(f"{member.name} ({member.language}) by {kind}" for kind, member in kinds.items())
        raise UserError("dataset.members", f"{name} would be the mean of {told}", "Make a composite of each")


def _check(dataset: DictConfig) -> None:
    """Every setting of a composite is one that members take from there."""
    if not dataset.members:
        raise UserError("dataset.members", "no member is left", "Keep one at least, or choose another dataset")
    taken = {key for member in dataset.members.values() for key in member if OmegaConf.is_interpolation(member, key)}
    for key in set(dataset) - {"name", "members"} - taken:
        if dataset[key] is not None:
            remedy = f"Set it where it is known, as dataset.members.{next(iter(dataset.members))}.{key}=..."
            raise UserError(f"dataset.{key}", f"no member of {dataset.name} takes it from there", remedy)
