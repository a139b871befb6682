"""What stored transcripts are good for, without decoding: scoring them again, and comparing any two records."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from src import compare
from src.errors import UserError
from src.reporting.stored import find, require_comparable
from src.runs.pipeline import check
from src.runs.records import build_record, save_record
from src.stages.evaluate import Evaluate
from src.stages.point import Point, open_point
from src.stages.quantize import Quantize
from src.storage.checksum import with_checksum
from src.text.normalizers import Rules
from tests import commands
from tests.composed import composed

SMALL = ("dataset=sandbox_other", "dataset.limit=16", "evaluate.bootstrap_samples=200", "evaluate.probe_clips=4")


def opened(output: Path, *overrides: str) -> Point:
    return open_point(composed(f"output_dir={output}", "tracking=none", *SMALL, *overrides))


def evaluated(output: Path, *overrides: str) -> dict[str, Any]:
    """The record of a point that was quantized and evaluated for real."""
    point = opened(output, *overrides)
    Quantize().run(point)
    Evaluate().run(point)
    return recorded(point, output)


def recorded(point: Point, output: Path) -> dict[str, Any]:
    path = save_record(build_record(point), output, output / "job")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def decoded(output: Path) -> dict[Path, tuple[int, bytes]]:
    """Time and content of all stored transcripts."""
    files = [path for stage in ("transcripts", "probe") for path in (output / "cache" / stage).rglob("*.jsonl")]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Output folder, and the records of full precision and of a model that two bits have broken."""
    output = tmp_path_factory.mktemp("runs")
    return output, evaluated(output, "method=fp"), evaluated(output, "method=rtn", "wbits=2")


