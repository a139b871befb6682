"""The language of the references decides how they are scored, what keys depend on it, and what is refused."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from src import report
from src.errors import UserError
from src.project import ROOT
from src.runs.records import build_record
from src.settings.composite import Composite, from_hydra
from src.stages.evaluate import Evaluate
from src.stages.point import Point, open_point
from src.stages.quantize import Quantize
from tests.composed import composed
from tests.reporting.recorded import record, write

ROWS = pq.read_table(ROOT / "src/sandbox/data/clean/test-00000-of-00001.parquet").slice(0, 3).to_pylist()


def own_data(folder: Path, *texts: str) -> Path:
    """A manifest of the first clips of the sandbox test set with other references."""
    folder.mkdir()
    lines = []
    for row, text in zip(ROWS, texts, strict=True):
        (folder / f"{row['id']}.wav").write_bytes(row["audio"]["bytes"])
        lines.append(json.dumps({"audio": f"{row['id']}.wav", "text": text, "id": row["id"]}))
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


def opened(data: Path, output: Path, *overrides: str) -> Point:
    fast = ("method=fp", "tracking=none", "evaluate.bootstrap_samples=100", "evaluate.probe_clips=0")
    return open_point(composed("dataset=local", f"dataset.root={data}", f"output_dir={output}", *fast, *overrides))


def evaluated(point: Point) -> dict[str, Any]:
    """The record of a point that was evaluated for real."""
    Evaluate().check_data(point)
    Quantize().run(point)
    Evaluate().run(point)
    return build_record(point).plain


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("overrides", "language", "of_calib", "normalizer"),
    [
        (("dataset=sandbox_clean",), "en", "en", "whisper-english"),
        (("dataset=local",), "en", "en", "whisper-english"),
        (("dataset=local", "model=whisper_tiny"), "en", "en", "whisper-english"),
        (("dataset=local", "model=whisper_tiny", "model.language=hi"), "hi", "en", "whisper-basic-diacritics"),
        (("dataset=local", "model.language=ja"), "ja", "en", "whisper-basic-diacritics-characters"),  # a Moonshine
        (
            ("dataset=local", "dataset.language=ko", "dataset@calib.dataset=local", "evaluate.clean_text=true"),
            "ko",
            "ko",
            "whisper-basic-diacritics-clean",
        ),
        (("dataset=local", "model=whisper_tiny", "dataset.language=ga"), "ga", "en", "whisper-basic-diacritics"),
    ],
)
def test_references_are_in_the_language_that_the_model_writes_unless_told(
    tmp_path: Path, overrides: tuple[str, ...], language: str, of_calib: str, normalizer: str
) -> None:
    settings = composed(f"output_dir={tmp_path}", *overrides)
    assert (settings.dataset.language, settings.calib.dataset.language) == (language, of_calib)
    assert open_point(settings).rules.name.partition("/")[0] == normalizer


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ("model=whisper_tiny", "model.language=de"),
            "dataset.language: sandbox_clean is in en, but the model writes 'de'.*Set dataset.language=de",
        ),
        (("dataset.language=jp",), "dataset.language: 'jp' is not valid .*code for it is ja"),
        (("dataset.language=English",), "dataset.language: 'English' is not valid .*en, de, hi, yue"),
        (("model.language=cmn",), "model.language: 'cmn' is not valid .*code for it is zh"),
        (("calib.dataset.language=eng",), "calib.dataset.language: 'eng' is not valid .*code for it is en"),
    ],
)
def test_rules_for_another_language_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told):
        composed("dataset=sandbox_clean", *overrides)


def test_rules_for_english_are_refused_where_letters_are_of_another_script(tmp_path: Path, output: Path) -> None:
    data = own_data(tmp_path / "data", "नमस्ते दुनिया", "मैं घर जा रहा हूँ", "OK")
    point = opened(data, output)
    with pytest.raises(UserError, match=r"dataset\.language: most references of local are written in Devanagari"):
        Evaluate().check_data(point)
    assert not (output / "cache" / "quantize").exists()
    Evaluate().check_data(opened(data, output, "dataset.language=hi"))
    calibrated = opened(own_data(tmp_path / "test", "a", "b", "c"), output, *calibration(data), "method=gptq")
    with pytest.raises(UserError, match=r"calib\.dataset\.language: most references"):
        Evaluate().check_data(calibrated)


def test_rules_for_english_are_questioned_where_letters_have_accents(
    tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They would drop them, and with them what tells words apart in Vietnamese."""
    vietnamese = own_data(tmp_path / "data", "tôi về nhà", "cái bàn", "sách")
    Evaluate().check_data(opened(vietnamese, output, "dataset.language=vi"))
    Evaluate().check_data(opened(own_data(tmp_path / "english", "the café", "don\u2019t", "it \uff41"), output))
    assert "dataset.language" not in caplog.text
    Evaluate().check_data(opened(vietnamese, output))
    (said,) = [each.message for each in caplog.records if "dataset.language" in each.message]
    assert said.startswith("local: most references hold letters with accents (à á ô ề)")


