from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.parts.bit_budget import allocate, smallest_size
from src.methods.parts.magnitudes import Magnitudes, output_magnitudes
from src.models.graph import RowKind
from src.models.speech import SpeechModel
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.methods.whole_models import bench_of
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


def quantized(speech: SpeechModel, *overrides: str) -> Quantizer:
    settings = composed("method=myqasr", *overrides)
    quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 2))
    quantizer.run()
    return quantizer


def stored(quantizer: Quantizer) -> int:
    return sum(weight.nbytes for weight in quantizer.weights.values())


def weights(quantizer: Quantizer) -> int:
    return sum(weight.codes.numel() for weight in quantizer.weights.values())


widths = st.lists(st.integers(2, 8), min_size=1, unique=True)
layers = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12)


def sizes_of(shapes: list[tuple[int, int]], choices: list[int]) -> dict[str, dict[int, int]]:
    specs = {bits: WeightSpec(bits, -1, False) for bits in choices}
    return {
        str(layer): {bits: spec.stored_bytes(8 * rows, 8 * columns) for bits, spec in specs.items()}
        for layer, (rows, columns) in enumerate(shapes)
    }


def total(sizes: dict[str, dict[int, int]], bits: dict[str, int]) -> int:
    return sum(sizes[layer][width] for layer, width in bits.items())


@given(shapes=layers, choices=widths, slack=st.floats(0, 2))
def test_a_feasible_budget_is_met_to_within_one_step_of_one_layer(
    shapes: list[tuple[int, int]], choices: list[int], slack: float
) -> None:
    sizes = sizes_of(shapes, choices)
    budget = smallest_size(sizes) * (1 + slack)
    bits = allocate(list(sizes), sizes, budget)
    used = total(sizes, bits)
    assert used <= budget
    steps = [by_width[up] - by_width[down] for by_width in sizes.values() for down, up in pairwise(sorted(choices))]
    assert set(bits.values()) == {max(choices)} or budget < used + max(steps)


@given(shapes=layers, choices=widths, budgets=st.tuples(st.floats(1, 3), st.floats(1, 3)))
def test_more_budget_never_takes_a_bit_from_any_layer(
    shapes: list[tuple[int, int]], choices: list[int], budgets: tuple[float, float]
) -> None:
    sizes = sizes_of(shapes, choices)
    less, more = (allocate(list(sizes), sizes, smallest_size(sizes) * each) for each in sorted(budgets))
    assert all(less[layer] <= more[layer] for layer in sizes)


@given(shapes=layers, choices=widths, factor=st.floats(0, 3))
def test_no_two_layers_are_more_than_one_width_apart(
    shapes: list[tuple[int, int]], choices: list[int], factor: float
) -> None:
    sizes = sizes_of(shapes, choices)
    bits = allocate(list(sizes), sizes, smallest_size(sizes) * factor)
    places = [sorted(choices).index(width) for width in bits.values()]
    assert max(places) - min(places) <= 1
    assert places == sorted(places)  # the first in order are the first to lose bits


@BUILDERS
@pytest.mark.parametrize("rounder", ["rtn", "gptq", "hqq"])
@pytest.mark.parametrize("group_size", [-1, 32])
def test_the_stored_model_meets_a_budget_in_bits_per_weight(
    build: Callable[[], SpeechModel], rounder: str, group_size: int
) -> None:
    choice = ("method.budget_bits=4.7", f"method@method.rounder={rounder}", f"group_size={group_size}")
    quantizer = quantized(build(), *choice)
    largest_step = max(weight.codes.numel() for weight in quantizer.weights.values()) / 8
    assert 0 <= 4.7 * weights(quantizer) / 8 - stored(quantizer) < 1.1 * largest_step
    assert len({row["wbits"] for row in quantizer.rows}) == 2


def test_a_column_order_is_part_of_the_budget() -> None:
    options = ("method@method.rounder=gptq", "method.rounder.static_groups=false", "group_size=16")
    quantizer = quantized(tiny_whisper(), *options, "method.budget_bits=6.5")
    assert all(weight.perm is not None for weight in quantizer.weights.values())
    assert stored(quantizer) <= 6.5 * weights(quantizer) / 8


def test_the_stored_model_meets_a_budget_in_megabytes() -> None:
    quantizer = quantized(tiny_whisper(), "method.budget_mb=0.09")
    assert 85_000 < stored(quantizer) <= 90_000


