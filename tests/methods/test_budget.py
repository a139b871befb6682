from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.parts.bit_budget import Bound, cheapest
from src.methods.parts.sensitivity import measure_sensitivities
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.ends import flat_weight
from src.records import read_record
from tests.calib.clips import noise_calibration
from tests.commands import run
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
ALL = "scope=everything"


def quantized(speech: SpeechModel, *overrides: str) -> Quantizer:
    chosen = composed(*overrides)
    quantizer = Quantizer(speech, build_method(chosen.method), chosen, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


@torch.no_grad()
def log_probabilities(speech: SpeechModel) -> Tensor:
    """Of every word after every token of the transcripts, [tokens, words]."""
    calibration = noise_calibration(speech, 1)
    found = []
    for features, tokens in zip(calibration.features, calibration.tokens, strict=True):
        logits = speech.forward_tokens(torch.tensor([tokens]), speech.encode([features]))[0]
        found.append(logits[len(speech.prompt) - 1 :].double().log_softmax(-1))
    return torch.cat(found)


def divergence(original: Tensor, changed: Tensor) -> float:
    return (original.exp() * (original - changed)).sum().item()


@given(
    layers=st.lists(
        st.tuples(st.integers(1, 50), st.lists(st.floats(0, 10), min_size=3, max_size=3)), min_size=1, max_size=5
    ),
    slack=st.floats(0, 2),
)
@settings(deadline=None)
def test_no_bits_that_fit_cost_less(layers: list[tuple[int, list[float]]], slack: float) -> None:
    widths = (2, 3, 8)
    costs = {str(layer): dict(zip(widths, cost, strict=True)) for layer, (_, cost) in enumerate(layers)}
    sizes = {str(layer): {bits: size * bits for bits in widths} for layer, (size, _) in enumerate(layers)}
    times = {layer: {bits: bits**2 for bits in widths} for layer in costs}
    small, fast = (Bound("", 0, 1, 3, uses) for uses in (sizes, times))
    small, fast = (replace(each, amount=each.least * (1 + slack)) for each in (small, fast))
    bits = cheapest(costs, [small, fast])

    def fits(chosen: dict[str, int]) -> bool:
        return all(each.spent(chosen) <= each.amount * (1 + 1e-9) for each in (small, fast))

    assert fits(bits)
    possible = (dict(zip(costs, chosen, strict=True)) for chosen in product(widths, repeat=len(costs)))
    least = min(sum(costs[layer][width] for layer, width in each.items()) for each in possible if fits(each))
    assert sum(costs[layer][width] for layer, width in bits.items()) == pytest.approx(least, rel=1e-5, abs=1e-6)


@BUILDERS
@pytest.mark.parametrize("part", ["encoder linear", "decoder linear", "convolution", "embedding", "head"])
def test_a_cost_is_the_divergence_that_a_small_error_causes(build: Callable[..., SpeechModel], part: str) -> None:
    """Of an error in one row, on average over the words that are drawn."""
    speech = build(tie_word_embeddings=False)
    graph, module = speech.graph, speech.module
    path = {
        "encoder linear": graph.encoder[0].linears[2].path,
        "decoder linear": graph.decoder[0].linears[-1].path,
        "convolution": graph.frontend[1],
        "embedding": graph.embedding,
        "head": graph.head,
    }[part]
    calibration = noise_calibration(speech, 1)
    W = flat_weight(module, path)
    row = calibration.tokens[0][-1] if part in ("embedding", "head") else 7
    E = torch.zeros_like(W)
    E[row] = torch.randn(W.shape[1], generator=torch.Generator().manual_seed(0)) * W.std() * 0.1
    original = log_probabilities(speech)
    matrices = () if part in ("embedding", "head") else (path,)
    costs = []
    for seed in range(1 if part == "head" else 60):
        sensitivities = measure_sensitivities(speech, calibration, matrices, seed=seed)
        rows = sensitivities.rows(path)
        assert E[rows].any()
        costs.append(sensitivities.cost(path, E[rows]))
    W += E
    expected = divergence(original, log_probabilities(speech))
    assert sum(costs) / len(costs) == pytest.approx(expected, rel=0.05 if part == "head" else 0.35)


@BUILDERS
@pytest.mark.parametrize("megabytes", [0.12, 0.15, 0.2])
def test_the_file_meets_the_budget(build: Callable[[], SpeechModel], megabytes: float, tmp_path: Path) -> None:
    speech = build()
    quantizer = quantized(speech, "method=budget", f"method.megabytes={megabytes}", "group_size=-1", ALL)
    path = tmp_path / "model.safetensors"
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(path, quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    widths = {row["linear"]: row["wbits"] for row in quantizer.rows}
    assert path.stat().st_size <= megabytes * 1e6
    assert len(set(widths.values())) > 1
    header = 600 * len(widths)  # the bound on it is not tight
    smallest_step = min(weight.codes.numel() for weight in quantizer.weights.values()) / 8
    assert set(widths.values()) == {8} or path.stat().st_size > megabytes * 1e6 - header - smallest_step - 20_000


@BUILDERS
@pytest.mark.parametrize("rounder", ["rtn", "gptq"])
def test_planned_bits_lose_less_than_uniform_ones_of_the_same_size(
    build: Callable[[], SpeechModel], rounder: str
) -> None:
    original = log_probabilities(build())
    found, sizes = {}, {}
    for method in (f"method={rounder}", "method=budget"):
        speech = build()
        more = [f"method@method.rounder={rounder}"] if method == "method=budget" else []
        bits = ("wbits=3", "head_bits=3", "frontend_bits=3", "group_size=-1")
        quantizer = quantized(speech, method, *more, *bits, f"method@ends={rounder}")
        sizes[method] = sum(weight.nbytes for weight in quantizer.weights.values())
        found[method] = divergence(original, log_probabilities(speech))
    assert sizes["method=budget"] <= sizes[f"method={rounder}"]
    assert found["method=budget"] < 0.7 * found[f"method={rounder}"]


def test_a_plan_foretells_its_cost_which_falls_with_the_size_of_the_file() -> None:
    """Of a few clips, it is in the right order and not of the right size."""
    found = []
    for megabytes in (0.13, 0.15, 0.2):
        quantizer = quantized(tiny_whisper(), "method=budget", f"method.megabytes={megabytes}", "group_size=-1", ALL)
        assert quantizer.expected_nats is not None
        found.append(quantizer.expected_nats)
    assert found[0] > found[1] > found[2] > 0
    assert quantized(tiny_whisper(), "method=rtn").expected_nats is None


def test_a_plan_behind_a_rotation_is_one_of_the_rotated_model() -> None:
    quantizer = quantized(
        tiny_whisper(), "method=quarot", "method@method.rounder=budget", "method.rounder.megabytes=0.17", ALL
    )
    assert len({row["wbits"] for row in quantizer.rows}) > 1


def test_without_embedding_and_head_they_stay_as_they_are() -> None:
    quantizer = quantized(tiny_whisper(), "method=budget", "wbits=3")
    assert not {row["component"] for row in quantizer.rows} & {"head", "frontend"}


def test_a_budget_that_nothing_meets_names_the_smallest() -> None:
    with pytest.raises(UserError, match=r"0\.05 is too small for the fewest bits everywhere") as error:
        quantized(tiny_whisper(), "method=budget", "method.megabytes=0.05", ALL)
    smallest = float(str(error.value).split("method.megabytes=")[1].split()[0].rstrip("."))
    quantized(tiny_whisper(), "method=budget", f"method.megabytes={smallest}", ALL)


def test_widths_that_are_all_too_large_are_named() -> None:
    with pytest.raises(UserError, match=r"method\.widths: \[5, 6\] are all too large"):
        quantized(tiny_whisper(), "method=budget", "method.widths=[5,6]", "wbits=4")


def test_what_stores_more_than_codes_has_no_size_to_plan_with() -> None:
    with pytest.raises(UserError, match="does not say how large"):
        build_method(composed("method=budget", "method@method.rounder=spqr").method)


def test_the_reference_utterance_meets_the_budgets(tmp_path: Path) -> None:
    """Bounds of the profile's figures, with bits and group sizes to choose from; both bind."""
    chosen = ("method.io_megabytes=28", "method.gbops=52", "method.group_sizes=[32,-1]", "method.widths=[2,4,8]")
    few = ("calib.n=2", "dataset.limit=1", f"output_dir={tmp_path}")
    done = run("src.main", "model=sandbox_whisper", "method=budget", "abits=8", ALL, *chosen, *few)
    assert done.returncode == 0, done.stderr
    (record,) = (read_record(file) for file in (tmp_path / "records").glob("*.json"))
    profile = record.plain["results"]["profile"]
    assert 27.5e6 < profile["memory_io_bytes"] <= 28e6
    assert 51e9 < profile["bops"] <= 52e9
