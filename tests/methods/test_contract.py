"""What every method owes its users, on all families.

A new yaml in conf/method or conf/bits takes part by itself, and so does a family.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from src.decoding.decode import greedy
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.build import build_method
from src.models.speech import SpeechModel
from src.project import ROOT
from src.quant.checkpoint import leftover_tensors, load_weights, save_weights
from src.quant.extras import Extra, extras_of_edits, extras_of_weight
from src.quant.fake import kv_layer_factory
from src.quant.restore import restore
from src.settings import Settings
from tests.calib.clips import LENGTHS, noise_calibration
from tests.composed import composed
from tests.tiny import TINY

METHODS = sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml"))
BITS = sorted(path.stem for path in (ROOT / "conf/bits").glob("*.yaml"))
QUICKER = {  # what a method learns does not matter here
    "budget": ["method.widths=[2,8]"],
    "distill": ["method.epochs=1", "method.copies=1"],
    "autoround": ["method.steps=2"],
    "flatquant": ["method.epochs=1"],
    "omniquant": ["method.epochs=1"],
    "tesseraq": ["method.steps=1"],
    "tesseraq_omniquant": ["method.steps=1", "method.start.epochs=1"],
    "spinquant": ["method.iterations=2"],
    "spinquant_rtn": ["method.iterations=2"],
}
FAMILIES = pytest.mark.parametrize("family", TINY)


def quantize(build: Callable[[], SpeechModel], settings: Settings) -> tuple[SpeechModel, Quantizer]:
    speech = build()
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return speech, quantizer


def save(speech: SpeechModel, quantizer: Quantizer, path: Path) -> None:
    save_weights(
        path, quantizer.weights, leftover_tensors(speech.module, quantizer.weights), quantizer.edits, quantizer.inputs
    )


@torch.inference_mode()
def logits(speech: SpeechModel) -> Tensor:
    calibration = noise_calibration(speech, 5)
    return speech.logits(calibration.features[:1], torch.tensor(calibration.tokens[:1]))


def declared(settings: Settings) -> frozenset[Extra]:
    """What the method says its model may hold; OmniQuant cannot tell of shifts where it decides on them itself."""
    decides = settings.method.get("let") == "auto" or settings.method.get("start", {}).get("let") == "auto"
    return build_method(settings.method).needs.stores | ({Extra.BIASES} if decides else frozenset())


def check(family: str, settings: Settings, folder: Path) -> None:
    """Finite, deterministic, the same file twice, and the same model again when it is loaded."""
    build = TINY[family].build
    speech, quantizer = quantize(build, settings)
    ours = logits(speech)
    assert torch.isfinite(ours).all()
    listed = [*(linear.path for linear in speech.graph.linears), *filter(None, [speech.graph.adapter])]
    assert [row["linear"] for row in quantizer.rows] == listed
    held = [*map(extras_of_weight, quantizer.weights.values()), extras_of_edits(quantizer.edits)]
    assert frozenset().union(*held) <= declared(settings)
    save(speech, quantizer, folder / "first")
    save(*quantize(build, settings), folder / "second")
    assert (folder / "first").read_bytes() == (folder / "second").read_bytes()
    for path, weight in load_weights(folder / "first").weights.items():
        assert torch.equal(weight.dequantize(), quantizer.weights[path].dequantize()), path
    again = build(seed=1)  # other weights, all of which have to be replaced
    restore(again, folder / "first", input_bits(again.graph, settings))
    assert torch.equal(logits(again), ours)
    features = noise_calibration(again, 5).features
    tokens = greedy(again, features, LENGTHS, suppress=False, kv_layer=kv_layer_factory(settings.kvbits))
    assert len(tokens) == len(LENGTHS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("family", "bits"), [(family, bits) for family, tiny in TINY.items() for bits in tiny.bits])
def test_every_method(family: str, method: str, bits: str, tmp_path: Path) -> None:
    check_or_refuse(family, composed(f"method={method}", f"bits={bits}", *QUICKER.get(method, [])), tmp_path)


@FAMILIES
@pytest.mark.parametrize("bits", BITS)
def test_every_bit_config(family: str, bits: str, tmp_path: Path) -> None:
    check_or_refuse(family, composed("method=gptq", f"bits={bits}", "group_size=32"), tmp_path)


def check_or_refuse(family: str, settings: Settings, folder: Path) -> None:
    """Refused is what acts on a decoder that the family lacks, or on a stream that no rotation passes."""
    build, needs = TINY[family].build, build_method(settings.method).needs
    graph = build().graph
    lacks = not graph.decoder and (needs.decoder or settings.kvbits < 16)
    if not lacks and (graph.rotatable or not needs.rotates_streams):
        check(family, settings, folder)
        return
    with pytest.raises(UserError, match=r"has no decoder|and .* has none|which no rotation passes"):
        quantize(build, settings)
