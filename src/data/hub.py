"""A corpus on the Hugging Face hub, through ``datasets`` and its cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.data.rows import check_columns
from src.errors import UserError


class HubRows:
    """The rows of a split on the hub (:class:`src.data.rows.Rows`); downloads it on the first use."""

    def __init__(self, source: str, revision: str | None, config: str, split: str) -> None:
        """Raises a :class:`UserError` where there is no network, or no such set, config, split or column."""
        self._table = _download(source, revision, config, split)
        check_columns(self._table.column_names, f"{source} ({config}, {split})")
        self._table = _undecoded(self._table)

    def strings(self, column: str) -> list[str]:
        """The values of a text column."""
        return ["" if value is None else str(value) for value in self._table.select_columns([column])[column][:]]

    def audio(self, wanted: Sequence[int]) -> dict[int, bytes | None]:
        """Encoded audio by row."""
        picked = self._table.select_columns(["audio"]).select(wanted)
        return {row: clip["audio"]["bytes"] for row, clip in zip(wanted, picked, strict=True)}


def _download(source: str, revision: str | None, config: str, split: str) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        return load_dataset(source, config, split=split, revision=revision)
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


def _undecoded(table: Any) -> Any:
    """The table with its audio left as bytes."""
    from datasets import Audio

    return table.cast_column("audio", Audio(decode=False))


def _remedy(source: str, revision: str | None) -> str:
    pinned = f" --revision {revision}" if revision else ""
    return (
        f"Where there is a network, run `hf download --repo-type dataset {source}{pinned} --local-dir DIR`, bring DIR "
        "here and set dataset.root=DIR"
    )
