"""What long loops say of themselves: a line a minute in a log, bars on a terminal, and short ones nothing."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence

import pytest
from rich.console import Console

from src.progress import Bars, Lines, Reporter, duration


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def reporter(clock: Clock, said: list[str]) -> Reporter:
    return Reporter(clock, lambda start: Lines(start, said.append))


def spend(reporter: Reporter, clock: Clock, items: Sequence[object], seconds: float, before: int = 0) -> None:
    """A loop with so many seconds an item."""
    for _ in reporter.loop(items, "evaluate", before=before):
        clock.now += seconds


def test_a_long_loop_says_how_far_it_is_once_a_minute(reporter: Reporter, clock: Clock, said: list[str]) -> None:
    spend(reporter, clock, range(400), 0.5)
    assert said == [
        "evaluate: 120 / 400, 2 a second, 2 min left",
        "evaluate: 240 / 400, 2 a second, 1 min left",
        "evaluate: 360 / 400, 2 a second, 20 s left",
    ]


def test_items_that_take_longer_are_told_of_one_by_one(reporter: Reporter, clock: Clock, said: list[str]) -> None:
    spend(reporter, clock, range(3), 90)
    assert said == [
        "evaluate: 1 / 3, 40 an hour, 3 min left",
        "evaluate: 2 / 3, 40 an hour, 2 min left",
        "evaluate: 3 / 3, 40 an hour, 0 s left",
    ]


def test_short_loops_say_nothing_however_many(reporter: Reporter, clock: Clock, said: list[str]) -> None:
    for _ in range(10):
        spend(reporter, clock, range(59), 1)
    assert said == []


def test_what_an_earlier_run_did_counts_as_done_but_not_as_fast(
    reporter: Reporter, clock: Clock, said: list[str]
) -> None:
    spend(reporter, clock, range(4), 30, before=96)
    assert said == ["evaluate: 98 / 100, 2 a minute, 1 min left", "evaluate: 100 / 100, 2 a minute, 0 s left"]


def test_loops_inside_each_other_share_the_line(reporter: Reporter, clock: Clock, said: list[str]) -> None:
    for _ in reporter.loop("ab", "blocks"):
        spend(reporter, clock, range(100), 0.7)
    assert said == [
        "blocks: 0 / 2; evaluate: 86 / 100, 1.43 a second, 10 s left",
        "blocks: 1 / 2, 51.4 an hour, 20 s left; evaluate: 72 / 100, 1.43 a second, 20 s left",
    ]


def test_a_loop_that_was_left_is_forgotten(reporter: Reporter, clock: Clock, said: list[str]) -> None:
    def fails() -> None:
        for _ in reporter.loop(range(10), "lost"):
            raise ValueError("in the loop")

    with pytest.raises(ValueError, match="in the loop"):
        fails()
    for _ in reporter.loop(range(10), "left"):
        break
    spend(reporter, clock, range(2), 40)
    assert [line.partition(":")[0] for line in said] == ["evaluate"]


def test_work_that_is_no_sequence(reporter: Reporter, clock: Clock, said: list[str]) -> None:
    with reporter.work("windows", 7.5) as done:
        clock.now += 60
        done(2.5)
    assert said == ["windows: 2 / 8, 2.5 a minute, 2 min left"]


def test_a_terminal_has_a_bar_with_rate_and_time_left(clock: Clock) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    reporter = Reporter(clock, lambda _: Bars(console))
    spend(reporter, clock, range(2), 0.4)
    assert screen.getvalue() == ""
    spend(reporter, clock, range(4), 30)
    assert "evaluate" in screen.getvalue()
    assert "1 / 4, 2 a minute, 2 min left" in screen.getvalue()
    assert screen.getvalue().count("\x1b[?25l") == screen.getvalue().count("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (60, "1 min"), (3599, "1 h 00 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_log_of_a_job_gets_the_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from src import progress as module

    clock = Clock()
    monkeypatch.setattr(module._REPORTER, "_clock", clock)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        for _ in module.progress(range(2), "evaluate"):
            clock.now += 70
    assert caplog.messages == ["evaluate: 1 / 2, 51.4 an hour, 1 min left", "evaluate: 2 / 2, 51.4 an hour, 0 s left"]
