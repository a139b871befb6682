"""What of a job's messages reaches the person who runs it: our own; what libraries say stays in the job's log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, Final

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_OURS: Final = ("src", "hydra", "hydra_plugins", "__main__")
_OWN_HANDLERS: Final = ("transformers", "datasets", "huggingface_hub")  # these print past the root logger


class ConsoleFilter(logging.Filter):
    """Passes what this project and Hydra say, and of libraries errors only: a filter of the console's handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a person needs to see it; :func:`logging.captureWarnings` makes warnings records of a library."""
        return record.levelno >= logging.ERROR or record.name.partition(".")[0] in _OURS


def route_libraries() -> None:
    """Sends Python's warnings and what libraries print on their own to the handlers of the job's log.

    It may be called again after an import that added a handler.
    """
    logging.captureWarnings(True)
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        for handler in list(_printing(logger.handlers)):
            logger.removeHandler(handler)
        logger.propagate = True


def _printing(handlers: Iterable[logging.Handler]) -> Iterable[logging.Handler]:
    streams = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return (each for each in handlers if isinstance(each, logging.StreamHandler) and each.stream in streams)


def returned_or_raised(job: JobReturn) -> Any:
    """What a job returned, or the error that it raised, which Hydra's public ``return_value`` would raise here."""
    return job._return_value


class QuietReturn(JobReturn):
    """A job's end that raises its error without printing its overrides first, as Hydra's does."""

    @property
    def return_value(self) -> Any:
        """What the job returned. Raises what it raised."""
        if self.status is JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


class QuietErrors(Callback):
    """Leaves the telling of a job's error to :mod:`src.runs.cli`."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:  # noqa: ARG002 - Hydra's call
        job_return.__class__ = QuietReturn