@pytest.mark.parametrize("wbits", [2, 3, 8])
def test_without_a_budget_it_is_half_a_bit_more_than_the_bit_config(wbits: int) -> None:
    uniform = quantized(tiny_whisper(), f"wbits={wbits}", "method.extra_bits=0")
    assert {row["wbits"] for row in uniform.rows} == {wbits}
    mixed = quantized(tiny_whisper(), f"wbits={wbits}")
    assert {row["wbits"] for row in mixed.rows} == ({wbits, wbits + 1} if wbits < 8 else {8})
    assert stored(mixed) <= stored(uniform) + 0.5 * weights(uniform) / 8


@pytest.mark.parametrize("budget", ["budget_bits=1.5", "budget_mb=0.001"])
def test_an_infeasible_budget_names_the_smallest_feasible_one(budget: str) -> None:
    with pytest.raises(UserError, match=r"too small for 2 bits everywhere") as raised:
        quantized(tiny_whisper(), f"method.{budget}")
    named = re.search(r"method\.(\w+)=([\d.]+)\.$", str(raised.value))
    assert named is not None
    assert named[1] == budget.partition("=")[0]
    assert {row["wbits"] for row in quantized(tiny_whisper(), f"method.{named[1]}={named[2]}").rows} == {2}
    with pytest.raises(UserError):
        quantized(tiny_whisper(), f"method.{named[1]}={float(named[2]) * 0.999}")


@BUILDERS
@pytest.mark.parametrize("first", ["largest", "smallest"])
def test_layers_lose_bits_in_the_order_of_their_median_output(build: Callable[[], SpeechModel], first: str) -> None:
    speech = build()
    paths = [linear.path for linear in speech.graph.linears]
    medians = {
        path: each.median for path, each in output_magnitudes(speech, noise_calibration(speech, 2), paths).items()
    }
    rows = quantized(build(), "method.budget_bits=4.7", f"method.first={first}").rows
    low, high = ([medians[row["linear"]] for row in rows if row["wbits"] == bits] for bits in (4, 5))
    assert min(low) >= max(high) if first == "largest" else max(low) <= min(high)


@BUILDERS
def test_medians_are_those_of_every_clip_on_its_own(build: Callable[[], SpeechModel]) -> None:
    """Batches hold padding, which must not count; medians are rounded to bfloat16."""
    speech = build()
    paths = [linear.path for linear in speech.graph.linears]
    found = output_magnitudes(speech, noise_calibration(speech, 3), paths)
    seen: dict[str, list[torch.Tensor]] = {path: [] for path in paths}
    for path in paths:
        speech.module.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, path=path: seen[path].append(output.flatten().abs())
        )
    with torch.no_grad():
        for features, tokens in noise_calibration(speech, 1).batches():
            speech.forward_tokens(torch.tensor(tokens), speech.encode(features))
    for path in paths:
        values = torch.cat(seen[path])
        assert found[path].median == pytest.approx(float(values.median()), rel=0.005), path
        assert found[path].mean == pytest.approx(float(values.mean()), rel=0.005)
        assert found[path].largest == pytest.approx(float(values.max()), rel=0.005)
    assert {speech.graph.link_of(path).rows for path in paths} == {RowKind.FRAME, RowKind.TOKEN}


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_a_histogram_has_the_median_of_its_values(count: int) -> None:
    magnitudes, x = Magnitudes(torch.device("cpu")), torch.randn(count)
    for part in x.split(3):
        magnitudes.update(part)
    assert magnitudes.median == float(x.abs().bfloat16().median())


def test_layers_out_of_scope_are_neither_measured_nor_changed() -> None:
    quantizer = quantized(tiny_whisper(), "scope.encoder=false", "method.budget_bits=3")
    for row in quantizer.rows:
        assert (row["wbits"] == 16) == (row["component"] == "encoder")
    assert stored(quantizer) <= 3 * weights(quantizer) / 8


def test_nothing_is_planned_where_weights_stay_at_sixteen_bits() -> None:
    bench = bench_of(tiny_whisper())
    bench.plan = dict.fromkeys(bench.plan)
    assert build_method(composed("method=myqasr").method).plan(bench) == bench.plan


@pytest.mark.parametrize("rounder", ["spqr", "quik", "fp"])
def test_a_rounder_whose_size_depends_on_the_weights_is_refused(rounder: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.rounder: '{rounder}'"):
        build_method(composed("method=myqasr", f"method@method.rounder={rounder}").method)


def test_two_budgets_are_one_too_many() -> None:
    with pytest.raises(UserError, match="there is a budget_mb too"):
        build_method(composed("method=myqasr", "method.budget_mb=1", "method.budget_bits=4").method)
