"""A corpus on the Hugging Face hub, through ``datasets`` and its cache."""

from __future__ import annotations

import time
from typing import Any, Final

from src.data.arrow import ArrowRows
from src.errors import UserError, did_you_mean
from src.settings import DatasetSettings

_PAUSE: Final = 60.0  # seconds
_silent = [float("-inf")]  # when the hub was last asked and did not answer


def download(settings: DatasetSettings) -> ArrowRows:
    """The rows of a split on the hub, downloaded on the first use.

    Raises:
        UserError: there is no network, or no such set, revision, config or split.
    """
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    source, config, split = str(settings.source), settings.config, settings.split
    where = f"{source} ({config}, {split})"
    try:
        table = _load(source, config, split, settings.revision)
    except ConnectionError as error:
        problem = f"{source} ({config}) is not on this machine and the hub cannot be reached ({error})"
        raise UserError("dataset.source", problem, _remedy(source, settings.revision)) from error
    except DatasetNotFoundError as error:
        problem = f"{source!r} is no folder here, and the hub has no such data set and revision to read ({error})"
        remedy = "Check dataset.source and dataset.revision (null is the newest); log in where access is restricted"
        raise UserError("dataset.source", problem, remedy) from error
    except ValueError as error:
        problem = f"{source} has no config {config!r} with split {split!r} ({error})"
        raise UserError("dataset.config", problem, f"See https://huggingface.co/datasets/{source}") from error
    except (DatasetsError, OSError) as error:
        problem = f"{where} cannot be read ({error})"
        raise UserError("dataset.source", problem, f"See https://huggingface.co/datasets/{source}") from error
    if isinstance(table, dict):
        raise UserError("dataset.split", f"{where} needs the name of a split", did_you_mean("", table))
    return ArrowRows(table, settings.columns.audio, where, folder=None)


def _load(source: str, config: str | None, split: str | None, revision: str | None) -> Any:
    """A hub that did not answer, which takes half a minute to tell, is not asked again at once for another test set."""
    from datasets import config as library
    from datasets import load_dataset

    offline = library.HF_HUB_OFFLINE
    library.HF_HUB_OFFLINE = offline or time.monotonic() - _silent[0] < _PAUSE
    try:
        return load_dataset(source, config, split=split, revision=revision)
    except ConnectionError:
        _silent[0] = time.monotonic()
        raise
    finally:
        library.HF_HUB_OFFLINE = offline


def _remedy(source: str, revision: str | None) -> str:
    pinned = f" --revision {revision}" if revision else ""
    return (
        f"Where there is a network, run `hf download --repo-type dataset {source}{pinned} --local-dir DIR`, bring DIR "
        "here and set dataset.root=DIR"
    )
