"""Records and the transcripts behind them as one compressed file, to publish beside the tables made of them.

A tar file compressed by xz, which finds what records have in common (settings, distributions of the same weights): some
5 kB a record with its transcripts. Of the cache it holds what a report and a comparison read, not models nor audio.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from src.errors import UserError
from src.records import Record
from src.storage.store import write_bytes

SUFFIX: Final = ".tar.xz"
_PRESET: Final = 9 | lzma.PRESET_EXTREME


@contextmanager
def opened(outputs: Path) -> Iterator[Path]:
    """The folder itself; of an archive, a temporary folder with what it holds.

    Raises:
        UserError: the archive is damaged, or holds what no archive of records does.
    """
    if not outputs.name.endswith(SUFFIX) or outputs.is_dir():
        yield outputs
        return
    with tempfile.TemporaryDirectory(prefix="edge-asr-") as folder:
        inside = Path(folder) / outputs.name.removesuffix(SUFFIX)  # which the page is named after
        _unpack(outputs, inside)
        yield inside


def _unpack(archive: Path, folder: Path) -> None:
    """Writes what an archive holds below ``folder``.

    Raises:
        UserError: it is absent or damaged, or names files elsewhere.
    """
    try:
        with tarfile.open(archive, "r:xz") as tar:
            for member in tar:
                _write(tar, member, folder)
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        problem = f"{archive} is no whole archive of records ({error})"
        raise UserError("outputs", problem, f"Name one that --pack made, ending in {SUFFIX}, or a folder") from None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """One file below ``folder``; archives hold nothing else. Raises TarError."""
    parts, content = Path(member.name).parts, tar.extractfile(member) if member.isreg() else None
    if content is None or not parts or ".." in parts or Path(member.name).is_absolute():
        raise tarfile.TarError(f"{member.name!r} is no file below it")
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.read())


def pack(output_dir: Path, records: Sequence[Record], chosen: Collection[str], archive: Path) -> int:
    """Adds records with what reports and comparisons read of them; replaces those of the same fingerprints.

    A chosen mean brings its members along, and all members of a mean bring the mean. The same files make the same
    archive, byte for byte.

    Args:
        output_dir: where they are.
        records: all that are there.
        chosen: fingerprints of those to be added.
        archive: the file, which may be there.

    Returns:
        The number of records in the archive.

    Raises:
        UserError: what is there already is no archive.
    """
    if not archive.name.endswith(SUFFIX):
        raise UserError("--pack", f"{archive.name!r} does not end in {SUFFIX}", f"Write e.g. records{SUFFIX}")
    with tempfile.TemporaryDirectory(prefix="edge-asr-") as folder:
        if archive.exists():
            _unpack(archive, Path(folder))
        for file in _files(output_dir, _complete(records, chosen)):
            target = Path(folder) / file.relative_to(output_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        write_bytes(archive, lzma.compress(_tar(Path(folder), files), preset=_PRESET))
        return sum(path.parent.name == "records" for path in files)


def _complete(records: Sequence[Record], chosen: Collection[str]) -> list[Record]:
    members = {record.fingerprint: {member.fingerprint for member in record.members} for record in records}
    means = {each for each, own in members.items() if own and (each in chosen or own <= set(chosen))}
    wanted = {*chosen, *means, *(member for each in means for member in members[each])}
    return [record for record in records if record.fingerprint in wanted]


def _files(output_dir: Path, records: Sequence[Record]) -> Iterable[Path]:
    cache = output_dir / "cache"
    for record in records:
        yield output_dir / "records" / f"{record.fingerprint}.json"
        if record.transcripts is not None:
            yield from sorted((cache / "transcripts" / record.transcripts).glob("*"))
        if (name := record.entries.get("evaluate")) is not None:
            yield from sorted((cache / "evaluate" / name).glob("*"))


def _tar(folder: Path, files: Iterable[Path]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in files:
            content = path.read_bytes()
            member = tarfile.TarInfo(str(path.relative_to(folder)))  # of no time and nobody
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()
