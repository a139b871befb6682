"""The error that quantizing a weight causes at a linear's output, from the Gram matrix of its inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from src.models.products import product


def output_error(W: Tensor, Q: Tensor, H: Tensor) -> float:
    """``||(W - Q) X||^2 = tr((W - Q) H (W - Q)^T)`` for ``W``, ``Q`` [out, in] and ``H = X X^T`` [in, in].

    The objective of layer-wise quantization, eq. (1) of GPTQ (arXiv 2210.17323). Products are in the type of the
    tensors, of which ``H`` is symmetric; their sum is in float64.
    """
    D = W - Q
    return float((product(D, H.to(D)) * D).sum(dtype=torch.float64))


def relative_output_error(W: Tensor, Q: Tensor, H: Tensor) -> float:
    """``||(W - Q) X|| / ||W X||`` for ``W``, ``Q`` [out, in] and inputs with Gram matrix ``H = X X^T`` [in, in]."""
    power = output_error(W, torch.zeros_like(W), H)
    return math.sqrt(max(output_error(W, Q, H), 0.0) / power) if power > 0 else 0.0
