"""Statistics of the fp model's link inputs, measured once and shared by every method and bit-width that reads them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from src.calib.capture import Calibration, load_calibration
from src.calib.walk import Walker
from src.methods.base import LinkStatistics
from src.models.graph import Block
from src.models.speech import SpeechModel
from src.point import Point

FILE = "statistics.safetensors"
FIELDS = ("gram", "abs_max", "abs_mean")


def full_precision_statistics(point: Point, speech: SpeechModel) -> dict[str, LinkStatistics]:
    """Statistics by link name, Gram matrices included, for ``calib.propagate=fp``; from the store where they exist.

    ``speech`` must still be at full precision.
    """
    entry = point.statistics("gram")

    def build(folder: Path) -> None:
        calibration = load_calibration(point.calibration.path, point.settings.calib.batch_size)
        save_statistics(measure(speech, calibration, gram=True), folder / FILE)

    return load_statistics(entry.obtain(build) / FILE, speech.device)


def measure(speech: SpeechModel, calibration: Calibration, *, gram: bool) -> dict[str, LinkStatistics]:
    """Statistics by link name of every link's input in ``speech`` as it is."""
    collected: dict[str, LinkStatistics] = {}

    def keep(_: Block, statistics: dict[str, LinkStatistics]) -> None:
        collected.update(statistics)

    Walker(speech, calibration, gram=gram, refresh=False).walk(keep)
    return collected


def save_statistics(statistics: dict[str, LinkStatistics], path: Path) -> None:
    """Writes counts and all tensors; a Gram matrix only where there is one."""
    tensors: dict[str, Tensor] = {}
    for name, item in statistics.items():
        tensors[f"{name}.count"] = torch.tensor(item.count)
        for field in FIELDS:
            tensor = getattr(item, field)
            if tensor is not None:
                tensors[f"{name}.{field}"] = tensor.cpu().clone()  # links may share one tensor, a file may not
    save_file(tensors, path)


def load_statistics(path: Path, device: torch.device) -> dict[str, LinkStatistics]:
    """Reads what :func:`save_statistics` wrote."""
    stored = load_file(path, device=str(device))
    names = sorted(name.removesuffix(".count") for name in stored if name.endswith(".count"))
    return {
        name: LinkStatistics(int(stored[f"{name}.count"]), **{field: stored.get(f"{name}.{field}") for field in FIELDS})
        for name in names
    }
