"""Learned affine transforms of what links carry, which the weights of their linears undo.

FlatQuant (arXiv 2410.09426, sec. 3): ``x W^T = (x diag(s) P) (W diag(s)^-1 P^-T)^T`` with ``P = L (x) R`` of two
matrices of about equal size. Where each part goes follows from what feeds the link:

- a norm: ``s`` is folded into it, and its output is multiplied by ``P`` once for all linears that read it. The final
  norm of the encoder feeds the cross-attention of every decoder block, each of which has a ``P`` of its own and no
  ``s``: its k and its v multiply their inputs.
- values of an attention: ``R`` acts inside every head and is folded into v; o multiplies its input by ``L``, which
  mixes the heads. There is no ``s``.
- a gated linear: ``s`` is folded into it, and the linear multiplies its input by ``P``.
- a non-linearity: likewise, without ``s``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.methods.parts.hadamard import random_orthogonal
from src.methods.parts.invertible_matrix import Invertible, InvertibleMatrix
from src.methods.parts.learned_scale import initial_scale
from src.models.graph import Block, Feed, Link
from src.quant.rotation import times
from src.quant.structure import RotationKind, rotation_edit
from src.settings import FULL_PRECISION

if TYPE_CHECKING:
    from src.calib.task import BlockTask
    from src.methods.workbench import Workbench

_SMALLEST_SHARE = 1e-2  # of its start, to which a scale may fall


@dataclass(frozen=True, eq=False)
class Matrices:
    """``L`` and ``R`` of one transform; without ``L``, there is one slice or one head."""

    right: Invertible
    left: Invertible | None

    def undo(self, W: Tensor) -> Tensor:
        """``W P^-T`` for ``W`` [..., in]."""
        return times(W, self.right.undo, 1 if self.left is None else self.left.undo)


@dataclass(eq=False)
class AffineLink:
    """The transform of one link inside one block; names are relative to the block.

    Attributes:
        feed: what feeds the link.
        source: its producer, whether or not it is in the block.
        rows: rows of the producer that reach the linears.
        linears: those of the block that read the link.
        output: whether the producer multiplies by ``P``, and not each linear.
        right: ``R``.
        left: ``L``, if any.
        s: scale [in] that the producer absorbs, if any.
    """

    feed: Feed
    source: str
    rows: slice
    linears: tuple[str, ...]
    output: bool
    right: InvertibleMatrix
    left: InvertibleMatrix | None
    s: Tensor | None

    def __post_init__(self) -> None:
        self._least = None if self.s is None else self.s.detach() * _SMALLEST_SHARE

    @property
    def parameters(self) -> list[Tensor]:
        """What learns."""
        matrices = [each for part in (self.right, self.left) if part is not None for each in part.parameters]
        return matrices if self.s is None else [*matrices, self.s]

    @torch.no_grad()
    def truncate(self) -> None:
        """Keeps singular values and scales away from 0."""
        for part in (self.right, self.left):
            if part is not None:
                part.truncate()
        if self.s is not None and self._least is not None:
            self.s.clamp_(min=self._least)

    def matrices(self) -> Matrices:
        """``L`` and ``R`` as they are now, differentiable."""
        return Matrices(self.right(), None if self.left is None else self.left())

    @torch.no_grad()
    def stored_matrices(self) -> Matrices:
        """Likewise in float64, those that are stored with the values they are stored with."""
        now = self.matrices()
        right = _inverted(now.right.matrix if self.feed is Feed.LINEAR else now.right.matrix.half())
        return Matrices(right, None if now.left is None else _inverted(now.left.matrix.half()))

    def online(self, matrices: Matrices) -> tuple[Tensor | int, Tensor | int]:
        """Right and left factor of what is multiplied on the fly; of one that is not, its size."""
        right, left = matrices.right.matrix, 1 if matrices.left is None else matrices.left.matrix
        return (len(right) if self.feed is Feed.LINEAR else right), left

    def places(self) -> Iterator[tuple[RotationKind, str, str]]:
        """Where that happens: the kind of edit, its path, and the module that then holds the factors."""
        if self.output:
            yield "rotate_output", self.source, f"{self.source}.output_rotation"
        elif self.feed is not Feed.LINEAR or self.left is not None:
            for name in self.linears:
                yield "rotate_linear", name, f"{name}.rotation"


def _inverted(matrix: Tensor) -> Invertible:
    return Invertible(matrix.double(), torch.linalg.inv(matrix.double()).T)


def start_links(bench: Workbench, task: BlockTask, *, alpha: float | None) -> list[AffineLink]:
    """A transform for each link of the block with something to quantize, ready to learn: random orthogonal ``P``.

    ``s`` starts as ``max |W_j|^(1 - alpha) / max |X_j|^alpha``, as in the authors' code (SmoothQuant's, inverted);
    there is none where ``alpha`` is None.
    """
    generator = torch.Generator().manual_seed(bench.seed)
    return [
        _start(bench, task, link, alpha, generator)
        for link in bench.graph.links
        if any(
            bench.plan[path] is not None or bench.abits[path] != FULL_PRECISION
            for path in _inside(task.block, link.linears)
        )
    ]


def _inside(block: Block, paths: Sequence[str]) -> list[str]:
    return [path for path in paths if path.startswith(f"{block.path}.")]


def _start(
    bench: Workbench, task: BlockTask, link: Link, alpha: float | None, generator: torch.Generator
) -> AffineLink:
    prefix, paths = f"{task.block.path}.", _inside(task.block, link.linears)
    weights = [bench.module.get_parameter(f"{path}.weight") for path in paths]
    width, private = weights[0].shape[1], link.source.startswith(prefix) and len(paths) == len(link.linears)
    slices = width // bench.graph.head_dim if link.feed is Feed.LINEAR else balanced(width)
    s = None
    if alpha is not None and private and link.feed in (Feed.NORM, Feed.GATED):
        s = (1 / initial_scale(task.statistics[link.name], weights, alpha)).to(weights[0]).requires_grad_()

    def matrix(size: int) -> InvertibleMatrix:
        return InvertibleMatrix(*(random_orthogonal(size, generator).to(weights[0]) for _ in range(2)))

    return AffineLink(
        link.feed,
        link.source.removeprefix(prefix),
        slice(None) if link.source_rows is None else slice(*link.source_rows),
        tuple(path.removeprefix(prefix) for path in paths),
        private and link.feed is Feed.NORM,
        matrix(width // slices),
        matrix(slices) if slices > 1 else None,
        s,
    )


def balanced(n: int) -> int:
    """The divisor of ``n`` nearest to its root from below: the smaller side of the cheapest two factors."""
    return next(side for side in range(math.isqrt(n), 0, -1) if n % side == 0)


def install(bench: Workbench, block: Block, links: Sequence[AffineLink]) -> None:
    """Makes the block multiply on the fly, by what is right only once :func:`fold` was called."""
    for each in links:
        right, left = each.online(each.stored_matrices())
        factors = [factor if isinstance(factor, Tensor) else None for factor in (right, left)]
        for kind, name, _ in each.places():
            path = f"{block.path}.{name}"
            bench.edit(rotation_edit(kind, path, right, left), *factors)


def equivalent(
    tensors: Mapping[str, Tensor], links: Sequence[AffineLink], matrices: Sequence[Matrices]
) -> dict[str, Tensor]:
    """What the block's parameters, and factors on the fly, become; all that change, by name, differentiable.

    Args:
        tensors: the block's parameters by name.
        links: the transforms, for which the block was prepared by :func:`install`.
        matrices: of each.
    """
    changed: dict[str, Tensor] = {}

    def current(name: str) -> Tensor:
        return changed[name] if name in changed else tensors[name]

    for each, P in zip(links, matrices, strict=True):
        for name in (f"{each.source}.weight", f"{each.source}.bias"):
            if name in tensors and each.s is not None:
                changed[name] = _times_rows(current(name), each.s, each.rows)
            if name in tensors and each.feed is Feed.LINEAR:
                heads = len(current(name)) // len(P.right.matrix)
                changed[name] = times(current(name).movedim(0, -1), P.right.matrix, heads).movedim(-1, 0)
        for linear in each.linears:
            W = current(f"{linear}.weight")
            changed[f"{linear}.weight"] = P.undo(W if each.s is None else W / each.s)
        for _, _, holder in each.places():
            for side, factor in zip(("right", "left"), each.online(P), strict=True):
                if isinstance(factor, Tensor):
                    changed[f"{holder}.{side}"] = factor
    return changed


def _times_rows(tensor: Tensor, s: Tensor, rows: slice) -> Tensor:
    """``tensor`` [channels, ...] with the channels ``rows`` multiplied by ``s``."""
    start, stop, _ = rows.indices(len(tensor))
    factor = torch.cat([s.new_ones(start), s, s.new_ones(len(tensor) - stop)])
    return tensor * factor.view(-1, *[1] * (tensor.dim() - 1))


@torch.no_grad()
def fold(task: BlockTask, links: Sequence[AffineLink]) -> set[str]:
    """Makes the transforms part of the block, which then computes what it did before; returns the parameters' names."""
    parameters, buffers = dict(task.module.named_parameters()), dict(task.module.named_buffers())
    exact = {name: tensor.double() for name, tensor in parameters.items()}
    changed = equivalent(exact, links, [each.stored_matrices() for each in links])
    for name, tensor in changed.items():
        (parameters | buffers)[name].copy_(tensor)
    return set(changed) & set(parameters)
