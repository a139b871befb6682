"""One point whose cost is asked for: a recogniser's sizes, the reference utterance, and the bits of each linear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from src.errors import UserError
from src.models.dimensions import Dimensions
from src.models.graph import Component, Linear, ModelGraph, RowKind
from src.quant.structure import Edit
from src.settings import FULL_PRECISION

FULL_BITS = FULL_PRECISION  # what is not quantized is stored and multiplied in 16 bits
FULL_BYTES = FULL_BITS // 8


@dataclass(frozen=True)
class LinearBits:
    """How one weight is stored and multiplied.

    Attributes:
        stored_bytes: packed codes with scales, zero points and whatever else decoding needs; without the bias.
        weight_bits: width of one weight code.
        activation_bits: width of one element of the input as multiplied.
        exact_inputs: inputs that stay at 16 bits, as do their columns of the weight.
        outliers: single weights outside those columns that have 16 bits; their inputs have ``activation_bits``.
        input_bytes: scale and zero point of a static grid of the input.
    """

    stored_bytes: int
    weight_bits: int
    activation_bits: int
    exact_inputs: int = 0
    outliers: int = 0
    input_bytes: int = 0

    @property
    def read_bytes(self) -> int:
        """What a pass reads of it: the weight, and the grid of its input."""
        return self.stored_bytes + self.input_bytes


@dataclass(frozen=True)
class Workload:
    """The reference utterance, or a batch of such utterances, each decoded with one or several hypotheses (beams).

    The decoder reads ``prompt`` tokens in one pass (prefill), which yields the first token of the text; then one step
    per text token, the last of which yields the end token. So there are ``1 + tokens`` decoder passes over
    ``prompt + tokens`` positions of a sequence.
    """

    seconds: float
    tokens: int
    prompt: int
    batch: int = 1
    beams: int = 1

    @property
    def positions(self) -> int:
        """Decoder positions of a sequence that are embedded, and cached."""
        return self.prompt + self.tokens

    @property
    def sequences(self) -> int:
        """Hypotheses of all utterances, which a decode step extends by a token each."""
        return self.batch * self.beams

    @property
    def embedded(self) -> int:
        """Tokens that go through the decoder: prompts once per utterance, text once per hypothesis."""
        return self.batch * self.prompt + self.sequences * self.tokens


@dataclass(frozen=True)
class CostModel:
    """Everything the analytic costs depend on.

    Attributes:
        dimensions: sizes from the configuration.
        graph: the linears, and which run per frame and which per token.
        workload: the reference utterance; without a decoder it has no tokens.
        bits: quantized linears and ends by module path; what is not listed has 16 bits, and so has an adapter.
        kv_bits: bits of the decoder's self- and cross-attention caches.
        edits: structural changes that the method made to the model.
        key_group: tokens that share a grid per channel of the keys; None where keys are rounded per token and head.

    Raises:
        KeyError: ``bits`` names a module that is neither a linear nor an end of the model.
        UserError: the utterance does not fit the model.
    """

    dimensions: Dimensions
    graph: ModelGraph
    workload: Workload
    bits: Mapping[str, LinearBits]
    kv_bits: int = FULL_BITS
    edits: tuple[Edit, ...] = ()
    key_group: int | None = None

    def __post_init__(self) -> None:
        known = {weight.path for weight in (*self.graph.linears, *self.ends)} | {self.graph.adapter}
        unknown = self.bits.keys() - known
        if unknown:
            raise KeyError(f"not weights of this model: {', '.join(sorted(unknown))}")
        if not self.graph.decoder:  # nothing is read token by token, whatever is written
            object.__setattr__(self, "workload", replace(self.workload, tokens=0, prompt=0))
        limit = self.dimensions.max_tokens
        if self.workload.positions > limit:
            problem = f"{self.workload.tokens} tokens after a prompt of {self.workload.prompt} exceed {limit} positions"
            raise UserError("profile.tokens", problem, f"Use at most {limit - self.workload.prompt}")
        self.dimensions.lengths(self.workload.seconds)

    @cached_property
    def frames(self) -> int:
        return self.dimensions.frames(self.workload.seconds)

    @cached_property
    def convolutions(self) -> tuple[Linear, ...]:
        """The front-end's weights, each taken as [out_channels, in_channels * kernel]."""
        listed = [conv for conv in self.dimensions.frontend if conv.is_quantizable]
        found = zip(self.graph.frontend, listed, strict=True)
        return tuple(Linear(path, Component.FRONTEND, conv.out_channels, conv.window) for path, conv in found)

    @property
    def embedding(self) -> Linear:
        """The token embedding's weight, [words, d]."""
        component = Component.HEAD if self.dimensions.tied else Component.EMBEDDING
        return Linear(self.graph.embedding, component, self.dimensions.vocab, self.dimensions.width)

    @property
    def head(self) -> Linear:
        """The head's weight, [words, d]: the embedding's where they are tied."""
        if self.dimensions.tied:
            return self.embedding
        return Linear(self.graph.head, Component.HEAD, self.dimensions.vocab, self.dimensions.width)

    @property
    def ends(self) -> tuple[Linear, ...]:
        """Weights outside the blocks that may be quantized, a tied one once: see :mod:`src.quant.ends`."""
        return (*self.convolutions, *dict.fromkeys((self.embedding, self.head)))

    @cached_property
    def frame_linears(self) -> frozenset[str]:
        """Paths of the linears that run once per utterance over all encoder frames."""
        return frozenset(path for path, rows in self._row_kinds.items() if rows is RowKind.FRAME)

    @cached_property
    def _row_kinds(self) -> dict[str, RowKind]:
        return {path: link.rows for link in self.graph.links for path in link.linears}

    def row_kind(self, linear: Linear) -> RowKind:
        """What a linear of the blocks runs on."""
        return self._row_kinds[linear.path]

    def rows(self, kind: RowKind) -> int:
        """Rows of all utterances together. A decoder's tokens are counted pass by pass."""
        work = self.workload
        counts = {
            RowKind.FRAME: work.batch * self.frames,
            RowKind.POSITION: work.batch * (2 * self.frames - 1),
            RowKind.TOKEN: work.embedded,
        }
        return counts[kind]

    def residual(self, positions: int) -> int:
        """Of ``positions`` in the self-attention cache, those whose keys wait at 16 bits for their group."""
        return 0 if self.key_group is None else positions % self.key_group

    def of(self, linear: Linear) -> LinearBits:
        """Bits of ``linear``, or of an end."""
        full = LinearBits(linear.out_features * linear.in_features * FULL_BYTES, FULL_BITS, FULL_BITS)
        return self.bits.get(linear.path, full)
