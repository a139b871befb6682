from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.block_journal import BlockJournal
from src.methods.build import build_method
from src.methods.parts.learned_codes import LearnedCodes
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors
from src.quant.grid import round_to_nearest
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS: dict[str, Callable[[], SpeechModel]] = {"sandbox_whisper": tiny_whisper, "sandbox_moonshine": tiny_moonshine}
RATES = ("lr", "scale_lr", "other_lr")
FAMILIES = pytest.mark.parametrize("model", BUILDERS)


def quantized(model: str, *overrides: str, journal: Path | None = None) -> tuple[SpeechModel, Quantizer]:
    fewer = ["method.copies=1"] if "method=distill" in overrides else []
    settings = composed(f"model={model}", *fewer, *overrides)
    speech = BUILDERS[model]()
    kept = BlockJournal(journal) if journal else None
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2), journal=kept)
    quantizer.run()
    return speech, quantizer


def tensors(speech: SpeechModel, quantizer: Quantizer) -> dict[str, Tensor]:
    codes = {f"{path}.codes": each.codes for path, each in quantizer.weights.items()}
    return {**codes, **leftover_tensors(speech.module, quantizer.weights)}


@FAMILIES
@pytest.mark.parametrize("bits", [["bits=w3a16"], ["bits=w2a16"], ["bits=w4a8", "method@method.start=quarot_rtn"]])
def test_it_comes_closer_to_the_full_precision_model_than_where_it_started(model: str, bits: list[str]) -> None:
    method = ["method=distill", "method@method.start=rtn", *bits]
    learned, _ = quantized(model, *method, "method.epochs=8", "method.batch_size=2", "method.lr=0.02")
    still, _ = quantized(model, *method, "method.epochs=1", *(f"method.{rate}=1e-9" for rate in RATES))
    teacher = BUILDERS[model]()
    assert answers(learned, teacher) < 0.95 * answers(still, teacher)


@torch.no_grad()
def answers(speech: SpeechModel, teacher: SpeechModel) -> float:
    """Mean squared difference of the logits over all clips."""
    calibration = noise_calibration(teacher, 2)
    differences = []
    for features, tokens in zip(calibration.features, calibration.tokens, strict=True):
        given = torch.tensor([tokens])
        own, fp = (each.forward_tokens(given, each.encode([features])) for each in (speech, teacher))
        differences.append(float((own - fp).square().mean()))
    return sum(differences) / len(differences)


@FAMILIES
def test_at_rates_of_nearly_nothing_it_is_what_it_started_from(model: str) -> None:
    rates = [f"method.{rate}=1e-12" for rate in RATES]
    _, learned = quantized(model, "method=distill", "wbits=3", "method.epochs=1", *rates)
    _, start = quantized(model, "method=gptq", "wbits=3")
    for path, weight in start.weights.items():
        assert torch.equal(learned.weights[path].dequantize(), weight.dequantize())


@FAMILIES
def test_the_model_holds_what_is_stored(model: str) -> None:
    speech, quantizer = quantized(model, "method=distill", "bits=w4a8", "method.epochs=2", "method.lr=0.1")
    for path, weight in quantizer.weights.items():
        assert torch.equal(speech.module.get_parameter(f"{path}.weight"), weight.dequantize())
    for tensor in leftover_tensors(speech.module, quantizer.weights).values():
        assert torch.equal(tensor, tensor.half().float())
        assert not tensor.requires_grad
    assert not any("parametrizations" in name for name, _ in speech.module.named_parameters())


def test_killed_between_two_passes_and_resumed_it_ends_as_if_it_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ["method=distill", "wbits=3", "method.epochs=3", "method.batch_size=2", "method.lr=0.1"]
    whole = tensors(*quantized("sandbox_whisper", *chosen))
    keep, passes = BlockJournal.keep_tuned, []

    def killed(self: BlockJournal, state: Mapping[str, Tensor]) -> None:
        keep(self, state)
        passes.append(int(state["epoch"]))
        if passes == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(BlockJournal, "keep_tuned", killed)
    with pytest.raises(KeyboardInterrupt):
        quantized("sandbox_whisper", *chosen, journal=tmp_path)
    again = tensors(*quantized("sandbox_whisper", *chosen, journal=tmp_path))
    assert passes == [1, 2, 3]
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())


@pytest.mark.parametrize("group_size", [-1, 16])
@pytest.mark.parametrize("symmetric", [False, True])
def test_codes_and_steps_stay_on_their_grids_wherever_they_learn_to(group_size: int, symmetric: bool) -> None:
    start = round_to_nearest(torch.randn(8, 64), WeightSpec(3, group_size, symmetric))
    codes = LearnedCodes(start)
    latent = codes.right_inverse(torch.empty(0))
    assert torch.equal(codes.quantize(latent).codes, start.codes)
    latent = latent + 2 * torch.randn_like(latent)
    codes.log_factor.detach().add_(0.1 * torch.randn_like(codes.log_factor))
    stored = codes.quantize(latent)
    assert int(stored.codes.max()) <= start.spec.max_code
    assert torch.equal(stored.zero, start.zero)
    torch.testing.assert_close(codes(latent).detach(), stored.dequantize(), rtol=1e-6, atol=1e-6)


def test_a_start_that_stores_more_than_codes_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.start: spqr does not store"):
        quantized("sandbox_whisper", "method=distill", "method@method.start=spqr", "wbits=3")


@pytest.mark.parametrize("start", ["flatquant", "gptq"])
def test_the_layer_table_tells_errors_where_the_teacher_has_the_weight_that_was_rounded(start: str) -> None:
    """Not where blocks were transformed after the teacher was set aside: that difference is no error."""
    quick = ["method.start.epochs=1"] if start == "flatquant" else []
    chosen = ["method=distill", f"method@method.start={start}", "bits=w8a8", "method.epochs=1", *quick]
    _, quantizer = quantized("sandbox_moonshine", *chosen)
    errors = [row["weight_error"] for row in quantizer.rows if row["linear"] in quantizer.weights]
    assert all(error is None if start == "flatquant" else error < 0.05 for error in errors)
