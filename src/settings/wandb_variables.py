"""W&B's environment variables: each is obeyed and said, said not to be obeyed, or refused. None is dropped in silence.

Of two that say whether a run is uploaded, or kept at all, the one that shares less wins. ``WANDB_PROJECT``,
``WANDB_ENTITY`` and ``WANDB_RUN_GROUP`` are the defaults of ``conf/tracking``, which the command line overrules.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from src.errors import UserError
from src.storage.redaction import redact_text

if TYPE_CHECKING:
    from src.settings.groups import TrackingSettings

log = logging.getLogger(__name__)

_INIT_SECONDS: Final = 20.0
_FINISH_SECONDS: Final = 120.0
PRIVATE: Final[Mapping[str, Any]] = {  # settings of every run: nothing about the machine is sent
    "host": "",
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "finish_timeout": _FINISH_SECONDS,
    "finish_timeout_raises": True,  # else what was not uploaded in time is lost in silence
    "init_timeout": _INIT_SECONDS,
    "label_disable": True,
    "program": "src.main",  # else its path, which may lie in someone's home directory
    "reinit": "create_new",  # the default would hand a second point the run of the first
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
YIELDING: Final = frozenset({"silent", "init_timeout", "finish_timeout"})  # of connection's settings
_SHARES: Final = ("none", "offline", "online")  # less first
_MODES: Final = {"disabled": "none", "offline": "offline", "dryrun": "offline", "online": "online", "run": "online"}
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_DEFAULTS: Final = {"WANDB_PROJECT": "project", "WANDB_ENTITY": "entity", "WANDB_RUN_GROUP": "group"}
_ADDED: Final = ("WANDB_TAGS", "WANDB_NOTES")
_OWN: Final = "every point is a run of its own, whose {} follows from its settings"
_REFUSED: Final = {
    **dict.fromkeys(("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"), _OWN.format("id")),
    "WANDB_NAME": _OWN.format("name"),
    "WANDB_JOB_TYPE": _OWN.format("job type"),
}
_PLACES: Final = {"WANDB_DIR": "runs are kept below output_dir, where launchers/sync_wandb.sh finds them"}
_said = set[str]()


def obeyed(tracking: TrackingSettings, environment: Mapping[str, str] = os.environ) -> TrackingSettings:
    """The settings with what the variables change in them; what is changed, or not obeyed, is logged once.

    Raises:
        UserError: a variable that is set has no meaning here.
    """
    given = {name: value for name, value in environment.items() if name.startswith("WANDB_") and value}
    asked = {name: _mode(name, given[name]) for name in given if name in ("WANDB_MODE", "WANDB_DISABLED")}
    mode: Any = min((tracking.mode, *filter(None, asked.values())), key=_SHARES.index)
    for name, each in asked.items():
        if each not in (None, mode):
            _say(logging.WARNING, f"tracking.mode={mode} wins over {name}={given[name]}")
        elif each == mode != tracking.mode:
            _say(logging.WARNING, f"{name}={given[name]} wins over tracking.mode={tracking.mode}: now {mode}")
        elif each is not None:
            _say(logging.INFO, f"{name}={given[name]} is obeyed")
    if mode == "none":
        return tracking.model_copy(update={"mode": mode})
    for name in _REFUSED.keys() & given.keys():
        remedy = "Unset it; tracking.group, WANDB_TAGS and WANDB_NOTES tell runs apart"
        raise UserError(name, f"{redact_text(given[name])!r} cannot be obeyed, as {_REFUSED[name]}", remedy)
    chosen = {name: getattr(tracking, setting) for name, setting in _DEFAULTS.items()}
    for name in sorted(given.keys() & {*chosen, *_ADDED}):
        if chosen.get(name, given[name]) == given[name]:
            _say(logging.INFO, f"{name}={given[name]} is obeyed")
        else:
            _say(logging.WARNING, f"tracking.{_DEFAULTS[name]}={chosen[name]} wins over {name}={given[name]}")
    for name, reason in _not_obeyed(given).items():
        _say(logging.WARNING, f"{name}={given[name]} is not obeyed: {reason}")
    return tracking.model_copy(update={"mode": mode})


def tags(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Of ``WANDB_TAGS``, beside the point's own."""
    return [tag.strip() for tag in environment.get("WANDB_TAGS", "").split(",") if tag.strip()]


def notes(environment: Mapping[str, str] = os.environ) -> str | None:
    return redact_text(environment.get("WANDB_NOTES", "")) or None


def _mode(name: str, value: str) -> str | None:
    """What a variable asks for; None where it asks for nothing."""
    word = value.strip().lower()
    if name == "WANDB_DISABLED" and word in (*_YES, *_NO):
        return "none" if word in _YES else None
    if name == "WANDB_MODE" and word in _MODES:
        return _MODES[word]
    known = ", ".join(_MODES) if name == "WANDB_MODE" else "true and false"
    raise UserError(name, f"{value!r} is not known here", f"Unset it, or use one of {known}")


def _not_obeyed(given: Mapping[str, str]) -> dict[str, str]:
    """Variables that other settings overrule, with the reason."""
    found = {name: reason for name, reason in _PLACES.items() if name in given}
    for name, value in given.items():
        field = name.removeprefix("WANDB_").lower()
        field = f"x{field}" if field.startswith("_") else field
        fixed = PRIVATE.get(field)
        same = value.strip().lower() in (_YES if fixed is True else _NO if fixed is False else (str(fixed).lower(),))
        if field in PRIVATE and field not in YIELDING and not same:
            found[name] = "nothing about the machine and the code is stored or sent"
    return found


def _say(level: int, sentence: str) -> None:
    if sentence not in _said:
        _said.add(sentence)
        log.log(level, "%s", sentence)
