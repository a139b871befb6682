"""What reaches the console and what only the log of a job."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator

import pytest
from hydra.core.utils import JobReturn, JobStatus

from src.machine.logs import ConsoleFilter, returned_or_raised, route_libraries


@pytest.fixture
def streams() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """A console and a job's log as conf/config.yaml sets them up, on the root logger."""
    root, console, file = logging.getLogger(), io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(stream) for stream in (console, file)]
    handlers[0].addFilter(ConsoleFilter())
    for handler in handlers:
        root.addHandler(handler)
    yield console, file
    for handler in handlers:
        root.removeHandler(handler)
    logging.captureWarnings(False)


def test_what_libraries_warn_of_is_in_the_log_alone(
    streams: tuple[io.StringIO, io.StringIO], capfd: pytest.CaptureFixture[str]
) -> None:
    import transformers  # noqa: F401 - it makes a handler of its own

    console, file = streams
    route_libraries()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("an argument goes away", FutureWarning, stacklevel=1)
    logging.getLogger("transformers.generation").warning("a flag is ignored")
    logging.getLogger("src.stages").warning("ours")
    assert console.getvalue() == "ours\n"
    for told in ("an argument goes away", "a flag is ignored", "ours"):
        assert told in file.getvalue()
    assert capfd.readouterr().err == ""


def test_an_error_of_a_library_is_seen(streams: tuple[io.StringIO, io.StringIO]) -> None:
    logging.getLogger("asyncio").error("it broke")
    assert streams[0].getvalue() == "it broke\n"


def test_hydra_still_keeps_what_a_failed_job_raised() -> None:
    error = ValueError("of the job")
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = error
    assert returned_or_raised(job) is error
