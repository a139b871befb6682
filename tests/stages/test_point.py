"""What a result's name depends on: everything that changes it, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.errors import UserError
from src.stages.evaluate import Evaluate
from src.stages.point import VERSIONS, Point, open_point
from tests.composed import composed


def point(output: Path, *overrides: str) -> Point:
    return open_point(composed(f"output_dir={output}", *overrides))


CHANGES = ["wbits=3", "abits=8", "kvbits=4", "group_size=32", "symmetric=true", "method=rtn"]
CHANGES += ["head_bits=4", "frontend_bits=4", "scope=encoder", "scope=head"]


@pytest.mark.parametrize("change", CHANGES)
def test_bits_and_method_name_another_quantized_model_of_the_same_calibration(tmp_path: Path, change: str) -> None:
    plain, changed = point(tmp_path), point(tmp_path, change)
    assert plain.quantized.fingerprint != changed.quantized.fingerprint
    assert plain.calibration.fingerprint == changed.calibration.fingerprint
    assert plain.baseline.transcripts.fingerprint == changed.baseline.transcripts.fingerprint


@pytest.mark.parametrize("change", ["calib.n=8", "seed=1", "model=sandbox_whisper"])
def test_another_calibration_names_another_gptq_model(tmp_path: Path, change: str) -> None:
    assert point(tmp_path).quantized.fingerprint != point(tmp_path, change).quantized.fingerprint


def test_calibration_does_not_name_a_model_that_does_not_use_it(tmp_path: Path) -> None:
    plain, changed = point(tmp_path, "method=rtn"), point(tmp_path, "method=rtn", "calib.n=8", "seed=1")
    assert plain.quantized.fingerprint == changed.quantized.fingerprint


@pytest.mark.parametrize(
    ("method", "same"), [("awq", True), ("awq method.propagate=true", False), ("awq_gptq", False), ("gptq", False)]
)
def test_whose_inputs_blocks_see_names_only_models_that_depend_on_it(tmp_path: Path, method: str, same: bool) -> None:
    chosen = f"method={method}".split()
    names = {point(tmp_path, *chosen, f"calib.propagate={each}").quantized.fingerprint for each in ("fp", "quantized")}
    assert len(names) == (1 if same else 2)


@pytest.mark.parametrize(
    ("method", "automatic"), [("gptq", "block"), ("gptaq", "link"), ("quarot method@method.rounder=gptaq", "link")]
)
def test_what_linears_inside_a_block_see_is_up_to_the_method(tmp_path: Path, method: str, automatic: str) -> None:
    """And names its model where it is not the block's unrounded linears, as of every model of earlier versions."""
    chosen = f"method={method}".split()
    points = {
        each: point(tmp_path, *chosen, f"calib.sequential={each}").quantized for each in ("auto", "block", "link")
    }
    assert points["auto"].fingerprint == points[automatic].fingerprint
    assert points["block"].fingerprint != points["link"].fingerprint
    assert "sequential" not in points["block"].key
    assert points["link"].key["sequential"] == "link"


@pytest.mark.parametrize(("model", "changes"), [("sandbox_whisper", True), ("sandbox_moonshine", False)])
def test_what_silence_counts_names_the_models_that_hear_it(tmp_path: Path, model: str, changes: bool) -> None:
    plain, other = (point(tmp_path, f"model={model}", "method=gptq", *each) for each in ([], ["calib.silence=1"]))
    assert plain.calibration.fingerprint == other.calibration.fingerprint
    assert (plain.quantized.fingerprint != other.quantized.fingerprint) is changes
    assert (plain.statistics("gram").fingerprint != other.statistics("gram").fingerprint) is changes


@pytest.mark.parametrize("method", ["quarot_rtn", "tesseraq_omniquant"])
def test_the_seed_names_a_model_that_is_drawn(tmp_path: Path, method: str) -> None:
    """On the same clips: rotations, or the clips of each step."""
    plain, changed = (point(tmp_path, f"method={method}", "calib.seed=0", *seed) for seed in ([], ["seed=1"]))
    assert plain.quantized.fingerprint != changed.quantized.fingerprint


