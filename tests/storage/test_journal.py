"""Resume files: what was written is read, and nothing else, whatever happened to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from src.storage.digest import source as source_digest
from src.storage.journal import Journal, program, values

BASIS = {"batch_size": 16, "clips": "0123456789abcdef0123456789abcdef"}
VALUES: list[Any] = [{"batch": 0, "said": "naïve\n\u2028"}, [1, 2.5, None], "three", {"seconds": 1e-9}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of :data:`VALUES`."""
    file = tmp_path / "batches.progress"
    journal = Journal(file, BASIS)
    for value in VALUES:
        journal.append(value)
    return file


def opened(path: Path) -> list[Any]:
    return Journal(path, BASIS).values


def test_what_was_written_is_read_and_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(path, BASIS)
    assert journal.values == values(path) == VALUES
    journal.append("more")
    assert opened(path) == [*VALUES, "more"]
    assert not caplog.text


@pytest.mark.parametrize("line", range(5))
@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_line_that_a_kill_cut_short_is_dropped_in_silence(
    path: Path, line: int, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    """``cut`` bytes of it are left, or all but its line feed (-1)."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line]) + lines[line][:cut])
    kept = VALUES[: max(line - 1, 0)]
    assert values(path) == kept
    journal = Journal(path, BASIS)
    assert journal.values == kept
    journal.append("again")
    assert opened(path) == [*kept, "again"]
    assert not caplog.text


@pytest.mark.parametrize("line", range(5))
@pytest.mark.parametrize("damage", ["letter", "checksum", "zeros", "twice", "away", "feed", "foreign"])
def test_what_does_not_fit_is_dropped_with_all_that_follows_and_said_once(
    path: Path, line: int, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    own = lines[line]
    other = {
        "letter": own.replace(b"e", b"a", 1) if b"e" in own[33:] else own[:-2] + b" \n",
        "checksum": b"0" * 32 + own[32:],
        "zeros": bytes(len(own) - 1) + b"\n",
        "twice": own + own,
        "away": b"",
        "feed": own.replace(b"\n", b"\r\n"),
        "foreign": b'{"batch": 0}\n',
    }[damage]
    path.write_bytes(b"".join([*lines[:line], other, *lines[line + 1 :]]))
    kept = VALUES[: max(line - (damage != "twice"), 0)]
    if damage == "away" and line == 4:  # the file is as if the last value had never been written
        assert opened(path) == kept
        return
    assert opened(path) == kept
    assert len(caplog.messages) == 1
    assert str(path) in caplog.text
    caplog.clear()
    assert opened(path) == kept
    assert not caplog.text


def test_lines_in_another_order_are_not_taken_up(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1], lines[3], lines[2], lines[4]]))
    assert opened(path) == VALUES[:1]


def test_lines_of_another_journal_are_not_taken_up(path: Path, tmp_path: Path) -> None:
    other = Journal(tmp_path / "other", {**BASIS, "batch_size": 8})
    other.append(VALUES[0])
    foreign = (tmp_path / "other").read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0] + foreign)
    assert opened(path) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batch_size": 4}, "other batch_size (16, now 4): nothing of it is used"),
        ({"clips": "another digest of thirty-two digits"}, "other clips: "),
        ({"seed": 1}, "other seed: "),
        ({"batch_size": 4, "seed": 1}, "other batch_size (16, now 4), seed: "),
    ],
)
def test_a_journal_of_another_basis_is_begun_anew_and_the_log_says_what_differs(
    path: Path, changed: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(path, {**BASIS, **changed})
    assert journal.values == []
    assert words in caplog.text
    journal.append("new")
    assert Journal(path, {**BASIS, **changed}).values == ["new"]


def test_a_journal_of_other_code_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    then = program()
    Journal(tmp_path / "file", then).append("old")
    source = tmp_path / "src" / "a.py"
    source.parent.mkdir()
    source.write_text("pass")
    monkeypatch.setattr("src.storage.digest.ROOT", tmp_path)
    for remembered in (source_digest, program):
        remembered.cache_clear()
    now = {**program(), "torch": "1.0"}
    for remembered in (source_digest, program):
        remembered.cache_clear()
    assert Journal(tmp_path / "file", now).values == []
    assert "other code, torch (" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 600, b"\xff\xfe\n\n", b'[[1, 2]]\n{"batch": 1}\n'])
def test_nothing_wedges_a_journal(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    Journal(path, BASIS).append("new")
    assert opened(path) == ["new"]


def test_what_is_no_file_is_replaced(path: Path, tmp_path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()
    assert opened(path) == []
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert opened(link) == []


def test_keeping_the_first_values_drops_the_others(path: Path) -> None:
    journal = Journal(path, BASIS)
    journal.keep(1)
    journal.append("new")
    assert journal.values == opened(path) == [VALUES[0], "new"]
