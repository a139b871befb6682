"""Settings of data sets, as a dataset yaml would give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from src.settings import DatasetSettings


def dataset(folder: Path | str | None, **changes: Any) -> DatasetSettings:
    """A set in the hub's layout, config own and split test; ``source=None`` makes it a user's own."""
    fields: dict[str, Any] = {"name": "own", "source": "nobody/nothing", "revision": None, "config": "own"}
    fields |= {"split": "test", "root": None if folder is None else str(folder), "limit": None}
    fields |= {"columns": {"id": "id", "text": "text", "audio": "audio", "speaker": None, "session": None}}
    fields |= {"speaker_pattern": None, "max_seconds": None}
    columns = {**fields["columns"], **changes.pop("columns", {})}
    return DatasetSettings.model_validate({**fields, **changes, "columns": columns})


def local(root: Path | str, **changes: Any) -> DatasetSettings:
    """What ``dataset=local dataset.root=...`` composes."""
    own = {
        "source": None,
        "config": None,
        "split": None,
        "columns": {"speaker": "speaker", "session": "session", "split": "split"},
    }
    return dataset(root, **{**own, **changes})
