"""Processes that share a store, also where its file system cannot lock files, and where some of them are killed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from src.project import ROOT
from src.storage import locks, processes
from src.storage.integrity import damage
from src.storage.store import PROGRESS_SUFFIX, Entry, Store
from tests.commands import environment

KEY = {"model": "m"}

# Builds an entry (root as first argument) again and again and reads it; told to, it dies while it builds.
CHILD = """
import errno, fcntl, json, logging, os, signal, sys
from pathlib import Path

root, lacking, then = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
logging.basicConfig(level=logging.INFO, format="%(message)s")
if lacking:
    def flock(*_):
        raise OSError(getattr(errno, lacking), os.strerror(getattr(errno, lacking)))
    fcntl.flock = flock

from src.storage.store import Store, write_json

def build(folder):
    write_json(folder / "batches.progress", os.getpid())
    for _ in range(20):
        write_json(folder / "note.json", {"value": 1})
    if then == "die":
        print("dying", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

entry = Store(root).entry("stage", {"model": "m"})
print("ready", flush=True)
sys.stdin.readline()
for turn in range(4):
    folder = entry.obtain(build, anew=bool(turn % 2) or then == "die")
    assert json.loads((folder / "note.json").read_text()) == {"value": 1}
    assert entry.is_complete()
"""


def child(root: Path, lacking: str, then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), lacking, then],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("lacking", ["", "ENOLCK"])
def test_none_fails_of_many_that_build_the_same_while_others_are_killed(tmp_path: Path, lacking: str) -> None:
    jobs = [child(tmp_path, lacking, "live") for _ in range(3)] + [child(tmp_path, lacking, "die")]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
    told: list[str] = []
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("\n")
        job.stdin.flush()
    for job in jobs:
        told.append(job.communicate(timeout=60)[1])
    assert [job.returncode for job in jobs] == [0, 0, 0, -signal.SIGKILL], told
    entry = Store(tmp_path).entry("stage", KEY)
    assert damage(entry.path) is None
    for errors in told[:3]:
        assert errors.count("cannot lock files") == bool(lacking), errors


@pytest.mark.parametrize("lacking", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_marker_is_as_good_as_a_lock_and_is_told_once(
    tmp_path: Path, lacking: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    number = getattr(errno, lacking)

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_said", set())
    one, other = locks.Lock(tmp_path / "a.lock"), locks.Lock(tmp_path / "a.lock")
    with one.acquire():
        with pytest.raises(Timeout):
            other.acquire(timeout=0.1)
        assert f"process {os.getpid()}" in other.holder
    with other.acquire(timeout=0):
        pass
    (tmp_path / "a.held").write_text("1\nanother-machine\n")
    with pytest.raises(Timeout):
        one.acquire(timeout=0.1)
    assert "remove" in one.holder
    assert [os.strerror(number) in message for message in caplog.messages] == [True]


def test_no_process_builds_where_another_does_and_the_next_goes_on_from_the_dead(tmp_path: Path) -> None:
    entry = Store(tmp_path).entry("stage", KEY)
    dead = subprocess.run(
        [sys.executable, "-c", "from src.storage import processes; print(processes.own_name())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    alive = (
        f"{processes.own_name().partition('-')[0]}-1-{Path('/proc/1/stat').read_text().rpartition(')')[2].split()[19]}"
    )
    for owner in (alive, dead):
        folder = entry.path.with_name(f"{entry.fingerprint}.{owner}.partial")
        folder.mkdir(parents=True)
        (folder / f"batches{PROGRESS_SUFFIX}").write_text(owner)
    assert processes.runs(alive) is True
    assert processes.runs(dead) is False
    assert processes.runs(f"{alive}0") is False, "another process has got its number"
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert processes.ended(zombie.pid)
    zombie.wait()
    assert processes.runs(f"another-{os.getpid()}-1") is None

    def build(folder: Path) -> None:
        assert (folder / f"batches{PROGRESS_SUFFIX}").read_text() == dead

    entry.obtain(build)
    left = [path for path in entry.path.parent.iterdir() if path.suffix == ".partial"]
    assert [path.name.partition(".")[2] for path in left] == [f"{alive}.partial"]


@pytest.mark.parametrize("swap", ["folders", "stages"])
def test_an_entry_under_the_name_of_another_is_damaged(tmp_path: Path, swap: str) -> None:
    one, other = (Store(tmp_path).entry("stage", {"bits": bits}) for bits in (3, 4))
    for entry in (one, other):
        entry.obtain(lambda folder: (folder / "a").write_text("a") and None)
    one.path.rename(tmp_path / "aside")
    if swap == "folders":
        other.path.rename(one.path)
        (tmp_path / "aside").rename(other.path)
    else:
        (tmp_path / "another").mkdir()
        one = Entry(tmp_path, "another", {"bits": 5})
        (tmp_path / "aside").rename(one.path)
    assert damage(one.path) == "key.json is of another entry"
    assert not one.is_complete()


def test_a_file_is_read_once_and_a_change_of_it_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from src.storage import digest

    entry = Store(tmp_path).entry("stage", KEY)
    entry.obtain(lambda folder: (folder / "model").write_bytes(bytes(1000)) and None)
    read: list[str] = []
    whole = digest.sha256_file
    monkeypatch.setattr(digest, "_TICK", 0)
    monkeypatch.setattr(digest, "sha256_file", lambda path: read.append(path.name) or whole(path))
    for _ in range(4):
        assert entry.is_complete()
    assert read.count("model") <= 1
    file = entry.path / "model"
    before = file.stat()
    file.write_bytes(bytes(999) + b"\1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same size, and as old
    assert damage(entry.path) == "checksum of model differs"
