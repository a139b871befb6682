"""Preparing the Hessian of layer-wise quantization, ``H = X X^T``, so that it can be inverted."""

from __future__ import annotations

import torch
from torch import Tensor

from src.errors import UserError

DAMP_FACTOR = 10.0
LARGEST_DAMP = 1.0


def without_dead_columns(W: Tensor, H: Tensor) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Copies of ``W`` [out, in] and ``H`` [in, in] in which inputs that were always zero (``H_jj = 0``) do no harm.

    As in the GPTQ authors' code, such a column of ``W`` becomes 0 and its ``H_jj`` positive; here the mean of the
    others, so that the damping does not depend on the scale of ``H``.

    Returns:
        ``W``, ``H`` and a note on the dead columns, if there are any.

    Raises:
        UserError: ``H`` is not finite, or zero.
    """
    if not torch.isfinite(H).all():
        raise UserError("calib", "the layer's inputs hold NaN or infinity", "Check the model's weights and the clips")
    W, H = W.clone(), H.clone()
    dead = H.diagonal() == 0
    count = int(dead.sum())
    if not count:
        return W, H, ()
    if count == len(dead):
        raise UserError("calib.n", "every input of the layer was zero", "Use more clips, or clips that hold speech")
    H.diagonal()[dead] = H.diagonal()[~dead].mean()
    W[:, dead] = 0
    return W, H, (f"{count} of {len(dead)} input columns were always zero: their weights were set to 0",)


def inverse_cholesky(H: Tensor, damp: float) -> tuple[Tensor, tuple[str, ...]]:
    """Upper triangular ``U`` with ``(H + damp mean(diag H) I)^-1 = U^T U``, raising the damping where that fails.

    With ``J`` the reversal of rows and columns and ``J H J = L L^T``, ``U = J L^-1 J``: one factorisation in float64
    instead of two and an explicit inverse. Where it fails, the damping grows tenfold, up to the mean of the diagonal.

    Args:
        H: symmetric [in, in], finite, with a positive diagonal.
        damp: first damping to try, above 0.

    Returns:
        ``U`` float32 [in, in] and a note for every time the damping was raised.

    Raises:
        UserError: ``H`` is not positive definite at any damping.
    """
    reversed_H = H.double().flip(0, 1)
    mean = reversed_H.diagonal().mean()
    eye = torch.eye(len(H), dtype=torch.float64, device=H.device)
    notes: list[str] = []
    while True:
        L, failed = torch.linalg.cholesky_ex(reversed_H + damp * mean * eye)
        if not failed:
            U = torch.linalg.solve_triangular(L, eye, upper=False).flip(0, 1)
            return U.float().contiguous(), tuple(notes)
        if damp >= LARGEST_DAMP:
            raise UserError(
                "method.damp",
                f"the Gram matrix is not positive definite even with damping {damp:g}",
                "Use more calibration clips (calib.n), or method=rtn, which needs none",
            )
        damp = min(damp * DAMP_FACTOR, LARGEST_DAMP)
        notes.append(f"damping raised to {damp:g} after a failed Cholesky factorisation")
