"""Runs the Hydra application and turns a user's mistake into one sentence and exit code 1."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from src import console
from src.errors import UserError, did_you_mean
from src.settings import ROOT

CONF = ROOT / "conf"


def main(application: Callable[[], Any]) -> None:
    """Calls a ``hydra.main`` function; exits with 1 after a mistake that the user can mend."""
    from src.sweep import show_sweep

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing, so that every error looks the same
    try:
        _check_arguments(sys.argv[1:])
        application()
        show_sweep()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        show_sweep(failed=True)
        console.error(str(explain(error)))
        sys.exit(1)
    except KeyboardInterrupt:
        console.error("interrupted; run the same command again to go on from the last finished batch")
        sys.exit(130)


def explain(error: Exception) -> Exception:
    """The error as field, problem and remedy where Hydra's or OmegaConf's own words are not."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return UserError(group, f"there is no choice {choice!r}", did_you_mean(choice, error.options))
    override = re.match(r"Could not override '([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and override:
        return _unknown_key(override.group(1))
    repeated = re.match(r"Multiple values for (\S+)\. ", str(error))
    if repeated:
        return UserError(repeated.group(1), "it is chosen already", f"Write {repeated.group(1)}=... without the plus")
    if isinstance(error, OverrideParseException):
        return UserError("command line", f"{error.override!r} cannot be read", "Write group=choice or key=value")
    return error


def _unknown_key(key: str) -> UserError:
    """Proposes the nearest key on the same level of the configuration, or the nearest group."""
    parent, _, name = key.rpartition(".")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config")
    level = OmegaConf.select(config, parent) if parent else config
    if not isinstance(level, DictConfig):
        return UserError(key, "no such setting", did_you_mean(parent, map(str, config)))
    groups = () if parent else ("experiment", "hydra/launcher")
    return UserError(key, "no such setting", did_you_mean(name, (*map(str, level), *groups)))


def _check_arguments(arguments: list[str]) -> None:
    """Refuses what Hydra would answer with a traceback."""
    for argument in arguments:
        if argument.startswith("="):
            raise UserError("command line", f"{argument!r} sets nothing", "Write group=choice or key=value")
