"""What a method's structural edits add to a model's costs: products with rotation factors, biases, and their bytes.

An edit is counted where its module runs. A rotation of the keys runs where keys are written: in the decoder's
self-attention on every token, in its cross-attention on every frame, and only where the cache is quantized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from src.models.graph import Component, Feed, ModelGraph, RowKind
from src.profiling.cost_model import FULL_BITS, FULL_BYTES, CostModel
from src.quant.structure import BiasEdit, Edit, RotationEdit

_THERE_AND_BACK = 2  # keys are rotated before they are rounded, and rotated back after


@dataclass(frozen=True)
class Place:
    """What the costs of a module are counted under, and whether it runs on frames (once) or on tokens (every pass)."""

    component: Component
    rows: RowKind


@dataclass(frozen=True)
class OnlineRotation:
    """Products with the stored factors of one rotation, in one place.

    Attributes:
        name: kind and module of the edit.
        place: where.
        width: values of one frame or token that are rotated, those of all heads and layers together.
        sides: sides of the square factors that are stored; a factor that is the identity is not, and costs nothing.
        times: how often each value is rotated.
    """

    name: str
    place: Place
    width: int
    sides: tuple[int, ...]
    times: int = 1

    @property
    def macs(self) -> int:
        """Multiply-accumulates a row: ``n (l + r)`` for factors of sides ``l`` and ``r``, ``n^2`` for a dense one."""
        return self.times * self.width * sum(self.sides)

    @property
    def factor_bytes(self) -> int:
        """Bytes of the factors, 16 bits a value."""
        return FULL_BYTES * sum(side * side for side in self.sides)

    @property
    def moved_bits(self) -> int:
        """Bits a row that are read and written when each factor is a product of its own."""
        return FULL_BITS * self.times * len(self.sides) * 2 * self.width


def online_rotations(point: CostModel) -> Iterator[OnlineRotation]:
    """Every rotation that runs with the model.

    Raises:
        KeyError: a rotation's path is no block, norm or linear of the graph.
    """
    found = places(point.graph)
    stack = point.dimensions.decoder
    for edit in point.edits:
        if not isinstance(edit, RotationEdit):
            continue
        name = f"{edit.kind} {edit.path}".strip()
        if edit.kind != "rotate_keys":
            yield OnlineRotation(name, found[edit.path], edit.left * edit.right, factor_sides(edit))
        elif point.kv_bits < FULL_BITS:
            width = stack.layers * stack.kv_heads * edit.left * edit.right
            for place in (Place(Component.DECODER, RowKind.TOKEN), Place(Component.CROSS_ATTENTION, RowKind.FRAME)):
                yield OnlineRotation(name, place, width, factor_sides(edit), _THERE_AND_BACK)


@dataclass(frozen=True)
class AddedBias:
    """A bias that the model did not have, and the module that it was added to."""

    path: str
    place: Place
    size: int


def added_biases(point: CostModel) -> Iterator[AddedBias]:
    """Every bias that the model did not have.

    Raises:
        KeyError: a bias's path is no norm or linear of the graph.
    """
    found = places(point.graph)
    outputs = {linear.path: linear.out_features for linear in point.graph.linears}
    norms = {RowKind.FRAME: point.dimensions.frame_width, RowKind.TOKEN: point.dimensions.width}
    for edit in point.edits:
        if isinstance(edit, BiasEdit):
            place = found[edit.path]
            yield AddedBias(edit.path, place, outputs.get(edit.path, norms[place.rows]))


def stored_factor_bytes(point: CostModel) -> int:
    """Bytes of all rotation factors in the stored model, whether or not they are used at this point's widths."""
    return FULL_BYTES * sum(side * side for edit in point.edits for side in factor_sides(edit))


def factor_sides(edit: Edit) -> tuple[int, ...]:
    """Sides of the factors that are stored for ``edit``; none where it is not a rotation."""
    if not isinstance(edit, RotationEdit):
        return ()
    factors = ((edit.left, edit.left_is_identity), (edit.right, edit.right_is_identity))
    return tuple(side for side, is_identity in factors if not is_identity)


def places(graph: ModelGraph) -> Mapping[str, Place]:
    """Place of every block, norm and linear by module path.

    The encoder's final norm counts as the encoder's, though it is the cross-attention that reads it.
    """
    components = {linear.path: linear.component for linear in graph.linears}
    found = {block.path: Place(Component.ENCODER, RowKind.FRAME) for block in graph.encoder}
    found |= {block.path: Place(Component.DECODER, RowKind.TOKEN) for block in graph.decoder}
    for link in graph.links:
        if link.feed is Feed.NORM:
            found[link.source] = Place(components[link.linears[0]], link.rows)
        found |= {path: Place(components[path], link.rows) for path in link.linears}
    found[graph.encoder_norm] = Place(Component.ENCODER, RowKind.FRAME)
    if graph.decoder:
        found[graph.decoder_norm] = Place(Component.DECODER, RowKind.TOKEN)
    return found
