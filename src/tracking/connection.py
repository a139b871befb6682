"""How a run begins: settings that keep the machine private, no prompt, no long wait, offline where online fails.

Nothing about the machine is sent: no host name, command line, repository, package list or system metrics, and every
configuration goes through :func:`~src.storage.redaction.redact`. What an offline run keeps of local paths (where an
artifact's files lie) is needed for the upload and is not sent.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from src.settings.wandb_variables import PRIVATE, YIELDING, notes, tags
from src.storage.redaction import redact, redact_text, without_secrets
from src.storage.secret_patterns import REDACTED, telling

if TYPE_CHECKING:
    from wandb import Run

    from src.settings import TrackingSettings

logger = logging.getLogger(__name__)

_MAX_TAG_CHARACTERS = 64  # W&B refuses longer ones
_TEARDOWN_SECONDS = 20.0  # a service that has nothing left to do ends in tenths of a second


@dataclass(frozen=True)
class RunInfo:
    """Identity of one run. ``id``: letters, digits, ``-``, ``_``; its files go to ``directory / "wandb"``."""

    id: str
    name: str
    group: str | None
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    directory: Path


def begin(settings: TrackingSettings, info: RunInfo, report: Callable[[str, Exception], None]) -> Run:
    """The started run. Falls back from online to offline; ``report`` is then told why.

    Raises:
        OSError: the run's directory cannot be written.
        Exception: whatever wandb raises when even an offline run cannot begin.
    """
    _require_writable(info.directory)
    if settings.mode == "offline":
        return _init("offline", settings, info)
    try:
        return _init("online", settings, info)
    except Exception as error:
        report("reaching the server; the run is kept offline for launchers/sync_wandb.sh", error)
        _abandon_service()
        return _init("offline", settings, info)


def _abandon_service() -> None:
    """Ends W&B's service, in which a failed attempt still holds the run's id; the next run starts another.

    ``wandb.teardown`` waits for the service without a limit, and leaves the interpreter (``sys.exit``) where the
    service failed. In a thread of its own it can do neither; a service that does not end is left to itself, and ends
    with this process.
    """

    def teardown() -> None:
        import wandb

        with suppress(Exception, SystemExit):
            wandb.teardown()

    thread = threading.Thread(target=teardown, daemon=True)
    thread.start()
    thread.join(_TEARDOWN_SECONDS)


def _init(mode: Literal["online", "offline"], settings: TrackingSettings, info: RunInfo) -> Run:
    import wandb

    names = redact(
        {"project": settings.project, "entity": settings.entity, "id": info.id, "name": info.name, "group": info.group}
    )
    private = wandb.Settings(**_private())
    wandb.setup(private)
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise PermissionError("no API key: run `wandb login`, set WANDB_API_KEY, or use tracking=offline")
    run = wandb.init(
        mode=mode,
        **{**names, "id": names["id"].replace(REDACTED, "hidden")},
        job_type=info.job_type,
        tags=[redact_text(tag)[:_MAX_TAG_CHARACTERS] for tag in (*info.tags, *tags()) if tag],
        notes=notes(),
        config=redact(info.config),
        dir=info.directory,
        resume="allow",
        settings=private,
    )
    logger.info("Weights & Biases: %s", run.url if mode == "online" else f"offline run in {Path(run.dir).parent}")
    return run


def _private() -> dict[str, Any]:
    """The settings, less those for which the user has set a variable that is obeyed."""
    yielding = {name for name in YIELDING if os.environ.get(f"WANDB_{name.upper()}")}
    return {name: value for name, value in PRIVATE.items() if name not in yielding}


def _require_writable(directory: Path) -> None:
    """Raises where wandb would quietly write to the system's temporary directory instead."""
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise PermissionError(f"{directory} is not writable")


@contextmanager
def environment(staging: Path) -> Iterator[None]:
    """Stages artifacts beside the run, so that a run can be moved and synced, and sends W&B no error reports.

    Variables that the user has set are left alone, but for secrets in those that W&B logs and stores.
    """
    wanted = {"WANDB_DATA_DIR": str(staging), "WANDB_ERROR_REPORTING": "false"}
    changes = {name: value for name, value in wanted.items() if name not in os.environ}
    stored = {name: value for name, value in os.environ.items() if name.startswith("WANDB_") and not telling(name)}
    changes |= {name: clean for name, value in stored.items() if (clean := without_secrets(value)) != value}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name, None)
        os.environ.update({name: stored[name] for name in changes.keys() & stored.keys()})
