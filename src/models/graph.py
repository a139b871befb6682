"""The model graph as data: which linears share an input, what feeds them, and what may be folded into what.

Declared once per family (``graph.py`` of its package) by exact module paths, checked against the loaded module, and
used by every method. There is no pattern matching and no tracing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Component(StrEnum):
    """Part of the recogniser a linear belongs to; the unit of ``scope`` and of cost break-downs."""

    FRONTEND = "frontend"
    ENCODER = "encoder"
    CROSS_ATTENTION = "cross_attention"
    DECODER = "decoder"
    EMBEDDING = "embedding"
    HEAD = "head"


class Feed(StrEnum):
    """What produces the tensor that a group of linears reads, hence what can absorb a scale or a rotation."""

    NORM = "norm"  # a LayerNorm: scale and shift fold into its weight and bias
    LINEAR = "linear"  # a linear with nothing but a permutation-free map between: v_proj -> o_proj
    GATED = "gated"  # rows [start, stop) of a linear, multiplied by a gate: Moonshine decoder fc1 -> fc2
    ACTIVATION = "activation"  # a non-linearity: nothing folds
    ADAPTER = (
        "adapter"  # what stands between encoder and decoder: scales fold into its parameters, it takes no rotation
    )
    POSITIONS = "positions"  # a table of relative positions, the same for every utterance: nothing folds

    @property
    def folds(self) -> bool:
        """Whether a scale of what is read can go into what produces it."""
        return self not in (Feed.ACTIVATION, Feed.POSITIONS)

    @property
    def in_words(self) -> str:
        """What feeds the linears, in a sentence."""
        words = {Feed.ACTIVATION: "a non-linearity", Feed.POSITIONS: "a table of positions"}
        return words.get(self, f"a {self.value}")

    @property
    def listed_as(self) -> Feed:
        """Under what methods list it: an adapter's output stands where that of the encoder's norm does without one."""
        return Feed.NORM if self is Feed.ADAPTER else self


class RowKind(StrEnum):
    """What one row of a link's input is."""

    FRAME = "frame"  # of the encoder
    TOKEN = "token"  # of the decoder
    POSITION = "position"  # a distance between two frames, of which there are 2 frames - 1; none is padding


@dataclass(frozen=True)
class Link:
    """Linears that read one tensor, and the module that produces it.

    Attributes:
        name: unique, readable name, e.g. ``model.encoder.layers.0.self_attn.qkv``.
        linears: module paths of the linears, in execution order.
        source: module path of the producer; for an activation, the linear before it.
        feed: how the producer's output reaches the linears.
        rows: what the tensor has a row for.
        source_rows: half-open range of the producer's output rows that reach the linears; ``None`` means all.
    """

    name: str
    linears: tuple[str, ...]
    source: str
    feed: Feed
    rows: RowKind
    source_rows: tuple[int, int] | None = None

    @property
    def writes_stream(self) -> bool:
        """Whether the linears write into the residual stream: those that neither a norm of it, an adapter nor a
        table of positions feeds."""
        return self.feed.listed_as not in (Feed.NORM, Feed.POSITIONS)


@dataclass(frozen=True)
class Linear:
    """One quantizable linear: its module path, component, and shape ``[out_features, in_features]``."""

    path: str
    component: Component
    out_features: int
    in_features: int


@dataclass(frozen=True)
class Block:
    """One transformer block: its module path and its linears in execution order."""

    path: str
    linears: tuple[Linear, ...]


@dataclass(frozen=True)
class ModelGraph:
    """The declared structure of one recogniser. See the module docstring; built by ``SpeechModel.graph``.

    Attributes:
        encoder: encoder blocks in order.
        decoder: decoder blocks in order; none where the head reads the encoder, as with CTC.
        links: every group of linears that share an input. The k and v projections of the cross-attention of all
            decoder blocks read the encoder's output (its final norm, or an adapter after it) and form one link.
        encoder_norm: path of the encoder's final norm.
        decoder_norm: path of the decoder's final norm, which feeds the head; without a decoder the encoder's.
        frontend: paths of the convolutions; of a linear over what each position holds, where one stands before them.
        embedding: path of the token embedding; without one the head's.
        head: path of the output projection.
        head_dim: width of one attention head.
        adapter: path of a matrix from the encoder's width to the decoder's, which no method rounds; None without one.
        rotatable: whether a rotation passes through the residual streams. It does not where a norm stands in one, whose
            output goes on as the stream.
    """

    encoder: tuple[Block, ...]
    decoder: tuple[Block, ...]
    links: tuple[Link, ...]
    encoder_norm: str
    decoder_norm: str
    frontend: tuple[str, ...]
    embedding: str
    head: str
    head_dim: int
    adapter: str | None = None
    rotatable: bool = True

    @property
    def has_embedding(self) -> bool:
        """Whether tokens are read; CTC's are only written."""
        return self.embedding != self.head

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Encoder blocks, then decoder blocks."""
        return self.encoder + self.decoder

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Every quantizable linear, in execution order."""
        return tuple(linear for block in self.blocks for linear in block.linears)

    @property
    def cross_links(self) -> tuple[Link, ...]:
        """The links that read the encoder's output: k and v of the cross-attention."""
        own = {linear.path for block in self.decoder for linear in block.linears}
        return tuple(link for link in self.links if link.rows is RowKind.FRAME and own.issuperset(link.linears))

    def is_folded(self, norm: str) -> bool:
        """Whether the norm at this path feeds linears alone, which its parameters may be folded into."""
        return any(link.feed is Feed.NORM and link.source == norm for link in self.links)

    def width(self, rows: RowKind) -> int:
        """Width of the residual stream that has such rows."""
        blocks = self.encoder if rows is RowKind.FRAME else self.decoder
        return blocks[0].linears[0].in_features

    def link_of(self, path: str) -> Link:
        """The link whose tensor the linear at ``path`` reads.

        Raises:
            KeyError: no link declares this linear.
        """
        for link in self.links:
            if path in link.linears:
                return link
        raise KeyError(path)


def cross_kv_link(decoder: Sequence[str], source: str, feed: Feed = Feed.NORM) -> Link:
    """The one link across blocks: ``source`` feeds k and v of the cross-attention of all of ``decoder``.

    Inside a block they have the names that transformers gives them.
    """
    linears = tuple(f"{path}.encoder_attn.{name}" for path in decoder for name in ("k_proj", "v_proj"))
    return Link(f"{source}.cross_kv", linears, source, feed, RowKind.FRAME)
