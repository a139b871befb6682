"""Stores a recogniser at 8 bits: ``python -m src.embedded.shrink whisper_tiny_en_package FOLDER``.

Linears, and the embedding that is the head too, become 8-bit codes with a scale and a zero point a row, in the format
of :mod:`src.quant.checkpoint`; convolutions, positions, norms and biases stay at 16 bits. Weights that lie on a grid
already, as those of Moonshine's authors, keep it, and every value as it is. The folder is a ``model.source``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from shutil import copyfile

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor

from src.lowbit.granularity import PER_CHANNEL, QuantizedWeight, WeightSpec
from src.models.files import WEIGHTS, settings_files
from src.models.loading import load
from src.models.source import checkpoint_folder, model_identity
from src.project import ROOT
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.grid import round_to_nearest
from src.settings import ModelSettings

TOKENIZER = "tokenizer.json"
EIGHT_BITS = WeightSpec(8, PER_CHANNEL, symmetric=False)


def shrink(settings: ModelSettings, folder: Path) -> None:
    """Writes the model of ``settings`` to ``folder``.

    Raises:
        UserError: it cannot be loaded.
    """
    model_identity(settings)  # checks the files' digests
    speech = load(settings, "cpu", seed=0)
    paths = [*(linear.path for linear in speech.graph.linears), speech.graph.embedding]
    weights = {path: at_eight_bits(speech.module.get_parameter(f"{path}.weight").detach()) for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / WEIGHTS, weights, leftover_tensors(speech.module, weights))
    source = checkpoint_folder(settings)
    for file in settings_files(source) if source else []:
        if file.name == TOKENIZER:  # a third of it is indentation
            words = json.loads(file.read_text(encoding="utf-8"))
            text = json.dumps(words, ensure_ascii=False, separators=(",", ":"))
            (folder / file.name).write_text(text, encoding="utf-8")
        else:
            copyfile(file, folder / file.name)


def at_eight_bits(W: Tensor) -> QuantizedWeight:
    """``W`` [out, in] on its own grid where it has one, rounded to nearest where not."""
    scale = W.abs()[W != 0].min()
    codes = (W / scale).round()
    zero = -codes.min().clamp(max=0)
    if (codes + zero).max() <= EIGHT_BITS.max_code and torch.equal(codes * scale, W):
        rows = (len(W), 1)
        grids = scale.expand(rows).contiguous(), zero.to(torch.uint8).expand(rows).contiguous()
        return QuantizedWeight((codes + zero).to(torch.uint8), *grids, EIGHT_BITS)
    return round_to_nearest(W, EIGHT_BITS)


def named_model(name: str) -> ModelSettings:
    """What ``conf/model/NAME.yaml`` says."""
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return ModelSettings.model_validate(OmegaConf.to_container(compose(f"model/{name}").model))


def main() -> None:
    parser = argparse.ArgumentParser(description="store a recogniser at 8 bits")
    parser.add_argument("model", help="the name of a yaml in conf/model")
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    shrink(named_model(chosen.model), chosen.folder)
    print(f"{chosen.folder}: {sum(file.stat().st_size for file in chosen.folder.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
