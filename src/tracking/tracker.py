"""The tracker: what can be logged of a point, and that logging never fails the job."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.storage.redaction import redact, without_secrets
from src.tracking.connection import RunInfo, begin, environment
from src.tracking.keys import HEADLINES, METRICS, TABLES, require_known

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from wandb import Run, Table

    from src.settings import TrackingSettings

logger = logging.getLogger(__name__)

MAX_CLIPS = 16
MAX_CLIP_SECONDS = 30
MAX_ROWS = 2000  # of a table; Whisper's largest model has about 500 weights
MAX_CELL_CHARACTERS = 2000  # a decoder in a loop writes more
MAX_ARTIFACT_FILE_BYTES = 200_000_000  # larger files are named in the artifact's metadata instead


def open_tracker(settings: TrackingSettings, info: RunInfo) -> Tracker:
    """The tracker of one point, to be used in a ``with`` statement."""
    return NullTracker(settings, info) if settings.mode == "none" else Tracker(settings, info)


class Tracker:
    """One run, resumed when its id is known, and always finished: exit code 1 if the ``with`` body raised.

    The run begins with the first thing logged, with :meth:`start`, or when the body raises; a point that logs nothing
    leaves none. No method raises.
    """

    def __init__(self, settings: TrackingSettings, info: RunInfo) -> None:
        self._settings = settings
        self._info = info
        self._run: Run | None = None
        self._over = False  # finished, or failed to begin
        self.failed = False  # whether anything could not be logged
        self._outputs: set[str] = set()
        self._environment = ExitStack()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exit_code = int(kind is not None)
        if self._run is not None or exit_code:
            self._attempt(self._finishing(), lambda run: run.finish(exit_code=exit_code))
        self._over = True
        self._environment.close()

    def _finishing(self) -> str:
        """What is done at the end, and what a person does where the network does not last until then."""
        online = self._run is not None and not self._run.offline
        folder = Path(self._run.dir).parent if self._run is not None else None
        return (
            f"finishing the run; `wandb sync --include-online {folder}` uploads the rest"
            if online
            else "finishing the run"
        )

    def start(self) -> None:
        """Begins the run now, so that a long stage is visible before its first metric."""
        self._attempt("starting the run", lambda _run: None)

    def config(self, told: Mapping[str, Any]) -> None:
        """Sets what is known of the run only now, in its configuration."""

        def send(run: Run) -> None:
            run.config.update(redact(told), allow_val_change=True)  # type: ignore[no-untyped-call]

        self._attempt("updating the configuration", send)

    def log(self, stage: str, metrics: Mapping[str, float | int | str]) -> None:
        """Logs ``metrics`` as ``stage/name``, each one of :data:`METRICS`, and sets them in the run's summary.

        There :data:`HEADLINES` are under their own names too.
        """
        named = {f"{stage}/{name}": value for name, value in metrics.items()}
        headlines = {name: value for name, value in metrics.items() if name in HEADLINES}

        def send(run: Run) -> None:
            require_known(named, METRICS)
            run.log(named)
            run.summary.update(named | headlines)

        self._attempt(f"logging the metrics of {stage}", send)

    def table(self, stage: str, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Logs the first 2000 rows of a table as ``stage/name``, one of :data:`TABLES`."""
        self._table(f"{stage}/{name}", columns, rows[:MAX_ROWS])
        if len(rows) > MAX_ROWS:
            logger.info("Weights & Biases gets %d of the %d rows of %s/%s", MAX_ROWS, len(rows), stage, name)

    def audio_table(
        self,
        stage: str,
        name: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        audio: Sequence[tuple[np.ndarray, int]],
        captions: Sequence[str],
    ) -> None:
        """Logs a table with an ``audio`` column: the first 16 rows, the first 30 s of each clip.

        ``audio`` holds a waveform (float32 [samples], mono, in [-1, 1]) and its sampling rate in Hz for each row.
        """

        def clip(waveform: np.ndarray, rate: int, caption: str) -> Any:
            from wandb import Audio

            return Audio(waveform[: MAX_CLIP_SECONDS * rate], sample_rate=rate, caption=caption)

        def playable() -> list[list[Any]]:
            paired = islice(zip(rows, audio, captions, strict=True), MAX_CLIPS)
            return [[*row, clip(waveform, rate, caption)] for row, (waveform, rate), caption in paired]

        self._table(f"{stage}/{name}", [*columns, "audio"], playable)

    def _table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]] | Callable[[], Sequence[Sequence[Any]]]
    ) -> None:
        def send(run: Run) -> None:
            require_known([key], TABLES)
            data = [list(map(_cell, row)) for row in (rows() if callable(rows) else rows)]
            run.log({key: _table(columns, data)})

        self._attempt(f"logging the table {key}", send)

    def artifact(
        self,
        stage: str,
        name: str,
        type: str,
        files: Mapping[str, Path],
        metadata: Mapping[str, Any],
        uses: Sequence[str] = (),
    ) -> None:
        """Logs ``files`` (name in the artifact -> path, not to be changed afterwards) as an artifact.

        ``uses`` names the artifacts it was made from, listed in its metadata as ``inputs``. W&B draws lineage between
        runs only and refuses it offline, so inputs that another run logged are declared as used by this one when
        online. Files above 200 MB stay here; the metadata lists them, with their bytes, as ``not_uploaded``.
        """
        inputs = [_artifact_name(used) for used in uses]

        def send(run: Run) -> None:
            from wandb import Artifact

            sizes = {key: path.stat().st_size for key, path in files.items()}
            large = {key: size for key, size in sizes.items() if size > MAX_ARTIFACT_FILE_BYTES}
            described = {**metadata, "stage": stage, "inputs": inputs, "not_uploaded": large}
            artifact = Artifact(_artifact_name(name), type=type, metadata=redact(described))
            for key, path in files.items():
                if key not in large:
                    artifact.add_file(str(path.resolve()), name=key, skip_cache=True, policy="immutable")
            run.log_artifact(artifact, aliases=["latest", self._info.id])
            self._outputs.add(_artifact_name(name))

        self._attempt(f"logging the artifact {name}", send)
        for used in inputs:
            self._declare_use(used)

    def _declare_use(self, name: str) -> None:
        def send(run: Run) -> None:
            if not run.offline and name not in self._outputs:
                run.use_artifact(f"{name}:latest")

        self._attempt(f"declaring the use of {name}", send)

    def _attempt(self, what: str, action: Callable[[Run], None]) -> None:
        """Applies ``action`` to the run, begun if need be; a failure is reported, not raised."""
        if self._over:
            return
        try:
            if self._run is None:
                self._over = True  # unless the next line succeeds
                self._environment.enter_context(environment(self._info.directory / "wandb"))
                self._run = begin(self._settings, self._info, self._report)
                self._over = False
            action(self._run)
        except Exception as error:
            self._report(what, error)

    def _report(self, what: str, error: Exception) -> None:
        level = logging.DEBUG if self.failed else logging.WARNING
        self.failed = True
        logger.log(level, "Weights & Biases failed at %s (%s: %s). The job goes on.", what, type(error).__name__, error)


class NullTracker(Tracker):
    """Accepts everything and does nothing, without importing wandb."""

    def _attempt(self, what: str, action: Callable[[Run], None]) -> None:
        pass


def _table(columns: Sequence[str], data: list[list[Any]]) -> Table:
    """Columns keep their type (numbers sort, audio plays) unless one of them mixes several."""
    from wandb import Table

    try:
        return Table(columns=list(columns), data=data)
    except TypeError:
        return Table(columns=list(columns), data=data, allow_mixed_types=True)


def _cell(value: Any) -> Any:
    """``value``; of a text that is too long the end is left out."""
    if not isinstance(value, str):
        return value
    text = without_secrets(value)
    return f"{text[: MAX_CELL_CHARACTERS - 1]}…" if len(text) > MAX_CELL_CHARACTERS else text


def _artifact_name(name: str) -> str:
    """``name`` in the characters that W&B accepts."""
    return re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
