from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from src.lowbit.double_quantization import QuantizedStatistics, StatisticsSpec, quantize_statistic
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.lowbit.outliers import DenseColumns, SparseOutliers
from src.quant.checkpoint import leftover_tensors, load_weights, save_weights
from src.quant.grid import round_to_nearest


class TiedModel(nn.Module):
    """Embedding and head share one parameter, as in Whisper and Moonshine."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 16)
        self.fc = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("positions", torch.arange(4.0))
        self.register_buffer("scratch", torch.zeros(100), persistent=False)


@pytest.fixture
def weights() -> dict[str, QuantizedWeight]:
    torch.manual_seed(0)
    ordered = round_to_nearest(torch.randn(6, 16), WeightSpec(3, 8, False))
    ordered.perm = torch.randperm(16)
    shifted = round_to_nearest(torch.randn(4, 16), WeightSpec(2, 8, False))
    shifted.zero = shifted.zero.half() + 0.25
    sparse = round_to_nearest(torch.randn(6, 16), WeightSpec(4, 8, False))
    sparse.sparse = SparseOutliers.where(torch.rand(6, 16) < 0.2, torch.randn(6, 16))
    scale, zero = (quantize_statistic(each.float(), StatisticsSpec(3, 4)) for each in (sparse.scale, sparse.zero))
    sparse.statistics = QuantizedStatistics(scale, zero)
    sparse.scale, sparse.zero = scale.values(), zero.values()
    dense = round_to_nearest(torch.randn(5, 16), WeightSpec(4, -1, False))
    dense.dense = DenseColumns(torch.randn(5, 2).half(), torch.tensor([3, 9], dtype=torch.int16))
    dense.codes[:, [3, 9]] = 0  # not stored
    return {
        "decoder.k": sparse,
        "decoder.v": dense,
        "decoder.q": shifted,
        "decoder.fc1": ordered,
        "decoder.fc2": round_to_nearest(torch.randn(5, 16), WeightSpec(4, -1, True)),
        "encoder.q": round_to_nearest(torch.randn(4, 16), WeightSpec(8, -1, False)),
    }


@pytest.fixture
def leftovers() -> dict[str, torch.Tensor]:
    return {"decoder.fc1.bias": torch.randn(6), "embed.weight": torch.randn(10, 16)}


def test_what_is_loaded_is_what_was_saved(
    tmp_path: Path, weights: dict[str, QuantizedWeight], leftovers: dict[str, torch.Tensor]
) -> None:
    save_weights(tmp_path / "model.safetensors", weights, leftovers)
    stored = load_weights(tmp_path / "model.safetensors")
    loaded, others = stored.weights, stored.leftovers
    assert loaded.keys() == weights.keys()
    for path, weight in weights.items():
        assert loaded[path].spec == weight.spec
        assert torch.equal(loaded[path].codes, weight.codes)
        assert torch.equal(loaded[path].dequantize(), weight.dequantize())
    assert {name: tensor.tolist() for name, tensor in others.items()} == {
        name: tensor.half().tolist() for name, tensor in leftovers.items()
    }


def test_the_file_is_as_large_as_its_parts(
    tmp_path: Path, weights: dict[str, QuantizedWeight], leftovers: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, weights, leftovers)
    (header,) = struct.unpack("<Q", path.read_bytes()[:8])
    parts = sum(weight.nbytes for weight in weights.values()) + sum(2 * tensor.numel() for tensor in leftovers.values())
    assert path.stat().st_size == 8 + header + parts


def test_equal_models_give_equal_bytes(
    tmp_path: Path, weights: dict[str, QuantizedWeight], leftovers: dict[str, torch.Tensor]
) -> None:
    save_weights(tmp_path / "a", weights, leftovers)
    save_weights(tmp_path / "b", dict(reversed(weights.items())), dict(reversed(leftovers.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_specifications_can_be_read_without_this_package(
    tmp_path: Path, weights: dict[str, QuantizedWeight]
) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, weights, {})
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    specs = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["quantized_model"])
    assert specs["weights"]["decoder.fc1"] == {"shape": [6, 16], "bits": 3, "group_size": 8, "symmetric": False}
    assert specs["weights"]["decoder.k"]["statistics"] == {"bits": 3, "rows": 4}


def test_leftovers_hold_a_tied_head_once_and_no_scratch_buffers() -> None:
    names = set(leftover_tensors(TiedModel(), {"fc"}))
    assert names == {"embed.weight", "fc.bias", "positions"}


def test_a_parameter_that_overflows_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"norm\.bias does not fit float16"):
        save_weights(tmp_path / "model", {}, {"norm.bias": torch.tensor([1e6])})


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="does not hold a quantized model"):
        load_weights(tmp_path / "other")