def test_full_precision_is_one_point_in_every_scope(tmp_path: Path) -> None:
    plain = point(tmp_path, "method=fp")
    for scope in ("encoder", "head", "everything"):
        assert point(tmp_path, "method=fp", f"scope={scope}").fingerprint == plain.fingerprint


def test_ends_at_16_bits_leave_names_as_they_were_before_there_were_keys_for_them(tmp_path: Path) -> None:
    key = point(tmp_path).quantized.key
    assert not {"head_bits", "frontend_bits", "ends"} & set(key)
    assert key["scope"] == {"encoder": True, "decoder": True, "cross_attention": True}
    assert point(tmp_path, "method@ends=gptq").fingerprint == point(tmp_path).fingerprint


def test_a_rounder_of_ends_that_reads_calibration_data_has_it_read_whatever_the_method(tmp_path: Path) -> None:
    plain, changed = (point(tmp_path, "method=rtn", "head_bits=4", f"method@ends={each}") for each in ("rtn", "gptq"))
    assert (plain.uses_calibration, changed.uses_calibration) == (False, True)
    assert plain.quantized.fingerprint != changed.quantized.fingerprint
    assert (plain.settings.bits_name, changed.settings.bits_name) == ("w4a16h4", "w4a16h4gptq")


def test_a_probe_names_scores_and_no_transcripts(tmp_path: Path) -> None:
    plain, other, without = (point(tmp_path, f"evaluate.probe_clips={clips}") for clips in (16, 8, 0))
    assert len({each.evaluation.fingerprint for each in (plain, other, without)}) == 3
    assert len({each.transcripts.fingerprint for each in (plain, other, without)}) == 1
    assert plain.probe is not None
    assert other.probe is not None
    assert plain.probe.fingerprint != other.probe.fingerprint
    assert without.probe is None


def test_how_many_of_the_worst_are_stored_names_scores_and_what_a_tracker_shows_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = point(tmp_path).evaluation.fingerprint
    monkeypatch.setattr("src.tracking.tracker.MAX_CLIPS", 1)
    assert point(tmp_path).evaluation.fingerprint == before
    monkeypatch.setattr("src.stages.point.WORST_UTTERANCES", 1)
    assert point(tmp_path).evaluation.fingerprint != before


def test_scoring_anew_names_nothing(tmp_path: Path) -> None:
    assert point(tmp_path, "evaluate.rescore=true").fingerprint == point(tmp_path).fingerprint


def test_where_it_runs_names_nothing(tmp_path: Path) -> None:
    here = point(tmp_path / "a", "tracking=none", "stages=[evaluate]")
    assert here.fingerprint == point(tmp_path / "b").fingerprint


def test_dtype_names_other_transcripts_of_the_same_model(tmp_path: Path) -> None:
    plain, half = point(tmp_path), point(tmp_path, "dtype=bfloat16")
    assert plain.quantized.fingerprint == half.quantized.fingerprint
    assert plain.transcripts.fingerprint != half.transcripts.fingerprint
    assert half.label == "sandbox_moonshine-gptq-w4a16-bfloat16-sandbox_clean"


@pytest.mark.parametrize("method", ["fp", "rtn"])
def test_half_precision_is_compared_with_float32(tmp_path: Path, method: str) -> None:
    half = point(tmp_path, f"method={method}", "dtype=bfloat16")
    plain = point(tmp_path, "method=fp")
    assert half.baseline.transcripts.fingerprint == plain.transcripts.fingerprint
    assert half.transcripts.fingerprint != plain.transcripts.fingerprint
    assert plain.baseline is plain


def test_what_is_done_with_long_audio_names_other_transcripts_of_the_same_models(tmp_path: Path) -> None:
    plain, changed = point(tmp_path), point(tmp_path, "evaluate.long_form=truncate")
    assert plain.transcripts.fingerprint != changed.transcripts.fingerprint
    assert plain.evaluation.fingerprint != changed.evaluation.fingerprint
    assert plain.calibration.fingerprint == changed.calibration.fingerprint
    assert plain.quantized.fingerprint == changed.quantized.fingerprint


