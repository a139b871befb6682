"""Figures of the layer table: known distributions, channels with outliers, and the same from running sums."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor

from src.calib.running_statistics import RunningStatistics
from src.calib.statistics import load_statistics, save_statistics
from src.lowbit.granularity import WeightSpec
from src.quant.figures import Distribution, input_distribution, sqnr_db, tensor_distribution, weight_figures
from src.quant.grid import round_to_nearest
from src.quant.link_statistics import LinkStatistics


def _drawn(kind: str) -> Tensor:
    uniform = torch.rand(400, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normal = torch.randn(400, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if kind == "laplace":
        centred = uniform - 0.5
        return (centred.sign() * torch.log1p(-2 * centred.abs())).float()
    return {"uniform": 2 * uniform - 1, "normal": 3 * normal + 5}[kind].float()


@pytest.mark.parametrize(("kind", "expected"), [("uniform", -1.2), ("normal", 0.0), ("laplace", 3.0)])
def test_kurtosis_of_known_distributions(kind: str, expected: float) -> None:
    x = _drawn(kind)
    found = tensor_distribution(x)
    assert found.kurtosis == pytest.approx(expected, abs=0.15)
    assert found.kurtosis == pytest.approx(scipy.stats.kurtosis(x.double().numpy().ravel()), abs=1e-3)


def test_peak_is_the_largest_over_the_mean_magnitude() -> None:
    assert tensor_distribution(torch.tensor([[1.0, -1.0], [2.0, -8.0]])).peak == pytest.approx(8 / 3)


def test_channels_with_an_element_beyond_six_deviations_are_outliers() -> None:
    x = _drawn("normal")
    assert tensor_distribution(x).outlier_channels == 0
    x[7, 3] = 5 + 3 * 7.0
    x[9, 3] = 5 - 3 * 7.0
    x[9, 4] = 5 + 3 * 5.0
    assert tensor_distribution(x).outlier_channels == 1


def test_a_constant_has_no_shape() -> None:
    assert tensor_distribution(torch.full((4, 4), 2.0)) == Distribution(0.0, 1.0, 0)
    assert tensor_distribution(torch.zeros(4, 4)) == Distribution(0.0, 0.0, 0)


def _running(x: Tensor, batches: int) -> LinkStatistics:
    running = RunningStatistics(x.shape[1], gram=False, device=torch.device("cpu"))
    for batch in x.chunk(batches):
        running.update(batch)
    return running.finish()


def test_running_sums_tell_what_the_inputs_do() -> None:
    x = _drawn("laplace")
    x[:, 11] *= 40
    expected = tensor_distribution(x)
    assert expected.outlier_channels >= 1
    for statistics in (_running(x, 1), _running(x, 7)):
        found = input_distribution(statistics)
        assert found is not None
        assert found.kurtosis == pytest.approx(expected.kurtosis, rel=1e-5)
        assert found.peak == pytest.approx(expected.peak, rel=1e-5)
        assert found.outlier_channels == expected.outlier_channels


def test_statistics_of_scaled_inputs_are_those_of_the_scaled_tensor() -> None:
    x = _drawn("laplace")
    scales = torch.linspace(0.5, 4.0, x.shape[1])
    found, expected = input_distribution(_running(x, 3).divided(scales)), tensor_distribution(x / scales)
    assert found is not None
    assert found.kurtosis == pytest.approx(expected.kurtosis, rel=1e-4)
    assert found.peak == pytest.approx(expected.peak, rel=1e-4)


def test_powers_survive_the_disk_and_are_absent_from_older_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    statistics = _running(_drawn("normal"), 2)
    save_statistics({"link": statistics}, tmp_path / "statistics.safetensors")
    loaded = load_statistics(tmp_path / "statistics.safetensors", torch.device("cpu"))["link"]
    assert input_distribution(loaded) == input_distribution(statistics)
    older = LinkStatistics(statistics.count, None, statistics.minimum, statistics.maximum, statistics.abs_mean)
    assert input_distribution(older) is None
    assert input_distribution(None) is None


def test_a_bit_more_is_six_decibels_more() -> None:
    W = _drawn("uniform")
    noise = [
        weight_figures(W, round_to_nearest(W, WeightSpec(bits, -1, False)).dequantize())["weight_sqnr_db"]
        for bits in (5, 6, 7)
    ]
    assert noise[1] - noise[0] == pytest.approx(6.02, abs=0.3)
    assert noise[2] - noise[1] == pytest.approx(6.02, abs=0.3)


def test_decibels_of_an_error() -> None:
    assert sqnr_db(0.1) == pytest.approx(20.0)
    assert sqnr_db(0.0) is None
    assert sqnr_db(None) is None


def test_output_noise_needs_the_gram_matrix() -> None:
    W, x = _drawn("normal")[:8, :16], _drawn("normal")[:64, :16]
    Q = round_to_nearest(W, WeightSpec(4, -1, False)).dequantize()
    exact = -20 * torch.log10(torch.linalg.norm(x @ (W - Q).T) / torch.linalg.norm(x @ W.T))
    assert weight_figures(W, Q, x.T @ x)["output_sqnr_db"] == pytest.approx(float(exact), rel=1e-4)
    assert weight_figures(W, Q)["output_sqnr_db"] is None
