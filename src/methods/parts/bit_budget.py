"""Bits layer by layer until a memory budget is met: Algorithm 1 of myQASR (arXiv 2307.12659)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def allocate(order: Sequence[str], sizes: Mapping[str, Mapping[int, int]], budget: float) -> dict[str, int]:
    """Bits of every layer: all start at the largest width and go down one width each, in ``order``, round by round.

    So no two layers are ever more than one width apart, the paper's uniformity constraint. The first allocation that
    fits is returned, hence a larger budget never gives any layer fewer bits.

    Args:
        order: the layers, those that lose bits first in front.
        sizes: bytes by layer and width; every layer has the same widths, and loses bytes with bits.
        budget: bytes all layers may take together.

    Returns:
        Bits by layer; where even the smallest widths do not fit, these.
    """
    bits: dict[str, int] = {}
    for bits in _descent(order, sorted(next(iter(sizes.values())), reverse=True)):
        if sum(sizes[layer][width] for layer, width in bits.items()) <= budget:
            break
    return dict(bits)


def smallest_size(sizes: Mapping[str, Mapping[int, int]]) -> int:
    """Bytes of all layers at their smallest width: the smallest feasible budget."""
    return sum(min(by_width.values()) for by_width in sizes.values())


def _descent(order: Sequence[str], widths: Sequence[int]) -> Iterator[dict[str, int]]:
    """Every allocation on the way from ``widths[0]`` everywhere to ``widths[-1]`` everywhere; one dict, changed."""
    bits = dict.fromkeys(order, widths[0])
    yield bits
    for width in widths[1:]:
        for layer in order:
            bits[layer] = width
            yield bits
