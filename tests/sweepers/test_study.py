"""A search's study outlives the process that wrote it, and is one process's at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from src.errors import UserError
from src.sweepers.space import Space
from src.sweepers.study import SAMPLERS, alone, known, open_study, point_of

SPACE = Space({"wbits": ["2", "3", "4", "8"], "method": ["rtn", "gptq"]}, {})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_was_found_is_known_and_what_was_interrupted_comes_first(tmp_path: Path, sampler: str) -> None:
    study = open_study(tmp_path / "a.journal", ["wer", "disk_bytes"], sampler, seed=0, batch=2)
    done, running = study.ask(), study.ask()
    points = [SPACE.suggest(trial) for trial in (done, running)]
    study.tell(done, (5.0, 100.0))

    later = open_study(tmp_path / "a.journal", ["wer", "disk_bytes"], sampler, seed=0, batch=2)
    assert known(later) == {point_of(points[0]): (5.0, 100.0)}
    assert SPACE.suggest(later.ask()) == points[1]
    for _ in range(6):  # the sampler itself proposes
        trial = later.ask()
        SPACE.suggest(trial)
        later.tell(trial, (1.0, 2.0))


@pytest.mark.parametrize("damage", ["edited", "foreign"])
def test_figures_that_were_tampered_with_are_not_known(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.journal"
    study = open_study(file, ["wer"], "random", seed=0, batch=2)
    for figure in (5.0, 7.0):
        trial = study.ask()
        SPACE.suggest(trial)
        study.tell(trial, figure)
    content = file.read_bytes()
    assert content.count(b"[7.0]") == 1
    file.write_bytes(content.replace(b"[7.0]", b"[1.0]") if damage == "edited" else b"{" + content)
    later = open_study(file, ["wer"], "random", seed=0, batch=2)
    assert sorted(known(later).values()) == ([(5.0,)] if damage == "edited" else [])
    later.tell(later.ask(), 2.0)


def test_a_study_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "a.journal"):
        with pytest.raises(UserError, match="another process"):
            alone(tmp_path / "a.journal")
        with alone(tmp_path / "b.journal"):
            pass
    with alone(tmp_path / "a.journal"):
        pass


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[search\]'"):
        open_study(tmp_path / "a.journal", ["wer"], "tpe", seed=0, batch=2)
