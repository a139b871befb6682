"""A residual two-layer MLP as a block under quantization: what the authors' block trainers were run on too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from calibration_rows import correlated
from torch import Tensor, nn

from src.calib.task import BlockInput, BlockTask
from src.lowbit.granularity import QuantizedWeight, WeightSpec
from src.methods.workbench import Workbench
from src.models.graph import Block, Component, Feed, Linear, Link, ModelGraph, RowKind
from src.quant.link_statistics import LinkStatistics

CLIPS, ROWS, D, FFN, SEED, WEIGHT_FACTOR = 16, 24, 32, 64, 11, 4


class MLP(nn.Module):
    def __init__(self, W1: Tensor, W2: Tensor) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(D, FFN, bias=False), nn.Linear(FFN, D, bias=False)
        self.fc1.weight, self.fc2.weight = nn.Parameter(W1), nn.Parameter(W2)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Weights of both layers and inputs [clips, rows, d]; the golden files were made from the same recipe."""
    W1, X = correlated(FFN, D, CLIPS * ROWS, SEED)
    W2, _ = correlated(D, FFN, 1, SEED + 1)
    return W1 * WEIGHT_FACTOR, W2 * WEIGHT_FACTOR, X.view(CLIPS, ROWS, D)


def problem(spec: WeightSpec, abits: int = 16, seed: int = 0) -> tuple[Workbench, BlockTask]:
    """The block, its calibration clips in two batches, and a workbench that knows nothing else."""
    W1, W2, X = inputs()
    root = nn.ModuleDict({"block": MLP(W1, W2)})
    linears = (Linear("block.fc1", Component.ENCODER, FFN, D), Linear("block.fc2", Component.ENCODER, D, FFN))
    block = Block("block", linears)
    links = tuple(Link(f"{each.path}.in", (each.path,), "block", Feed.ACTIVATION, RowKind.FRAME) for each in linears)
    graph = ModelGraph((block,), (), links, "", "", (), "", "", D)
    speech: Any = SimpleNamespace(module=root, graph=graph)
    paths = [each.path for each in linears]
    bench = Workbench(speech, dict.fromkeys(paths, spec), dict.fromkeys(paths, abits), 16, None, seed)
    batches = [BlockInput(half, {}, torch.ones(half.shape[:2], dtype=torch.bool)) for half in X.split(CLIPS // 2)]
    targets = [root["block"](each.hidden) for each in batches]
    statistics = {link.name: LinkStatistics(0) for link in links}
    return bench, BlockTask(block, root["block"], batches, targets, statistics)


@torch.no_grad()
def error(weights: dict[str, QuantizedWeight]) -> float:
    """Mean squared error of the block's output with these weights."""
    W1, W2, X = inputs()
    rounded = MLP(*(weights[f"block.{name}"].dequantize() for name in ("fc1", "fc2")))
    return float((rounded(X) - MLP(W1, W2)(X)).square().mean())
