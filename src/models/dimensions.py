"""What a recogniser's configuration says about its sizes: all that the analytic costs need besides the model graph.

Sizes follow transformers' modules of the family, and are checked against built ones in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from src.data.audio import SAMPLING_RATE
from src.errors import UserError


@dataclass(frozen=True)
class Conv:
    """One 1-d convolution of the front-end; weights are ``[out_channels, in_channels, kernel]``."""

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    bias: bool

    def length(self, inputs: int) -> int:
        """Output positions for ``inputs`` input positions."""
        return max(0, (inputs + 2 * self.padding - self.kernel) // self.stride + 1)

    @property
    def window(self) -> int:
        """Inputs of one output: a row of the weight taken as [out_channels, in_channels * kernel]."""
        return self.in_channels * self.kernel

    @property
    def bands_before(self) -> int:
        """Places of an input position at which the weight is applied."""
        return 1

    @property
    def bands_after(self) -> int:
        """Likewise, of an output position."""
        return 1

    @property
    def is_quantizable(self) -> bool:
        """Whether the graph lists it."""
        return True

    @property
    def biases(self) -> int:
        return self.bias * self.out_channels

    @property
    def parameters(self) -> int:
        return self.out_channels * self.window + self.biases


@dataclass(frozen=True)
class AttentionWindow:
    """What a frame of one block attends to: itself, and so many frames before and after it."""

    before: int
    after: int

    @property
    def frames(self) -> int:
        """That a frame sees, itself among them, where all of them are there."""
        return self.before + 1 + self.after

    def pairs(self, frames: int) -> int:
        """(frame, frame that it sees) of an utterance of ``frames``."""
        return frames + sum(_apart(frames, each) for each in (self.before, self.after))


def _apart(frames: int, most: int) -> int:
    """Pairs of frames, the one after the other, that are at most ``most`` apart."""
    reach = min(most, max(frames - 1, 0))
    return reach * frames - reach * (reach + 1) // 2


@dataclass(frozen=True)
class Conv2d(Conv):
    """One over the frames and the bands of a spectrogram, with a square kernel that steps alike along both.

    Attributes:
        bands: of its input.
        depthwise: an output channel reads the one input channel of its number; such weights stay at 16 bits.
    """

    bands: int = 1
    depthwise: bool = False

    @property
    def window(self) -> int:
        return (1 if self.depthwise else self.in_channels) * self.kernel**2

    @property
    def bands_before(self) -> int:
        return self.bands

    @property
    def bands_after(self) -> int:
        return self.length(self.bands)

    @property
    def is_quantizable(self) -> bool:
        return not self.depthwise


@dataclass(frozen=True)
class Stack:
    """One stack of transformer blocks.

    Attributes:
        layers: blocks.
        heads: query heads.
        kv_heads: key and value heads.
        ffn: width between the two linears of the feed-forward part (after the gate, where there is one).
        vectors: parameters per block outside the linears' weight matrices: biases and norms, without cross-attention.
        final_norm: parameters of the norm after the last block.
        depthwise: kernel of a convolution over time in each block, which reads every channel by itself; 0 without one.
            Its weights are among ``vectors``.
        relative: whether queries are multiplied with a table of relative positions, too (arXiv 1901.02860).
    """

    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    ffn: int = 0
    vectors: int = 0
    final_norm: int = 0
    depthwise: int = 0
    relative: bool = False


@dataclass(frozen=True)
class Dimensions:
    """Sizes of one recogniser.

    Attributes:
        width: the residual stream's width d; where the encoder has another, the decoder's.
        head_dim: width of one attention head, as projected and cached.
        attended_head_dim: width of one head inside the attention products. Released Moonshine checkpoints pad heads
            with zeros to a multiple of 8 there (36 becomes 40), after the cache.
        encoder: encoder blocks.
        decoder: decoder blocks, none without a decoder; ``cross_vectors`` and ``cross_frame_vectors`` are theirs, too.
        cross_vectors: per decoder block, cross-attention parameters outside weight matrices that every token needs:
            its norm and the biases of the q and output projections.
        cross_frame_vectors: per decoder block, biases of the cross-attention's k and v, needed once per utterance.
        vocab: rows of the token embedding and of the head.
        tied: whether embedding and head are one matrix, or there is no embedding.
        frontend: the convolutions in order.
        frontend_vectors: other parameters of the front-end: Whisper's encoder positions, Moonshine's group norm.
        token_positions: rows of the decoder's position table; 0 with rotary positions.
        max_tokens: positions that the decoder can hold, prompt included.
        hop: samples per input position of the first convolution (1: it reads the waveform).
        window: encoder frames of the padded window that every utterance fills (Whisper); ``None``: frames follow the
            utterance's length.
        encoder_width: width of the encoder's residual stream; ``None``: as the decoder's.
        encoder_attended_head_dim: as ``attended_head_dim``, in the encoder; ``None``: the same.
        encoder_windows: of the encoder's blocks in order, where they attend within sliding windows; none where every
            frame sees all. With windows, the front-end looks back only.
        adapter: weights of the linear from that width to the decoder's, which runs on every frame; 0 without one.
        frame_positions: rows of the table of positions that are added to the encoder's output; 0 without one. An
            utterance reads as many as it has frames.
        whole_hops: whether an incomplete last hop makes no input position.
        head_bias: whether the head has biases.
    """

    width: int
    head_dim: int
    attended_head_dim: int
    encoder: Stack
    decoder: Stack
    cross_vectors: int
    cross_frame_vectors: int
    vocab: int
    tied: bool
    frontend: tuple[Conv, ...]
    frontend_vectors: int
    token_positions: int
    max_tokens: int
    hop: int
    window: int | None
    encoder_width: int | None = None
    encoder_attended_head_dim: int | None = None
    encoder_windows: tuple[AttentionWindow, ...] = ()
    adapter: int = 0
    frame_positions: int = 0
    whole_hops: bool = False
    head_bias: bool = False

    @property
    def head_biases(self) -> int:
        return self.head_bias * self.vocab

    @property
    def frame_width(self) -> int:
        """Width of the encoder's residual stream."""
        return self.width if self.encoder_width is None else self.encoder_width

    def encoder_pairs(self, frames: int) -> int:
        """(frame, frame that it sees) in the encoder's self-attention of an utterance, all blocks together."""
        if self.encoder_windows:
            return sum(window.pairs(frames) for window in self.encoder_windows)
        return self.encoder.layers * frames * frames

    def lengths(self, seconds: float) -> tuple[int, ...]:
        """Positions before the first convolution and after each: the last is the number of encoder frames.

        Whisper's window is always full: an utterance of 1 s costs as much as one that fills it.

        Raises:
            UserError: the utterance is longer than the window or the table of positions, or too short for a frame.
        """
        lengths = [self._inputs(round(seconds * SAMPLING_RATE))]
        for conv in self.frontend:
            lengths.append(conv.length(lengths[-1]))
        if lengths[-1] < 1:
            raise UserError("profile.seconds", f"{seconds:g} s makes no encoder frame", "Use a second or more")
        if lengths[-1] > (self.frame_positions or lengths[-1]):
            problem = (
                f"{seconds:g} s make {lengths[-1]} encoder frames, and the model has {self.frame_positions} positions"
            )
            raise UserError(
                "profile.seconds", problem, f"Use at most {seconds * self.frame_positions / lengths[-1]:.3g}"
            )
        return tuple(lengths)

    def frames(self, seconds: float) -> int:
        """Encoder frames for an utterance of ``seconds``."""
        return self.lengths(seconds)[-1]

    @property
    def shortest(self) -> int:
        """Samples that make one frame; shorter clips are padded to as many."""
        samples = 1
        for conv in reversed(self.frontend):
            samples = (samples - 1) * conv.stride + conv.kernel - 2 * conv.padding
        return self.hop * max(1, samples)

    def heard_seconds(self, seconds: float) -> float:
        """A length that costs what ``seconds`` do, the same for as many lengths as possible: Whisper's window."""
        if self.window is None:
            return seconds
        return self.window * prod(conv.stride for conv in self.frontend) * self.hop / SAMPLING_RATE

    def _inputs(self, samples: int) -> int:
        """Input positions of the first convolution for a clip of ``samples``."""
        if self.window is None:
            return samples // self.hop if self.whole_hops else -(-samples // self.hop)  # the last is padded
        inputs = self.window * prod(conv.stride for conv in self.frontend)
        if samples > inputs * self.hop:
            problem = f"{samples / SAMPLING_RATE:g} s exceed the model's window"
            raise UserError("profile.seconds", problem, f"Use at most {inputs * self.hop / SAMPLING_RATE:g}")
        return inputs
