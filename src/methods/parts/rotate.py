"""Rotations of a speech model: of the residual streams, of the heads' values, and on the fly.

QuaRot (arXiv 2404.00456, sec. 4) in the notation of SpinQuant (arXiv 2405.16406, sec. 3): ``R1`` rotates a residual
stream and is folded into the linears that read and write it; ``R2`` rotates the values of every head of one attention
and is folded into v and o; ``R3`` rotates keys (in the cache, see :class:`~src.quant.fake.QuantizedKVLayer`); ``R4``
rotates the input of fc2 on the fly. Before o a Hadamard matrix across the heads, on the fly, completes ``R2``.

Encoder and decoder have a stream and an ``R1`` each. What enters a stream, front-end output or embeddings, is centred
and rotated explicitly at the door of the first block, by ``C R1``: the front-end ends in a non-linearity, and the
embedding is tied to the head. The decoder's stream is rotated back before its final norm; the encoder's output stays
rotated, for only the cross-attention's k and v read it. Where an adapter stands between, which adds positions after the
final norm, that stream is rotated back before it too, and the k and v rotate their inputs on the fly like fc2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from src.methods.parts.center import assign, centering, linear_at
from src.methods.parts.hadamard import hadamard, hadamard_factors, has_hadamard, random_rotation
from src.methods.workbench import Workbench
from src.models.graph import Feed, Link, ModelGraph, RowKind
from src.quant.rotation import Rotation
from src.quant.structure import rotation_edit


@dataclass(frozen=True, eq=False)
class Rotations:
    """Orthogonal matrices that get folded.

    Attributes:
        streams: ``R1`` [d, d] of the encoder's stream (a row a frame) and of the decoder's (a row a token).
        heads: ``R2`` [head_dim, head_dim] of each attention, by the name of the link from v to o.
        notes: by linear path, in words, where a rotation is not a Hadamard matrix.
    """

    streams: Mapping[RowKind, Tensor]
    heads: Mapping[str, Tensor]
    notes: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class OnlineRotations:
    """Rotations of linear inputs on the fly, float64, by linear path; notes as in :class:`Rotations`."""

    inputs: Mapping[str, Rotation]
    notes: Mapping[str, str]


def value_links(graph: ModelGraph) -> list[Link]:
    """The links from v to o through which ``R2`` can be folded: one value head for every query head."""
    return [link for link in graph.links if link.feed is Feed.LINEAR]


def draw_rotations(graph: ModelGraph, generator: torch.Generator) -> Rotations:
    """Randomised Hadamard matrices for ``R1`` and ``R2``; random orthogonal ones, noted, of sizes that have none."""
    notes: dict[str, str] = {}
    streams: dict[RowKind, Tensor] = {}
    for rows in (RowKind.FRAME, RowKind.TOKEN):
        streams[rows], note = random_rotation(graph.width(rows), generator)
        if note:
            notes |= {path: note for link in graph.links if link.rows is rows for path in link.linears}
    heads: dict[str, Tensor] = {}
    for link in value_links(graph):
        heads[link.name], note = random_rotation(graph.head_dim, generator)
        if note:
            notes |= dict.fromkeys(link.linears, note)
    return Rotations(streams, heads, notes)


@dataclass(frozen=True, eq=False)
class Sides:
    """What multiplies a weight: ``W' = output^T W input``; None is the identity.

    A matrix narrower than its side of the weight acts on every head alike.
    """

    input: Tensor | None
    output: Tensor | None

    def weight(self, W: Tensor) -> Tensor:
        """The rotated weight [out, in], in the type of ``W`` and differentiable in the rotations."""
        return _times(_times(W, self.input).T, self.output).T

    def bias(self, b: Tensor) -> Tensor:
        """The rotated bias [out]."""
        return _times(b, self.output)


def _times(x: Tensor, R: Tensor | None) -> Tensor:
    return x if R is None else (x.reshape(*x.shape[:-1], -1, len(R)) @ R.to(x)).flatten(-2)


def rotated_sides(graph: ModelGraph, rotations: Rotations) -> dict[str, Sides]:
    """What ``R1`` and ``R2`` do to each linear, by path."""
    values = {link.source: rotations.heads[link.name] for link in value_links(graph)}
    found = {}
    for link in graph.links:
        stream = rotations.streams[link.rows]
        for path in link.linears:
            if link.writes_stream:
                found[path] = Sides(rotations.heads.get(link.name), stream)
            else:
                found[path] = Sides(stream if link.feed is Feed.NORM else None, values.get(path))
    return found


def door(R1: Tensor) -> Tensor:
    """``C R1`` [d, d], which centres and rotates what enters a stream."""
    return centering(len(R1)).to(R1) @ R1


def fold_rotations(bench: Workbench, rotations: Rotations) -> None:
    """Folds ``R1`` and ``R2`` into a model that :func:`~src.methods.parts.center.center_streams` has prepared."""
    graph = bench.graph
    for path, sides in rotated_sides(graph, rotations).items():
        linear = linear_at(bench, path)
        assign(linear.weight, sides.weight(linear.weight.detach().double()))
        if linear.bias is not None:
            assign(linear.bias, sides.bias(linear.bias.detach().double()))
    doors = {
        graph.encoder[0].path: door(rotations.streams[RowKind.FRAME]),
        graph.decoder[0].path: door(rotations.streams[RowKind.TOKEN]),
    }
    for norm, rows in ((graph.decoder_norm, RowKind.TOKEN), (graph.encoder_norm, RowKind.FRAME)):
        if not graph.is_folded(norm):
            doors[norm] = rotations.streams[rows].T
    for path, matrix in doors.items():
        bench.edit(rotation_edit("rotate_module", path, matrix), matrix)


def online_rotations(graph: ModelGraph, generator: torch.Generator) -> OnlineRotations:
    """A Hadamard matrix for the input of every fc2 and of what reads an adapter, and one across the heads for every o.

    Where the number of heads has no Hadamard matrix (6 in whisper-tiny), o's whole input is rotated.
    """
    inputs, notes = {}, {}
    sizes = {linear.path: linear.in_features for linear in graph.linears}
    for link in graph.links:
        for path in () if link.feed is Feed.NORM else link.linears:
            heads = sizes[path] // graph.head_dim
            if link.feed is Feed.LINEAR and has_hadamard(heads):
                inputs[path] = Rotation(graph.head_dim, hadamard(heads) / heads**0.5)
                continue
            factors = hadamard_factors(sizes[path], generator)
            inputs[path] = Rotation(factors.right, factors.left)
            if factors.note:
                notes[path] = factors.note
    return OnlineRotations(inputs, notes)


def without_online_rotations(graph: ModelGraph) -> OnlineRotations:
    """No rotations on the fly; the notes say whose input then is not rotated at all."""
    note = "its input is not rotated: method.online=false"
    links = [link for link in graph.links if link.feed not in (Feed.NORM, Feed.LINEAR)]
    return OnlineRotations({}, {path: note for link in links for path in link.linears})


def rotate_inputs(bench: Workbench, rotations: Mapping[str, Rotation]) -> None:
    """Makes each linear rotate its input, and rotates the columns of its weight alike."""
    for path, rotation in rotations.items():
        linear = linear_at(bench, path)
        assign(linear.weight, rotation.to(linear.weight.device)(linear.weight.detach().double()))
        right, left = rotation.right, rotation.left
        sides = rotation.width if right is None else right, rotation.slices if left is None else left
        bench.edit(rotation_edit("rotate_linear", path, *sides), right, left)


def rotate_keys(bench: Workbench, generator: torch.Generator) -> None:
    """Lets a quantized key-value cache round keys in a rotated basis of the head."""
    R3, _ = random_rotation(bench.graph.head_dim, generator)
    bench.edit(rotation_edit("rotate_keys", "", R3), R3)