def calibration(data: Path) -> tuple[str, ...]:
    return ("dataset@calib.dataset=local", f"calib.dataset.root={data}")


def test_a_mean_is_not_made_of_several_kinds_of_error_rates() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        asked = ["dataset=sandbox", "dataset.members.sandbox_other.language=ja"]
        with pytest.raises(UserError, match=r"sandbox_clean \(en\) by english and sandbox_other \(ja\) by basic"):
            from_hydra(compose("config", asked))
        same = from_hydra(compose("config", [each.replace("ja", "en") for each in asked]))
    assert isinstance(same, Composite)


def test_characters_are_scored_and_called_so(tmp_path: Path, output: Path) -> None:
    """The sandbox model writes English, so that every character of Japanese is wrong."""
    point = opened(own_data(tmp_path / "data", "今日は", "はい", "(笑)"), output, "dataset.language=ja")
    found = evaluated(point)
    scores = found["results"]["evaluate"]
    assert found["versions"]["normalizer"].startswith("whisper-basic-diacritics-characters/")
    assert found["protocol"]["reference_language"] == "ja"
    assert (scores["metric"], scores["words"], scores["utterances"]) == ("CER", 5, 2)
    assert scores["wer"] == scores["cer"] > 100


def test_misread_references_are_told_once_and_made_plain_without_decoding_again(
    tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [row["text"] for row in ROWS]
    marked = [f"\ufeff{texts[0]}", texts[1][:6] + "\u00ad" + texts[1][6:], f"\u201c{texts[2]}\u201d"]
    data = own_data(tmp_path / "data", *marked)
    with caplog.at_level(logging.INFO):
        default = evaluated(opened(data, output))
    (said,) = [each.message for each in caplog.records if "unknown" in each.message]
    assert said.startswith("evaluate: 2 of 3 references hold characters unknown to whisper-english/")
    assert "U+00AD SOFT HYPHEN in 1" in said
    assert "evaluate.clean_text=true" in said
    clean = evaluated(opened(data, output, "evaluate.clean_text=true"))
    typed = evaluated(opened(own_data(tmp_path / "typed", *texts), output))
    scores = [each["results"]["evaluate"] for each in (default, clean, typed)]
    assert [each["texts"]["unknown_references"] for each in scores] == [2, 2, 0]
    assert scores[0]["wer"] > scores[2]["wer"] == scores[1]["wer"]
    assert default["transcripts"] == clean["transcripts"]
    assert default["fingerprint"] != clean["fingerprint"]
    assert clean["versions"]["normalizer"].startswith("whisper-english-clean/")


def test_keys_depend_on_the_rules(tmp_path: Path, output: Path) -> None:
    """Decoding does so by the kind of rules alone: they decide which references are left out before clips are drawn."""
    data = own_data(tmp_path / "data", "eins", "zwei", "drei")
    plain, german, dutch, clean = (
        opened(data, output, *overrides)
        for overrides in ((), ("dataset.language=de",), ("dataset.language=nl",), ("evaluate.clean_text=true",))
    )
    assert len({each.evaluation.fingerprint for each in (plain, german, clean)}) == 3
    assert german.evaluation.fingerprint == dutch.evaluation.fingerprint
    assert plain.transcripts.fingerprint == clean.transcripts.fingerprint != german.transcripts.fingerprint


def test_tables_keep_error_rates_over_characters_apart_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def printed(*chosen: str) -> str:
        monkeypatch.setattr(sys, "argv", ["report", str(folder), "--format", "markdown", *chosen])
        report.main()
        return capsys.readouterr().out

    words, characters = record("rtn", "clean", 12.0), record("rtn", "other", 20.0)
    characters["versions"] = {**characters["versions"], "normalizer": "whisper-basic-diacritics-characters/0.1"}
    characters["results"]["evaluate"]["metric"] = "CER"
    folder = write(tmp_path, words, characters)
    with pytest.raises(SystemExit):
        printed()
    assert "(whisper-basic-diacritics-characters/0.1, whisper-english/0.1)" in capsys.readouterr().err
    assert "CER: characters are counted" in printed("dataset=other")
    assert "CER" not in printed("dataset=clean")
