"""Runs the Hydra application and turns a user's mistake into one sentence and exit code 1."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src.errors import UserError, did_you_mean, unwritable
from src.machine.interrupts import leave, obey_signals
from src.project import ROOT
from src.runs.hydra_folders import ELSEWHERE
from src.storage.redaction import guard_output
from src.storage.secret_references import without_secrets_in
from src.terminal import console

CONF = ROOT / "conf"
GROUP_OR_KEY = "Write group=choice or key=value"


def main(application: Callable[[], Any]) -> None:
    """Calls a ``hydra.main`` function; exits with 1 after a mistake that the user can mend."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing, so that every error looks the same
    logging.raiseExceptions = False  # a log that cannot be written, of a full disk, is not told line by line
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]:
        del os.environ[name]  # set to nothing, which W&B takes for a value
    obey_signals()
    guard_output()
    # Hydra takes no overrides on both sides of a flag; the sort keeps the order of all others
    sys.argv[1:] = sorted(without_secrets_in(sys.argv[1:]), key=lambda argument: argument not in ("-m", "--multirun"))
    with console.plain_errors():
        _main(application)


def _main(application: Callable[[], Any]) -> None:
    from src.runs.sweep import show_interrupted, show_sweep

    try:
        _check_arguments(sys.argv[1:])
        application()
        show_sweep()
    except Exception as error:
        if show_sweep(error):
            sys.exit(1)
        sentence = explain(error)
        if sentence is None:
            raise
        console.error(sentence)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        with suppress(OSError):  # the terminal is gone
            if not show_interrupted():
                console.error("interrupted; run the same command again to go on from the last finished batch")
        leave(interrupt)


def explain(error: Exception) -> str | None:
    """The error in one line: field, problem and remedy; ``None`` where the user is not the one to mend it."""
    if isinstance(error, OSError):
        error = unwritable(error, ELSEWHERE) or error
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        error = _in_our_words(error)
    if isinstance(error, (UserError, HydraException, OmegaConfBaseException)):
        return " ".join(str(error).split())
    return None


def _in_our_words(error: Exception) -> Exception:
    """Hydra's errors as field, problem and remedy, where Hydra does not say so."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return UserError(group, f"there is no choice {choice!r}", did_you_mean(choice, error.options))
    if isinstance(error, ConfigCompositionException) and (override := re.match(r"Could not override '([^']+)'", text)):
        return _unknown_key(override[1])
    if repeated := re.match(r"Multiple values for (\S+)\. ", text):
        return UserError(repeated[1], "it is chosen already", f"Write {repeated[1]}=... without the plus")
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", text):
        remedy = f"Add -m to run one point for each, or write {several[1]}=[{several[2]}] for a list"
        return UserError(several[1], f"{several[2]!r} is more than one value", remedy)
    if isinstance(error, OverrideParseException):
        return UserError("command line", f"{error.override!r} cannot be read", GROUP_OR_KEY)
    return error


def _unknown_key(key: str) -> UserError:
    """Proposes the nearest key on the same level of the configuration, or the nearest group."""
    parent, _, name = key.rpartition(".")
    config = _composed_without(key)
    level = OmegaConf.select(config, parent) if parent else config
    if not isinstance(level, DictConfig):
        return UserError(key, "no such setting", did_you_mean(parent, map(str, config)))
    groups = () if parent else ("experiment", "hydra/launcher")
    return UserError(key, "no such setting", did_you_mean(name, (*map(str, level), *groups)))


def _composed_without(key: str) -> DictConfig:
    """What this command line composes without its override of ``key``; the defaults where that cannot be composed."""
    plain = [argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith("-")]
    others = [argument for argument in plain if argument.lstrip("+~").partition("=")[0] != key]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        with suppress(HydraException):
            return compose("config", others, return_hydra_config=key.startswith("hydra."))
        return compose("config", return_hydra_config=key.startswith("hydra."))


def _check_arguments(arguments: list[str]) -> None:
    """Refuses what Hydra would answer with a traceback."""
    for argument in arguments:
        if argument.startswith("="):
            raise UserError("command line", f"{argument!r} sets nothing", GROUP_OR_KEY)
