"""A quantized checkpoint is a model's source like any other: its weights are the rounded ones, and it says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from src.embedded.shrink import at_eight_bits, shrink
from src.errors import UserError
from src.models.families import FAMILIES
from src.models.loading import load, load_graph, model_identity
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from tests.composed import composed
from tests.models.checkpoints import bytes_of
from tests.models.conftest import moonshine_folder, whisper_folder
from tests.quant.quantized import quantized
from tests.tiny import TINY, model_settings

__all__ = ["moonshine_folder", "whisper_folder"]

ENDS = ("head_bits=4", "frontend_bits=6")


def stored(original: Path, folder: Path, family: str, *overrides: str) -> SpeechModel:
    """Quantizes the checkpoint in ``original`` into ``folder``, as stage quantize does; the model in memory."""
    settings = composed(*overrides)
    shutil.copytree(original, folder)
    speech = load(model_settings(original, family), "cpu", 0)
    quantizer = quantized(speech, settings)
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(folder / "model.safetensors", quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    return speech


@pytest.mark.parametrize("family", [family for family in TINY if not FAMILIES[family].rewritten])
@pytest.mark.parametrize(
    ("overrides", "bits"),
    [
        (("method=rtn", "bits=w8a16", "frontend_bits=8", "head_bits=8"), "8"),
        (("method=rtn", "bits=w3a16", "symmetric=true", "group_size=32"), "3"),
        (("method=gptq", "bits=w4a16", "method.static_groups=false", "group_size=16", *ENDS), "4 to 6"),  # an order
        (("method=hqq", "bits=w4a16", "group_size=32"), "4"),  # real zero points
        (("method=spqr", "bits=w3a16"), "3"),  # single weights at 16 bits, scales of scales
        (("method=quik", "bits=w4a8"), "4"),  # whole columns at 16 bits
    ],
)
def test_the_weights_are_those_that_were_rounded(
    tmp_path: Path, family: str, overrides: tuple[str, ...], bits: str
) -> None:
    original, folder = TINY[family].checkpoint(tmp_path / "original"), tmp_path / "quantized"
    speech = stored(original, folder, family, *overrides)
    settings = model_settings(folder, family)
    told = model_identity(settings)
    assert told["rounded"] == f"weights rounded to {bits} bits by this project: the baseline is that"
    assert told["sha256"] != model_identity(model_settings(original, family))["sha256"]
    load_graph(settings)
    found = load(settings, "cpu", 0).module
    for name, parameter in found.named_parameters():
        path = name.removesuffix(".weight")
        module = speech.module.get_submodule(path) if name.endswith(".weight") else None
        inner = getattr(module, "linear", module)
        expected = inner.weight if name.endswith(".weight") else dict(speech.module.named_parameters())[name]
        assert torch.equal(parameter, expected.half().float() if expected.dim() == 1 else expected), name


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("method=quarot", "bits=w4a16"), r"of another structure \(.*rms_norm"),
        (("method=rtn", "bits=w8a8", "activation.range=static"), "ranges of inputs"),
    ],
)
def test_what_is_more_than_weights_is_refused(
    whisper_folder: Path, tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    stored(whisper_folder, tmp_path / "quantized", "whisper", *overrides)
    with pytest.raises(UserError, match=said):
        model_identity(model_settings(tmp_path / "quantized"))


@pytest.mark.parametrize("family", [family for family in TINY if FAMILIES[family].rewritten])
def test_what_no_checkpoint_can_have_is_refused(family: str, tmp_path: Path) -> None:
    stored(TINY[family].checkpoint(tmp_path / "original"), tmp_path / "quantized", family, "method=rtn", "bits=w4a16")
    with pytest.raises(UserError, match=f"a quantized {family} model, whose {FAMILIES[family].rewritten}"):
        model_identity(model_settings(tmp_path / "quantized", family))


def test_a_checkpoint_alone_asks_for_its_settings(whisper_folder: Path, tmp_path: Path) -> None:
    stored(whisper_folder, tmp_path / "quantized", "whisper", "method=rtn", "bits=w8a16")
    (tmp_path / "quantized" / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config\.json\. Copy config\.json"):
        model_identity(model_settings(tmp_path / "quantized"))


def test_a_cut_checkpoint_is_refused(whisper_folder: Path, tmp_path: Path) -> None:
    stored(whisper_folder, tmp_path / "quantized", "whisper", "method=rtn", "bits=w8a16")
    bytes_of("model.safetensors", lambda data: data[:-9])(tmp_path / "quantized")
    with pytest.raises(UserError, match="is cut off"):
        model_identity(model_settings(tmp_path / "quantized"))


@pytest.mark.parametrize("family", ["whisper", "moonshine"])
def test_what_is_shrunk_is_within_half_a_step(request: pytest.FixtureRequest, tmp_path: Path, family: str) -> None:
    original: Path = request.getfixturevalue(f"{family}_folder")
    shrink(model_settings(original, family), tmp_path / "shrunk")
    before, after = (
        load(model_settings(folder, family), "cpu", 0).module.state_dict() for folder in (original, tmp_path / "shrunk")
    )
    for name, weight in before.items():
        most = 0.51 * (weight.max() - weight.min()) / 255 if weight.dim() == 2 else 1e-3 * weight.abs().max()
        assert (after[name] - weight).abs().max() <= most, name


def test_a_weight_that_is_on_a_grid_of_eight_bits_keeps_every_value() -> None:
    codes = torch.randint(0, 256, (20, 30), generator=torch.Generator().manual_seed(0))
    W = (codes - 117).float() * 0.0123
    assert torch.equal(at_eight_bits(W).dequantize(), W)
    other = W + 0.001 * codes.sin()
    assert 0 < (at_eight_bits(other).dequantize() - other).abs().max() < 0.0123
