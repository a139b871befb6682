"""The store: built once, never half-written, damage noticed and mended, shared by processes."""

from __future__ import annotations

import logging
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.errors import UserError, unwritable
from src.project import ROOT
from src.storage.integrity import KEY, MANIFEST
from src.storage.store import PROGRESS_SUFFIX, Entry, Store, fingerprint, open_store, write_json

SETTINGS = {"model": "m", "bits": 4}
PROGRESS = f"batches{PROGRESS_SUFFIX}"
WAITING = "waiting for another process"

# Builds the entry (root as first argument): notes the attempt, writes one progress file, then does what it is told to.
CHILD = """
import logging, os, signal, sys, time
from pathlib import Path
from src.storage.store import Store

root, then = Path(sys.argv[1]), sys.argv[2]
logging.basicConfig(level=logging.INFO, format="%(message)s")

def build(folder):
    with (root / "attempts").open("a") as file:
        file.write("x")
    (folder / "batches.progress").write_text("first half")
    (folder / "half.bin").write_bytes(b"half a file")
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("building", flush=True)
    time.sleep(0.7)
    (folder / "half.bin").write_bytes(b"a whole file")

print(Store(root).entry("stage", {"model": "m", "bits": 4}).obtain(build))
"""


def child(root: Path, then: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(root), then]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    return Store(tmp_path).entry("stage", SETTINGS)


def write_two(folder: Path) -> None:
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "deep").mkdir()
    (folder / "deep" / "b.txt").write_text("text")


def refuse(_: Path) -> None:
    raise AssertionError("built again")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_entry_is_built_once(entry: Entry) -> None:
    assert not entry.is_complete()
    path = entry.obtain(write_two)
    assert entry.obtain(refuse) == path == entry.path
    assert set(content(path)) == {"a.bin", "deep/b.txt", KEY, MANIFEST}


def test_an_entry_is_built_anew_on_request(entry: Entry) -> None:
    def write_another(folder: Path) -> None:
        (folder / "c.bin").write_bytes(b"c")

    entry.obtain(write_two)
    assert entry.obtain(write_another) == entry.path
    assert not (entry.path / "c.bin").exists()
    assert entry.obtain(write_another, anew=True) == entry.path
    assert {path.name for path in entry.path.iterdir()} == {"c.bin", KEY, MANIFEST}
    assert entry.is_complete()


def test_other_settings_are_another_entry(entry: Entry) -> None:
    entry.obtain(write_two)
    assert not Store(entry.root).entry("stage", {**SETTINGS, "bits": 3}).is_complete()
    assert not Store(entry.root).entry("another", SETTINGS).is_complete()


def test_a_killed_build_leaves_nothing_to_read_but_its_progress(entry: Entry) -> None:
    killed = child(entry.root, "die")
    killed.communicate(timeout=30)
    assert killed.returncode == -signal.SIGKILL
    assert not entry.path.exists()
    found: list[set[str]] = []

    def resume(folder: Path) -> None:
        found.append({path.name for path in folder.iterdir()})
        assert (folder / PROGRESS).read_text() == "first half"
        write_two(folder)

    assert set(content(entry.obtain(resume))) == {"a.bin", "deep/b.txt", KEY, MANIFEST}
    assert found == [{PROGRESS}]


def test_a_build_that_raises_leaves_no_entry_and_no_files_in_the_next(entry: Entry) -> None:
    def fail(folder: Path) -> None:
        (folder / "wrong.bin").write_bytes(b"wrong")
        (folder / "a.bin").mkdir()
        (folder / PROGRESS).write_text("begun")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        entry.obtain(fail)
    assert not entry.is_complete()
    assert set(content(entry.obtain(write_two))) == {"a.bin", "deep/b.txt", KEY, MANIFEST}


