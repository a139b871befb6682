"""The folders that Hydra makes for a job, before the settings are checked: their names are checked, and they can be."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from src.errors import UserError, unwritable
from src.settings import checked_folder

ELSEWHERE: Final = "choose another output_dir=/path"
_NAMES: Final = (  # settings that become the name of a folder or a file
    *("output_dir", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
    *("hydra.output_subdir", "hydra.job.name"),
)


def make(config: DictConfig) -> None:
    """Makes the folder of a run, or that of a sweep.

    Raises:
        UserError: it has no name, it cannot be made, or a key or token would become part of it or of what it holds.
    """
    for key, name in _named(config):
        try:
            checked_folder(name)
        except ValueError as error:
            raise UserError(key, str(error), f"Choose another, e.g. {key}=outputs") from None
    folder = Path(config.hydra.run.dir if config.hydra.mode is RunMode.RUN else config.hydra.sweep.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # all above it is there: as of /proc, which takes no folder
        problem = f"no folder can be made of {error.filename!r} ({error.strerror})"
        raise UserError("files", problem, ELSEWHERE.capitalize()) from None
    except OSError as error:
        raise unwritable(error, ELSEWHERE) or error from None


def _named(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Settings that become names, and what they are in the first job; of those that are swept, what is swept."""
    given = list(config.hydra.overrides.task)
    first = copy.deepcopy(config)
    with open_dict(first):
        first.hydra.job.num, first.hydra.job.id = 0, "0"
        first.hydra.job.override_dirname = ",".join(given)
    for key in _NAMES:
        value = _resolved(first, key)
        if value is not None:
            yield key, str(value)
    swept = dict(each.lstrip("+").partition("=")[::2] for each in given)
    params = config.hydra.sweeper.get("params") or {}
    for key, values in {**swept, **params}.items():
        if key in _NAMES:
            yield key, str(values)


def _resolved(config: DictConfig, key: str) -> Any:
    """None where it rests on what is not set, of which the job tells."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None
