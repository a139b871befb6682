"""What long loops say of themselves: a line a minute in a log, bars on a terminal, and short ones nothing."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from src.calib.capture import capture
from src.calib.statistics import measure
from src.data.inventory import inspected
from src.data.utterance import Utterance
from src.decoding.transcribe import transcribe_corpus
from src.machine import progress as module
from src.machine.progress import Bars, Lines, Reporter, duration
from src.profiling.latency import measure as latency
from src.reporting.folder import Limits, write_report
from src.reporting.tables import Layout
from src.scoring.bootstrap import resampled_rates
from src.scoring.wer import score
from src.text.normalizers import ENGLISH_RULES
from tests.composed import composed
from tests.data.clips import tone
from tests.export.exporting import export, opened
from tests.quant.quantized import quantized
from tests.reporting.recorded import points, record, worst_row, write, write_worst
from tests.tiny import tiny_whisper


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
    clock = Clock()
    monkeypatch.setattr(module._REPORTER, "_clock", clock)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO):
        for _ in module.progress(range(2), "evaluate"):
            clock.now += 70
    assert caplog.messages == ["evaluate: 1 / 2, 51.4 an hour, 1 min left", "evaluate: 2 / 2, 51.4 an hour, 0 s left"]


def test_a_command_without_a_log_says_the_lines_on_the_error_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(module._REPORTER, "_clock", clock)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for _ in module.progress(range(2), "report, records"):
        clock.now += 70
    assert capsys.readouterr().err.splitlines() == [
        "report, records: 1 / 2, 51.4 an hour, 1 min left",
        "report, records: 2 / 2, 51.4 an hour, 0 s left",
    ]


LOOPS = {  # what is said of each method's work, beside the blocks
    "gptq": [r"model\.\w+\.layers\.0: 8 / \d+"],
    "awq": ["search: 1 / "],
    "awq_module": ["search, blocks: 1 / ", r"layers\.0[.\w]*: 1 / 20"],
    "osplus": ["search, blocks: 1 / "],
    "omniquant": ["passes: 1 / 2", "steps: 1 / "],
    "tesseraq": ["hardening: 1 / ", "steps: 1 / 2"],
    "autoround": ["steps: 1 / 2"],
    "distill": ["distill, passes: 1 / 2", "steps: 1 / 2"],
    "flatquant": ["steps: 1 / 3"],
    "spinquant": ["learn rotations: 1 / 2", "loss: 1 / 5"],
    "myqasr": ["sensitivity: 1 / 3"],
}
SHORT = {
    "omniquant": ["method.epochs=2", "bits=w4a8"],
    "osplus": ["method.steps=2", "bits=w4a8"],
    "tesseraq": ["method.steps=2", "method.thresholds=[0.5,0.1]"],
    "autoround": ["method.steps=2"],
    "distill": ["method.epochs=2", "method.copies=0"],
    "flatquant": ["method.epochs=1"],
    "spinquant": ["method.iterations=2"],
}


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """A log, and a clock by which everything takes a minute."""
    minutes = count(0, 60)
    monkeypatch.setattr(module._REPORTER, "_clock", lambda: float(next(minutes)))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize("method", LOOPS)
def test_quantizing_says_how_far_it_is(method: str, slow: pytest.LogCaptureFixture) -> None:
    speech = tiny_whisper(encoder_layers=1, decoder_layers=1)
    quantized(speech, composed(f"method={method}", *SHORT.get(method, [])))
    for loop in ["quantize, blocks: 1 / 2", *LOOPS[method]]:
        assert re.search(loop, slow.text), slow.text


def test_hearing_says_how_far_it_is(slow: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    speech = tiny_whisper()
    clips = [Utterance(str(seconds), "", 16_000 * seconds, tone(seconds, 440)) for seconds in (1, 1, 5)]
    calibration = capture(speech, clips, tmp_path / "calibration", batch_size=1, suppress=True)
    measure(speech, calibration, gram=False)
    transcribe_corpus(speech, clips, tmp_path / "clips", batch_size=1, suppress=True, kv_bits=16, label="probe")
    list(inspected(range(3), lambda row: clips[row].audio))
    latency(speech, seconds=0.5, tokens=1, repeats=2, seed=0)
    for loop in (
        "calibrate, batches: 1 / 3",
        "statistics, blocks: 1 / 4",
        "probe, batches: 1 / 3",
        "segments: 1 / 3",
        r"inspect, \d+ clips at a time: 1 / ",
        "reference utterance: 1 / 4",
    ):
        assert re.search(loop, slow.text), slow.text


def test_scoring_and_reports_say_how_far_they_are(slow: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    scores = score(["a b", "c d"], ["a", "c d"], ENGLISH_RULES)
    resampled_rates([scores.utterance_errors], scores.utterance_words, 100, 0)
    point = record("rtn", "clean", 2.0)
    write(tmp_path, point)
    write_worst(tmp_path, point, worst_row("a", "A cat!", "a bat", "A cat."))
    write_report(tmp_path, tmp_path / "report", points(tmp_path), [], Layout("method", "bits"), Limits(3, 1, 1))
    for loop in (
        "score, texts: 1 / 4",
        "bootstrap, 100 resamples at a time: 1 / 1",
        "report, records: 1 / 1",
        "report, transcripts: 1 / 1",
        "report, clips: 1 / 1",
        "report, plots of a model and test set: 1 / 1",
    ):
        assert re.search(loop, slow.text), slow.text


@pytest.mark.parametrize("runtime", ["onnx", "compressed_tensors", "ggml"])
def test_exporting_says_how_far_it_is(runtime: str, slow: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    asked = ("model=sandbox_whisper", "method=rtn", "wbits=4", "group_size=32", "symmetric=true")
    export(opened(tmp_path, *asked, f"export={runtime}"))
    loop = r"export, (encoder|decoder) blocks: 2 / " if runtime == "onnx" else r"export, weights: 2 / "
    assert re.search(loop, slow.text), slow.text
