"""A user's own data: what lies at ``dataset.root`` and how it is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from src.data.arrow import ArrowRows
from src.data.folder import Layout
from src.data.manifest import FIELD, SUFFIXES, ManifestRows, manifests
from src.data.parquet import ParquetRows, open_parquet
from src.data.rows import Rows
from src.errors import UserError, did_you_mean
from src.settings import DatasetSettings

_FORMS = (
    "Name a manifest (.jsonl or .csv with audio and text), parquet, a folder with one of these, or a folder that "
    "save_to_disk wrote"
)
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"  # marks of a data set and of several splits on disk


def local_files(settings: DatasetSettings, root: Path) -> list[Path]:
    """The files that hold the corpus: a manifest, parquet files, or all that ``save_to_disk`` wrote.

    Raises:
        UserError: nothing there is a corpus, or more than one thing is.
    """
    if root.is_file():
        if root.suffix not in (*SUFFIXES, ".parquet"):
            raise UserError(FIELD, f"{root} is neither .jsonl, .csv nor .parquet", _FORMS)
        return [root]
    saved = _saved(settings, root)
    if saved is not None:
        return sorted(path for path in saved.iterdir() if path.suffix in (".arrow", ".json"))
    lists = list(manifests(root))
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise UserError(FIELD, f"{root} has several manifests ({names})", f"Name one: dataset.root={lists[0]}")
    return lists or _parquet_files(settings, root)


def local_rows(settings: DatasetSettings, root: Path) -> Rows:
    """The rows of :func:`local_files`. Raises UserError where they cannot be read."""
    files = local_files(settings, root)
    audio = settings.columns.audio
    if files[0].suffix in SUFFIXES:
        return ManifestRows(files[0], audio)
    if files[0].suffix != ".parquet":
        return _load_from_disk(files[0].parent)
    if len(files) == 1 and _names_files(files[0], audio):
        return ManifestRows(files[0], audio)
    return ParquetRows(files)


def _parquet_files(settings: DatasetSettings, root: Path) -> list[Path]:
    files = sorted(root.glob("*.parquet"))
    if files:
        return files
    layout = Layout(root)
    if not layout.patterns:
        raise UserError(FIELD, f"{root} has no manifest, no parquet file and no saved data set", _FORMS)
    if settings.config is None or settings.split is None:
        remedy = "Say which with dataset.config=NAME dataset.split=NAME"
        raise UserError("dataset.config", f"{root} has the configs {', '.join(sorted(layout.patterns))}", remedy)
    return layout.files(settings.config, settings.split)


def _names_files(path: Path, audio: str) -> bool:
    """Whether a parquet file's audio column has paths instead of sound."""
    schema = open_parquet(path).schema_arrow
    return audio in schema.names and (
        pa.types.is_string(schema.field(audio).type) or pa.types.is_large_string(schema.field(audio).type)
    )


def _saved(settings: DatasetSettings, root: Path) -> Path | None:
    """The folder of one split below a folder of ``save_to_disk``; None where it is something else."""
    if (root / _SAVED).is_file():
        return root
    if not (root / _SAVED_SPLITS).is_file():
        return None
    splits = sorted(path.parent.name for path in root.glob(f"*/{_SAVED}"))
    if settings.split in splits:
        return root / str(settings.split)
    problem = f"{root} has no split {settings.split!r}" if settings.split else f"{root} has several splits"
    raise UserError("dataset.split", problem, did_you_mean(str(settings.split), splits))


def _load_from_disk(folder: Path) -> ArrowRows:
    from datasets import load_from_disk

    try:
        return ArrowRows(load_from_disk(str(folder)))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
        raise UserError(
            FIELD, f"{folder} is no data set on disk that can be read ({error})", "Save it again"
        ) from error
