"""What a result's name depends on: everything that changes it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.point import Point, open_point
from tests.composed import composed


def point(output: Path, *overrides: str) -> Point:
    return open_point(composed(f"output_dir={output}", *overrides))


@pytest.mark.parametrize("change", ["wbits=3", "abits=8", "kvbits=4", "group_size=32", "symmetric=true", "method=rtn"])
def test_bits_and_method_name_another_quantized_model_of_the_same_calibration(tmp_path: Path, change: str) -> None:
    plain, changed = point(tmp_path), point(tmp_path, change)
    assert plain.quantized.fingerprint != changed.quantized.fingerprint
    assert plain.calibration.fingerprint == changed.calibration.fingerprint
    assert plain.baseline.transcripts.fingerprint == changed.baseline.transcripts.fingerprint


@pytest.mark.parametrize("change", ["calib.n=8", "seed=1", "model=embedded_whisper"])
def test_another_calibration_names_another_gptq_model(tmp_path: Path, change: str) -> None:
    assert point(tmp_path).quantized.fingerprint != point(tmp_path, change).quantized.fingerprint


def test_calibration_does_not_name_a_model_that_does_not_use_it(tmp_path: Path) -> None:
    plain, changed = point(tmp_path, "method=rtn"), point(tmp_path, "method=rtn", "calib.n=8", "seed=1")
    assert plain.quantized.fingerprint == changed.quantized.fingerprint


def test_the_seed_names_a_randomly_rotated_model(tmp_path: Path) -> None:
    plain, changed = point(tmp_path, "method=quarot_rtn"), point(tmp_path, "method=quarot_rtn", "seed=1")
    assert plain.quantized.fingerprint != changed.quantized.fingerprint


def test_where_it_runs_names_nothing(tmp_path: Path) -> None:
    here = point(tmp_path / "a", "tracking=none", "stages=[evaluate]")
    assert here.fingerprint == point(tmp_path / "b").fingerprint


def test_what_is_done_with_long_audio_names_other_transcripts_of_the_same_models(tmp_path: Path) -> None:
    plain, changed = point(tmp_path), point(tmp_path, "evaluate.long_form=truncate")
    assert plain.transcripts.fingerprint != changed.transcripts.fingerprint
    assert plain.evaluation.fingerprint != changed.evaluation.fingerprint
    assert plain.calibration.fingerprint == changed.calibration.fingerprint
    assert plain.quantized.fingerprint == changed.quantized.fingerprint
