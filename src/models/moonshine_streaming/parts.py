"""Parts of transformers' Moonshine Streaming, put as parts that methods know; they compute the same.

- A norm of the encoder stores ``gamma`` and scales by ``gamma + 1``. It becomes a LayerNorm of that weight.
- The decoder adds a table of positions to the encoder's output and projects it to its width, where that is another,
  anew (and in place) with every call. Both become an adapter of their own, which runs once an utterance. In front of
  one that does not project, the final norm leaves its weight to the adapter, so that a scale folds into one module.
- An encoder block sees a window of frames before and after, another in other blocks. The blocks are given the masks of
  all windows and take theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.moonshine_streaming.modeling_moonshine_streaming import MoonshineStreamingLayerNorm

Window = tuple[int, int]


class ScalingAdapter(nn.Module):
    """``x * weight + positions``, of an encoder as wide as its decoder.

    Attributes:
        weight: ``[d]``, of the encoder's final norm.
        positions: ``[d, frames]``: a channel a row, as with every parameter a scale folds into.
    """

    def __init__(self, weight: Tensor, positions: Tensor) -> None:
        super().__init__()
        self.weight, self.positions = nn.Parameter(weight), nn.Parameter(positions)

    def forward(self, x: Tensor) -> Tensor:
        """Of ``x`` [batch, frames, d]."""
        return x * self.weight + self.positions[:, : x.shape[1]].T


class ProjectingAdapter(nn.Module):
    """``(x + positions) W^T``, of an encoder of another width than its decoder.

    Attributes:
        weight: ``W`` [width of the decoder, width of the encoder].
        positions: the table, a child, so that no scale of the output reaches it.
    """

    def __init__(self, weight: Tensor, positions: nn.Embedding) -> None:
        super().__init__()
        self.weight, self.positions = nn.Parameter(weight), positions

    def forward(self, x: Tensor) -> Tensor:
        """Of ``x`` [batch, frames, width of the encoder]."""
        return nn.functional.linear(x + self.positions.weight[: x.shape[1]], self.weight)


def windows(sliding_windows: Sequence[Sequence[int]]) -> tuple[Window, ...]:
    """Each window once: frames seen from itself back, and frames ahead of which the last is not seen any more."""
    return tuple(dict.fromkeys((past, ahead) for past, ahead in sliding_windows))


def prepare(module: PreTrainedModel) -> None:
    """Rewrites ``module`` in place; see the head of this file."""
    encoder, decoder = module.model.encoder, module.model.decoder
    final = encoder.final_norm
    for name, norm in list(encoder.named_modules()):
        if isinstance(norm, MoonshineStreamingLayerNorm):
            encoder.set_submodule(name, _layer_norm(norm))
    table, projection = decoder.pos_emb, decoder.proj
    if isinstance(projection, nn.Linear):
        decoder.adapter = ProjectingAdapter(projection.weight.detach(), table)
    else:
        decoder.adapter = ScalingAdapter(_weight(final), table.weight.detach().T.contiguous())
        encoder.final_norm = nn.LayerNorm(final.gamma.shape, final.ln.eps, elementwise_affine=False)
    del decoder.pos_emb, decoder.proj
    known = windows(encoder.config.sliding_windows)
    for layer, (past, ahead) in zip(encoder.layers, encoder.config.sliding_windows, strict=True):
        layer.register_forward_pre_hook(_OwnMask(known.index((past, ahead))), with_kwargs=True)


def _weight(norm: MoonshineStreamingLayerNorm) -> Tensor:
    weight: Tensor = norm.gamma.detach() + norm.unit_offset
    return weight


def _layer_norm(norm: MoonshineStreamingLayerNorm) -> nn.LayerNorm:
    weight = _weight(norm)
    plain = nn.LayerNorm(weight.shape, norm.ln.eps, bias=False, device="meta")
    plain.weight = nn.Parameter(weight)
    return plain


@dataclass(frozen=True)
class _OwnMask:
    """Before a block runs: takes the mask of this number among those given."""

    number: int

    def __call__(
        self,
        module: nn.Module,  # noqa: ARG002 - torch's protocol
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments, {**named, "attention_mask": named["attention_mask"][self.number]}