@pytest.mark.parametrize("change", ["calib.seed=1", "calib.decoder_inputs=reference", "on_bad_audio=skip"])
def test_another_draw_text_or_policy_names_another_calibration(tmp_path: Path, change: str) -> None:
    assert point(tmp_path).calibration.fingerprint != point(tmp_path, change).calibration.fingerprint


def test_the_test_set_names_a_calibration_only_where_both_are_drawn_from_one_split(tmp_path: Path) -> None:
    apart = [point(tmp_path, f"dataset.limit={limit}").calibration.fingerprint for limit in (10, 20)]
    assert apart[0] == apart[1]
    shared = "dataset@calib.dataset=sandbox_clean"
    drawn = [point(tmp_path, f"dataset.limit={limit}", shared).calibration.fingerprint for limit in (10, 20)]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("change", ["dataset.max_seconds=9.5", "on_bad_audio=skip", "dataset.columns.speaker=null"])
def test_what_is_left_out_and_who_speaks_name_other_transcripts(tmp_path: Path, change: str) -> None:
    assert point(tmp_path).transcripts.fingerprint != point(tmp_path, change).transcripts.fingerprint


def test_calibration_clips_are_never_those_of_the_test_set(tmp_path: Path) -> None:
    one = point(tmp_path, "dataset.limit=40", "calib.n=30", "dataset@calib.dataset=sandbox_clean")
    test, calibration = ({clip.id for clip in corpus.clips} for corpus in (one.test_corpus, one.calibration_corpus))
    assert (len(test), len(calibration)) == (40, 24)
    assert not test & calibration


def test_n_draws_within_the_limit(tmp_path: Path) -> None:
    sets = [
        {clip.id for clip in point(tmp_path, "calib.n=16", *more).calibration_corpus.clips}
        for more in ([], ["calib.dataset.limit=4"], ["calib.dataset.limit=32"])
    ]
    assert [len(ids) for ids in sets] == [16, 4, 16]
    assert sets[1] < sets[0] == sets[2]


@pytest.mark.parametrize(
    ("change", "field"),
    [("dataset=local", "dataset.root"), ("dataset@calib.dataset=local", "calib.dataset.root")],
)
def test_an_error_says_which_of_the_two_sets_it_means(tmp_path: Path, change: str, field: str) -> None:
    with pytest.raises(UserError) as caught:
        _ = point(tmp_path, change).calibration
    assert caught.value.field == field
    assert f"Set {field} to" in caught.value.remedy


CHAIN = ("calibration", "quantized", "transcripts", "evaluation", "profile", "decoded_cost", "exported", "latency")


@pytest.mark.parametrize(
    ("raised", "voided"),
    [
        ("calibrate", {"calibration", "quantized", "transcripts", "evaluation", "profile", "decoded_cost", "exported"}),
        ("quantize", {"quantized", "transcripts", "evaluation", "profile", "decoded_cost", "exported"}),
        ("transcripts", {"transcripts", "evaluation", "decoded_cost"}),
        ("evaluate", {"evaluation"}),
        ("export", {"exported"}),
        ("latency", {"latency"}),
    ],
)
def test_another_version_of_a_stage_voids_its_results_and_what_rests_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: str, voided: set[str]
) -> None:
    def names() -> dict[str, str]:
        plain = point(tmp_path)
        return {each: getattr(plain, each).fingerprint for each in CHAIN}

    before = names()
    monkeypatch.setitem(VERSIONS, raised, VERSIONS[raised] + 1)
    after = names()
    assert {each for each in CHAIN if before[each] != after[each]} == voided


def test_half_a_window_is_for_models_that_pad_clips_to_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.window: 'clip' spares silence .* moonshine pads none"):
        Evaluate().check(point(tmp_path, "evaluate.window=clip"))
    whisper = point(tmp_path, "model=sandbox_whisper", "evaluate.window=clip")
    Evaluate().check(whisper)
    assert whisper.label == "sandbox_whisper-gptq-w4a16-clip-sandbox_clean"
    assert whisper.transcripts.fingerprint != point(tmp_path, "model=sandbox_whisper").transcripts.fingerprint