def flip(path: Path) -> None:
    data = bytearray((path / "a.bin").read_bytes())
    data[100] ^= 1
    (path / "a.bin").write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda path: (path / "a.bin").write_bytes(bytes(range(255))), "checksum of a.bin differs"),
    "flipped bit": (flip, "checksum of a.bin differs"),
    "missing file": (lambda path: (path / "deep" / "b.txt").unlink(), "b.txt is missing"),
    "changed key": (lambda path: (path / KEY).write_text("{}"), f"checksum of {KEY} differs"),
    "missing manifest": (lambda path: (path / MANIFEST).unlink(), f"{MANIFEST} is missing"),
    "cut manifest": (lambda path: (path / MANIFEST).write_text('{"a.bin": "0'), "unreadable"),
    "binary manifest": (lambda path: (path / MANIFEST).write_bytes(b"\xff\xfe\x00"), "unreadable"),
    "empty manifest": (lambda path: (path / MANIFEST).write_text("{}"), f"{MANIFEST} does not list {KEY}"),
    "manifest of numbers": (lambda path: (path / MANIFEST).write_text("3"), "unreadable"),
    "manifest of words": (lambda path: (path / MANIFEST).write_text(f'["{KEY}"]'), "unreadable"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_and_rebuilt_to_the_same_bytes(
    entry: Entry, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, told = DAMAGE[name]
    before = content(entry.obtain(write_two))
    spoil(entry.path)
    with caplog.at_level(logging.WARNING):
        entry.obtain(write_two)
    [message] = [record.getMessage() for record in caplog.records]
    assert told in message
    assert str(entry.path) in message
    assert content(entry.path) == before
    assert entry.obtain(refuse) == entry.path


def test_two_processes_build_an_entry_once(entry: Entry) -> None:
    first = child(entry.root, "finish")
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = child(entry.root, "finish")
    told = [process.communicate(timeout=30) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], told
    assert [out.strip() for out, _ in told] == [str(entry.path)] * 2
    assert WAITING in told[1][1]
    assert (entry.root / "attempts").read_text() == "x"
    assert (entry.path / "half.bin").read_bytes() == b"a whole file"
    assert entry.is_complete()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=5))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(key: dict[str, object]) -> None:
    assert fingerprint(dict(reversed(key.items()))) == fingerprint(key)
    assert len(fingerprint(key)) == 16


@pytest.mark.parametrize("value", [3, 16, "4", None, True, [4], {"a": 4}, 4.5])
def test_a_fingerprint_changes_with_any_value(value: object) -> None:
    nested = {"outer": {"bits": value, "model": "m"}}
    assert fingerprint({**SETTINGS, "bits": value}) != fingerprint(SETTINGS)
    assert fingerprint(nested) != fingerprint({"outer": SETTINGS})


def test_an_output_dir_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written") as caught:
        open_store(tmp_path / "file" / "below")
    assert caught.value.field == "output_dir"
    assert "file/below" in caught.value.problem
    assert "output_dir=" in caught.value.remedy


def test_an_output_dir_whose_files_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a" * 200] * 19)
    with pytest.raises(UserError, match="Choose one of at most"):
        open_store(folder / ("b" * 80))


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can be longer than so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_with_its_folder_and_leaves_no_space_taken(entry: Entry) -> None:
    def build(folder: Path) -> None:
        (folder / PROGRESS).write_text("begun")
        (folder / "first.bin").write_bytes(bytes(900))
        (folder / "second.bin").write_bytes(bytes(2000))

    with full_disk(1000), pytest.raises(OSError, match="too large") as caught:
        entry.obtain(build)
    told = unwritable(caught.value, "elsewhere")
    assert told is not None
    assert "the disk of" in told.problem
    assert entry.fingerprint in told.problem
    [left] = [path for path in entry.path.parent.iterdir() if path.is_dir()]
    assert [path.name for path in left.iterdir()] == [PROGRESS]
    entry.obtain(build)
    assert set(content(entry.path)) == {"first.bin", "second.bin", KEY, MANIFEST}


def test_opening_a_store_leaves_an_empty_folder(tmp_path: Path) -> None:
    store = open_store(tmp_path / "new" / "folder")
    assert list(store.root.iterdir()) == []


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "record.json"
    write_json(path, {"b": 1, "a": "é"})
    first = path.read_text(encoding="utf-8")
    write_json(path, {"a": "é", "b": 1})
    assert path.read_text(encoding="utf-8") == first == '{\n  "a": "é",\n  "b": 1\n}\n'
    with pytest.raises(UnicodeEncodeError):
        write_json(path, {"a": "\ud800"})  # half a surrogate pair cannot be encoded
    assert path.read_text(encoding="utf-8") == first
    assert [item.name for item in path.parent.iterdir()] == ["record.json"]
