from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.quant.grid import (
    quantize,
    round_to_nearest,
    weight_range,
    weight_range_minmax,
    weight_range_mse,
)

GROUP = 8
BITS = st.integers(2, 8)
SPECS = st.builds(WeightSpec, BITS, st.sampled_from([-1, GROUP]), st.booleans())
MAGNITUDES = st.sampled_from([1e-6, 1e-3, 0.05, 1.0, 300.0])


def weights(seed: int, magnitude: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    heavy_tailed = torch.randn(5, 3 * GROUP, generator=generator) ** 3
    offset = torch.randn(5, 1, generator=generator)
    return (heavy_tailed + offset) * magnitude


def columns(values: torch.Tensor, width: int) -> torch.Tensor:
    """One value per group, repeated for every column of the group."""
    return values.float().repeat_interleave(width // values.shape[1], dim=1)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), spec=SPECS, magnitude=MAGNITUDES)
def test_minmax_rounds_every_weight_by_at_most_half_a_step(seed: int, spec: WeightSpec, magnitude: float) -> None:
    W = weights(seed, magnitude)
    rounded = round_to_nearest(W, spec)
    step = columns(rounded.scale, W.shape[1])
    # A scale stored in fp16 is off by up to 2^-11, or 2^-25 where it is subnormal; the far end by 2^bits times that.
    tolerance = spec.max_code * torch.maximum(step * 2**-11, torch.tensor(2.0**-25))
    assert ((rounded.dequantize() - W).abs() <= step / 2 + tolerance).all()


def rounding_error(W: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, spec: WeightSpec) -> torch.Tensor:
    """``sum |w - q|^2.4`` of each group, [out, groups]."""
    rounded = QuantizedWeight(quantize(W, scale, zero, spec.bits), scale, zero, spec).dequantize()
    return (rounded - W).abs().pow(2.4).view(*scale.shape, -1).sum(2)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), spec=SPECS, magnitude=MAGNITUDES)
def test_the_mse_range_is_never_worse_than_minmax(seed: int, spec: WeightSpec, magnitude: float) -> None:
    W = weights(seed, magnitude)
    searched, spanned = (rounding_error(W, *find(W, spec), spec) for find in (weight_range_mse, weight_range_minmax))
    assert (searched <= spanned * (1 + 1e-5)).all()


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), symmetric=st.booleans(), search=st.sampled_from(["minmax", "mse"]))
def test_more_bits_make_a_smaller_error(seed: int, symmetric: bool, search: str) -> None:
    W = weights(seed, 0.05)
    errors = [
        (round_to_nearest(W, WeightSpec(bits, -1, symmetric), search).dequantize() - W).square().sum()  # type: ignore[arg-type]
        for bits in (2, 3, 4, 6, 8)
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_asymmetric_grid_ends_at_the_smallest_and_the_largest_weight() -> None:
    W = torch.tensor([[-1.0, 0.3, 2.0]])
    rounded = round_to_nearest(W, WeightSpec(2, -1, False))
    assert rounded.scale.item() == 1.0
    assert rounded.zero.item() == 1
    assert rounded.codes.tolist() == [[0, 1, 3]]
    assert rounded.dequantize().tolist() == [[-1.0, 0.0, 2.0]]


def test_the_symmetric_grid_is_centred_on_the_middle_code() -> None:
    W = torch.tensor([[-1.5, 0.0, 0.6, 1.5]])
    rounded = round_to_nearest(W, WeightSpec(2, -1, True))
    assert rounded.scale.item() == 1.0
    assert rounded.zero.item() == 2
    assert rounded.dequantize().tolist() == [[-2.0, 0.0, 1.0, 1.0]]  # 1.5 lies half-way; the grid ends at 1


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("search", ["minmax", "mse"])
def test_rows_of_zeros_stay_zero(symmetric: bool, search: str) -> None:
    rounded = round_to_nearest(torch.zeros(2, 8), WeightSpec(3, 4, symmetric), search)  # type: ignore[arg-type]
    assert torch.equal(rounded.dequantize(), torch.zeros(2, 8))


@pytest.mark.parametrize("constant", [1e-12, 0.1, -0.1, 7.0])
def test_constant_rows_keep_their_value(constant: float) -> None:
    rounded = round_to_nearest(torch.full((1, 8), constant), WeightSpec(4, -1, False))
    torch.testing.assert_close(rounded.dequantize(), torch.full((1, 8), constant), rtol=2e-3, atol=1e-7)


def test_a_value_shifted_away_from_zero_still_has_zero_on_its_grid() -> None:
    scale, zero = weight_range_minmax(torch.tensor([[4.0, 5.0, 6.0]]), WeightSpec(2, -1, False))
    assert scale.item() == 2.0
    assert zero.item() == 0


def test_codes_are_those_of_the_stored_scale() -> None:
    W, spec = weights(0, 0.05), WeightSpec(8, -1, False)
    rounded = round_to_nearest(W, spec)
    assert rounded.scale.dtype == torch.float16
    assert torch.equal(rounded.codes, quantize(W, rounded.scale, rounded.zero, 8))
    assert torch.equal(round_to_nearest(rounded.dequantize(), spec).dequantize(), rounded.dequantize())


def test_the_search_does_not_depend_on_how_many_rows_it_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    W, spec = weights(3, 1.0), WeightSpec(3, GROUP, False)
    scale, zero = weight_range(W, spec, "mse")
    monkeypatch.setattr("src.quant.grid._SEARCH_ELEMENTS", 1)
    row_by_row = weight_range(W, spec, "mse")
    assert torch.equal(scale, row_by_row[0])
    assert torch.equal(zero, row_by_row[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        round_to_nearest(torch.tensor([[1.0, bad]]), WeightSpec(4, -1, False))


def test_weights_beyond_the_largest_stored_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="scale above 65504"):
        round_to_nearest(torch.tensor([[1e6, 0.0]]), WeightSpec(2, -1, False))
