"""Puts what was stored of a quantized model back into a model of the same architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from src.models.speech import SpeechModel
from src.quant.checkpoint import StoredModel, load_weights
from src.quant.ends import write_weight
from src.quant.inputs import PER_TOKEN
from src.quant.linear import install
from src.quant.structure import apply_edit


def restore(speech: SpeechModel, checkpoint: Path, abits: Mapping[str, int]) -> StoredModel:
    """Puts a stored quantized model, or some of its blocks, into ``speech`` and returns what was stored.

    Args:
        speech: a freshly loaded model of the same architecture; of blocks, one that had the same done to it before.
        checkpoint: the file.
        abits: bits of the input by path, of every linear that is stored.
    """
    stored = load_weights(checkpoint)
    for edit in stored.edits:
        apply_edit(speech.module, edit)
    tensors = {**dict(speech.module.named_parameters()), **dict(speech.module.named_buffers())}
    with torch.no_grad():
        for name, tensor in stored.leftovers.items():
            tensors[name].copy_(tensor)
    for path, bits in abits.items():
        grid = stored.inputs.get(path, PER_TOKEN)
        if path in stored.weights:
            weight = stored.weights[path]
            install(speech.module, path, weight.dequantize(), bits, weight.exact_inputs, grid)
        else:
            install(speech.module, path, None, bits, grid=grid)
    for path in stored.weights.keys() - abits.keys():
        write_weight(speech.module, path, stored.weights[path])
    return stored
