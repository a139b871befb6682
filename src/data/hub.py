"""A corpus on the Hugging Face hub, through ``datasets`` and its cache."""

from __future__ import annotations

from src.data.arrow import ArrowRows
from src.errors import UserError


def download(source: str, revision: str | None, config: str | None, split: str | None) -> ArrowRows:
    """The rows of a split on the hub, downloaded on the first use.

    Raises:
        UserError: there is no network, or no such set, revision, config or split.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        return ArrowRows(load_dataset(source, config, split=split, revision=revision))
    except ConnectionError as error:
        problem = f"{source} ({config}) is not on this machine and the hub cannot be reached ({error})"
        raise UserError("dataset.source", problem, _remedy(source, revision)) from error
    except DatasetNotFoundError as error:
        problem = f"{source!r} is no folder here, and the hub has no such data set and revision to read ({error})"
        remedy = "Check dataset.source and dataset.revision (null is the newest); log in where access is restricted"
        raise UserError("dataset.source", problem, remedy) from error
    except ValueError as error:
        problem = f"{source} has no config {config!r} with split {split!r} ({error})"
        raise UserError("dataset.config", problem, f"See https://huggingface.co/datasets/{source}") from error


def _remedy(source: str, revision: str | None) -> str:
    pinned = f" --revision {revision}" if revision else ""
    return (
        f"Where there is a network, run `hf download --repo-type dataset {source}{pinned} --local-dir DIR`, bring DIR "
        "here and set dataset.root=DIR"
    )
