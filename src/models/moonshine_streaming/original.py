"""Tensors of a prepared Moonshine Streaming (:mod:`src.models.moonshine_streaming.parts`) as transformers has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

ADAPTER = "model.decoder.adapter"
_TABLE = "model.decoder.pos_emb.weight"


def restored(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The ``tensors`` of a prepared module, by name, as those of the module that was prepared.

    transformers adds 1 to a ``gamma`` in float32, and gets the norm's weight to the last bit where that was stored in
    float16, whose values are multiples of ``2^-24``; or misses by that much what lies between ``-2^-13`` and 0.
    """
    found = {}
    for name, tensor in tensors.items():
        path, _, kind = name.rpartition(".")
        if name == f"{ADAPTER}.positions":
            found[_TABLE] = tensor.T
        elif name == f"{ADAPTER}.positions.weight":
            found[_TABLE] = tensor
        elif name == f"{ADAPTER}.weight" and tensor.ndim == 2:
            found["model.decoder.proj.weight"] = tensor
        elif name == f"{ADAPTER}.weight":
            found["model.encoder.final_norm.gamma"] = _gamma(tensor)
        elif path.startswith("model.encoder.") and path.endswith("norm") and kind == "weight":
            found[f"{path}.gamma"] = _gamma(tensor)
        else:
            found[name] = tensor
    return found


def _gamma(weight: np.ndarray) -> np.ndarray:
    gamma: np.ndarray = weight.astype(np.float32) - 1
    return gamma
