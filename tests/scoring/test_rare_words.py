"""The error rate of rare words, and that one declaration of a metric brings it everywhere it is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from src.metrics import METRICS
from src.metrics.rare_words import RARE_WORDS, frequent_words
from src.records import Record
from src.report import main
from src.reporting.reading import read_records
from src.scoring.bootstrap import percentiles, resampled_rates
from src.scoring.mean import mean_scores
from src.scoring.rates import mean_rates
from src.scoring.wer import score
from src.terminal import console
from src.text.normalizers import ENGLISH_RULES, Rules
from src.tracking import keys
from tests.reporting.recorded import record, write

NAME, LOW, HIGH = RARE_WORDS.described


def test_the_list_is_as_the_rules_of_scoring_write_words() -> None:
    words = frequent_words()
    assert len(words) == 2000
    assert {"the", "color", "2"} <= words
    assert {word for word in words if ENGLISH_RULES.words(word) != [word]} == set()


def test_rare_reference_words_count_once_and_insertions_do_not() -> None:
    references = ["the zebra saw a giraffe", "it was good", "an Okapi"]
    hypotheses = ["the zebra saw giraffes", "it was walrus good", "an okapi"]  # one substituted; inserted; none
    errors, words = score(references, hypotheses, ENGLISH_RULES).rates[NAME]
    assert (errors.tolist(), words.tolist()) == ([1, 0, 0], [2, 0, 1])


def test_other_languages_and_sets_without_rare_words_have_none() -> None:
    assert score(["der Tapir"], ["der"], Rules.of("de")).rates.keys() == {"wer"}
    plain = score(["it was good"], ["it was"], ENGLISH_RULES)
    figures = mean_rates([plain.rates], [["a"]], 10, [0])
    assert {figures[name] for name in (NAME, LOW, HIGH)} == {None}
    assert figures["wer"] == pytest.approx(100 / 3)


def test_the_interval_is_of_the_resamples_of_the_wer() -> None:
    random = np.random.default_rng(0)
    words, labels = random.integers(1, 9, 40), [f"speaker {n % 8}" for n in range(40)]
    errors = random.integers(0, words + 1)
    figures = mean_rates([dict.fromkeys(("wer", NAME), (errors, words))], [labels], 500, [3])
    assert (figures[LOW], figures[HIGH]) == percentiles(resampled_rates([errors], words, 500, 3, labels)[0])
    assert (figures[LOW], figures[HIGH]) == (figures["wer_low"], figures["wer_high"])


def test_a_resample_without_rare_words_leaves_the_rate_without_interval() -> None:
    figures = mean_rates([{NAME: (np.array([1, 0]), np.array([2, 0]))}], [["a", "b"]], 50, [0])
    assert (figures[NAME], figures[LOW], figures[HIGH]) == (50.0, None, None)
    assert RARE_WORDS.interval_text(figures) == "50.00 (no interval)"


def test_a_composite_has_the_unweighted_mean() -> None:
    sets = [score(["a zebra", "an okapi"], [f"a {said}", "an okapi"], ENGLISH_RULES) for said in ("zebra", "horse")]
    labels = [["u1", "u2"]] * 2
    assert mean_scores(sets, sets, labels, 50, 0)[NAME] == 25.0


def test_a_declared_metric_reaches_wandb_console_tables_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {f"evaluate/{name}" for name in (NAME, LOW, HIGH)} <= keys.METRICS.keys()
    known = record("rtn", "clean", 12.0)
    known["results"]["evaluate"] |= {NAME: 7.25, LOW: 5.5, HIGH: 9.0}
    points = [known, record("gptq", "clean", 10.0)]  # one that has no such rate
    console.show([Record.of(each) for each in points])
    heading, _, gptq, rtn, *_ = (line.split() for line in capsys.readouterr().out.splitlines())
    assert "rare" in heading
    assert (rtn[-4], gptq[-4]) == ("7.25", "-")
    command = ["report", str(write(tmp_path, *points)), "--plots", "0", "--metric"]
    monkeypatch.setattr("sys.argv", [*command, NAME])
    main()
    table = capsys.readouterr().out
    assert "rare words, %" in table
    assert "**7.25 (5.5-9.0)**" in table
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert f'"{NAME}":7.25' in page
    assert json.dumps("Rare words, %") in page
    assert f"{NAME},{LOW},{HIGH}" in (tmp_path / "report" / "points.csv").read_text(encoding="utf-8")
    monkeypatch.setattr("sys.argv", [*command, "disk_bytes"])
    main()
    assert "**0.00**" in capsys.readouterr().out  # of 1000 bytes, in MB


def test_a_figure_that_is_no_number_is_a_damaged_record(tmp_path: Path) -> None:
    assert NAME in METRICS
    broken = record("rtn", "clean", 12.0)
    broken["results"]["evaluate"][NAME] = "many"
    records, notes = read_records(write(tmp_path, broken, record("gptq", "clean", 10.0)))
    assert [each.method for each in records] == ["gptq"]
    assert notes
