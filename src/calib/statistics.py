"""Statistics of link inputs: measured by one walk, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from src.calib.capture import Calibration
from src.calib.walk import Walker, WalkOptions
from src.models.speech import SpeechModel
from src.quant.link_statistics import LinkStatistics

FILE = "statistics.safetensors"
FIELDS = ("gram", "minimum", "maximum", "abs_mean", "powers")


def measure(speech: SpeechModel, calibration: Calibration, *, gram: bool) -> dict[str, LinkStatistics]:
    """Statistics by link name of every link's input in ``speech`` as it is."""
    collected: dict[str, LinkStatistics] = {}

    Walker(speech, calibration, WalkOptions(gram)).walk(lambda task: collected.update(task.statistics))
    return collected


def save_statistics(statistics: dict[str, LinkStatistics], path: Path) -> None:
    """Writes counts and all tensors; a Gram matrix only where there is one."""
    tensors: dict[str, Tensor] = {}
    stored: set[int] = set()  # links may share one tensor, a file may not
    for name, item in statistics.items():
        tensors[f"{name}.count"] = torch.tensor(item.count)
        for field in FIELDS:
            tensor = getattr(item, field)
            if tensor is not None:
                own = tensor.cpu()
                tensors[f"{name}.{field}"] = own.clone() if own.data_ptr() in stored else own
                stored.add(own.data_ptr())
    path.write_bytes(save(tensors))


def load_statistics(path: Path, device: torch.device) -> dict[str, LinkStatistics]:
    """Reads what :func:`save_statistics` wrote."""
    stored = load_file(path, device=str(device))
    names = sorted(name.removesuffix(".count") for name in stored if name.endswith(".count"))
    found = {}
    for name in names:
        tensors: dict[str, Any] = {field: stored.get(f"{name}.{field}") for field in FIELDS}
        found[name] = LinkStatistics(int(stored[f"{name}.count"]), **tensors)
    return found