@pytest.fixture
def output(runs: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the output folder that a test may change."""
    return Path(shutil.copytree(runs[0], tmp_path / "output"))


def test_a_record_tells_failures_effect_and_hallucinations(
    runs: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    _, fp, rtn = runs
    result = rtn["results"]["evaluate"]
    assert result["versus_fp"]["significant"]
    assert result["versus_fp"]["relative"] == pytest.approx(100 * (result["wer"] / result["fp_wer"] - 1))
    assert result["versus_fp"]["improvement_probability"] < 0.01
    assert result["failures"]["utterances"] == sum(part["utterances"] for part in result["failures_by_duration"]) == 16
    assert result["fp_failures"] == fp["results"]["evaluate"]["failures"]
    assert result["fp_probe"] == fp["results"]["evaluate"]["probe"]
    assert result["probe"]["clips"] == 4
    assert [row["kind"] for row in result["probe"]["by_kind"]] == ["silence", "white", "pink", "modulated"]
    assert fp["results"]["evaluate"]["versus_fp"]["improvement_probability"] == 0.5
    assert rtn["protocol"]["suppress_tokens"] is True


def test_the_probe_is_the_same_in_every_run(runs: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    again = evaluated(tmp_path, "method=fp")
    assert again["results"]["evaluate"]["probe"] == runs[1]["results"]["evaluate"]["probe"]
    heard = [sorted(content for _, content in decoded(folder).values()) for folder in (tmp_path, runs[0])]
    assert set(heard[0]) <= set(heard[1])
    assert len(heard[0]) == 2  # test set and probe


def test_without_clips_there_is_no_probe(runs: tuple[Path, dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    result = evaluated(tmp_path, "method=fp", "evaluate.probe_clips=0")["results"]["evaluate"]
    assert (result["probe"], result["fp_probe"]) == (None, None)
    assert not (tmp_path / "cache" / "probe").exists()
    assert result["wer"] == runs[1]["results"]["evaluate"]["wer"]


def test_rescoring_needs_transcripts_and_no_model(
    runs: tuple[Path, dict[str, Any], dict[str, Any]], output: Path
) -> None:
    shutil.rmtree(output / "cache" / "quantize")
    before = decoded(output)
    overrides = ("method=rtn", "wbits=2", "stages=[evaluate]", "evaluate.rescore=true", "tracking=none")
    finished = commands.run("src.main", *SMALL, *overrides, "evaluate.bootstrap_samples=300", f"output_dir={output}")
    assert finished.returncode == 0, finished.stderr
    assert decoded(output) == before
    assert not (output / "cache" / "quantize").exists()
    records = [json.loads(path.read_text()) for path in (output / "records").glob("*.json")]
    (rescored,) = [record for record in records if record["settings"]["evaluate"]["bootstrap_samples"] == 300]
    old, new = runs[2]["results"]["evaluate"], rescored["results"]["evaluate"]
    assert new["wer"] == old["wer"]
    assert (new["wer_low"], new["wer_high"]) != (old["wer_low"], old["wer_high"])


def test_rescoring_replaces_stored_scores_and_a_plain_run_does_not(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a normalizer was changed without a new version."""
    before = decoded(output)
    plain, anew = (opened(output, "method=rtn", "wbits=2", f"evaluate.rescore={flag}") for flag in ("false", "true"))
    assert plain.fingerprint == anew.fingerprint
    stored = Evaluate().result(plain)
    monkeypatch.setattr(Rules, "normalize", lambda _, text: text.lower().replace("the", "a"))
    Evaluate().run(plain)
    assert Evaluate().result(plain) == stored
    Evaluate().run(anew)
    assert Evaluate().result(plain)["cer"] != stored["cer"]
    monkeypatch.undo()
    Evaluate().run(anew)
    assert Evaluate().result(plain) == stored
    assert decoded(output) == before


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("damage", [False, True])
def test_rescoring_never_makes_transcripts(output: Path, baseline: bool, damage: bool) -> None:
    point = opened(output, "method=rtn", "wbits=2", "evaluate.rescore=true")
    entry = (point.baseline if baseline else point).transcripts
    if damage:
        (entry.path / "transcripts.jsonl").write_text("{}\n")
    else:
        shutil.rmtree(entry.path)
    for attempt in (Evaluate().check, Evaluate().run):
        with pytest.raises(UserError, match=r"evaluate\.rescore: .*" + entry.fingerprint):
            attempt(point)
    assert entry.path.exists() is damage


def test_rescoring_with_a_probe_that_is_not_stored_says_how_to_do_without(output: Path) -> None:
    point = opened(output, "method=rtn", "wbits=2", "evaluate.rescore=true", "evaluate.probe_clips=9")
    with pytest.raises(UserError, match=r"evaluate\.probe_clips=0"):
        Evaluate().check(point)


def test_rescoring_what_was_never_decoded_is_a_mistake(tmp_path: Path) -> None:
    """Found before the first stage runs."""
    with pytest.raises(UserError, match=r"nothing may be decoded.* evaluate\.rescore=false first"):
        check([Evaluate()], opened(tmp_path, "evaluate.rescore=true"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_comparing_with_full_precision_gives_what_the_record_says(
    runs: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    output, fp, rtn = runs
    finished = commands.run("src.compare", "--output-dir", str(output), fp["fingerprint"][:8], rtn["fingerprint"])
    assert finished.returncode == 0, finished.stderr
    told = {line[:22].strip(): line[22:].strip() for line in finished.stdout.splitlines()}
    result = rtn["results"]["evaluate"]
    versus = result["versus_fp"]
    assert told["WER, %"].endswith(f"{result['wer']:.2f} ({result['wer_low']:.2f} to {result['wer_high']:.2f})")
    expected = f"{versus['difference']:+.2f} ({versus['low']:+.2f} to {versus['high']:+.2f})"
    assert told["difference, points"].split(maxsplit=1) == ["-", expected]
    assert told["p-value"].split() == ["-", f"{versus['p_value']:.4f}"]
    assert told["difference is"].endswith("significant: worse")
    assert told["other transcripts"].endswith(f"{result['changed_from_fp']['transcripts']} of 16")
    assert "16 utterances" in finished.stdout
    assert (result["resampled"], result["speakers"] >= 5) == ("speaker", True)
    assert f"200 resamples of {result['speakers']} speakers, seed 0" in finished.stdout


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    compare.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as left:
        compare.main([str(argument) for argument in arguments])
    assert left.value.code == 1
    told = capsys.readouterr()
    assert told.out == ""
    return told.err


def test_the_order_decides_the_sign_and_a_record_equals_itself(
    runs: tuple[Path, dict[str, Any], dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    output, fp, rtn = runs
    files = [output / "records" / f"{record['fingerprint']}.json" for record in (rtn, fp, rtn)]
    told = shown(capsys, *files, "--samples", "150", "--seed", "5")
    last = next(line for line in told.splitlines() if line.startswith("difference is")).split("is", 1)[1]
    assert last.rstrip().endswith("not significant")
    assert "significant: better" in last
    assert "150 resamples" in told
    assert "seed 5" in told


@pytest.mark.parametrize(
    ("overrides", "sentences"),
    [
        (("dataset=sandbox_clean",), ("dataset:", "sandbox_other", "sandbox_clean")),
        (("dataset.limit=8",), ("dataset.limit:", "16 utterances", "8 utterances")),
        (("seed=1",), ("seed:", "seed 0", "seed 1")),
    ],
)
def test_other_utterances_are_not_compared(
    output: Path, capsys: pytest.CaptureFixture[str], overrides: tuple[str, ...], sentences: tuple[str, ...]
) -> None:
    base = evaluated(output, "method=fp")
    other = evaluated(output, "method=fp", *overrides)
    told = refused(capsys, "--output-dir", output, base["fingerprint"], other["fingerprint"])
    assert told.startswith(f"Error: {sentences[0]}")
    for sentence in sentences:
        assert sentence in told


def test_another_content_of_the_same_set_is_not_compared(
    runs: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    base, other = (find(record["fingerprint"], runs[0]) for record in runs[1:])
    require_comparable(base, other)
    with pytest.raises(UserError, match="another sha256 of it"):
        require_comparable(base, replace(other, dataset={**other.dataset, "sha256": "0"}))


@pytest.mark.parametrize("version", ["normalizer", "scorer"])
def test_other_versions_are_not_compared(output: Path, capsys: pytest.CaptureFixture[str], version: str) -> None:
    base = evaluated(output, "method=fp")
    base["versions"][version] = "another/1.0"
    altered = output / "records" / "altered.json"
    altered.write_text(json.dumps(with_checksum(base)))
    told = refused(capsys, "--output-dir", output, altered, base["fingerprint"])
    assert told.startswith(f"Error: {version}: ")
    assert "another/1.0" in told


def test_what_cannot_be_found_is_told(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fp = evaluated(output, "method=fp")["fingerprint"]
    assert "'xyz' is neither a file nor one of the 2 records" in refused(capsys, "--output-dir", output, "xyz", fp)
    assert "is the beginning of 2 records" in refused(capsys, "--output-dir", output, "", fp)
    (output / "broken.json").write_text("{")
    assert "cannot be read" in refused(capsys, "--output-dir", output, output / "broken.json", fp)
    unscored = with_checksum({**evaluated(output, "method=fp"), "results": {}})
    (output / "other.json").write_text(json.dumps(unscored))
    assert "no scored transcripts" in refused(capsys, "--output-dir", output, output / "other.json", fp)
    shutil.rmtree(output / "cache" / "transcripts")
    assert "absent or damaged" in refused(capsys, "--output-dir", output, fp, fp)


def test_help_explains_the_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        compare.main(["--help"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    for word in ("BASE", "OTHER", "--output-dir", "--samples", "--seed", "significant", "examples:"):
        assert word in told
