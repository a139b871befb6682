"""What is made of another method leaves none of its hooks out."""

from __future__ import annotations

import inspect

import pytest
import torch

from src.methods.apply import Quantizer
from src.methods.base import Method
from src.methods.build import build_method
from src.methods.parts.delegating import Delegating
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_whisper


def quantized(*overrides: str) -> Quantizer:
    settings, speech = composed("model=sandbox_whisper", "bits=w3a16", *overrides), tiny_whisper()
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


def test_every_hook_is_passed_on() -> None:
    hooks = {name for name, each in vars(Method).items() if inspect.isfunction(each) and not name.startswith("_")}
    assert hooks >= {"transform", "plan", "output_weights", "token_weights", "rare_rows", "fit_block", "round", "tune"}
    assert hooks <= vars(Delegating).keys()


def test_what_a_rotation_hands_on_to_is_tuned() -> None:
    rounder = ["method@method.rounder=distill", "method.rounder.epochs=4", "method.rounder.lr=0.1"]
    tuned, plain = quantized("method=quarot", *rounder), quantized("method=quarot")
    assert any(not torch.equal(plain.weights[path].scale, each.scale) for path, each in tuned.weights.items())


@pytest.mark.parametrize("method", ["distill", "tesseraq"])
def test_rare_rows_of_a_start_are_asked_for(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_method(composed(f"method={method}", "method@method.start=tarq").method)
    asked: list[str] = []
    monkeypatch.setattr(type(built.start), "rare_rows", lambda *_: asked.append("rare_rows"))  # type: ignore[attr-defined]
    built.rare_rows(None, None)  # type: ignore[arg-type]
    assert asked
