"""Whisper as the one file that whisper.cpp loads, its matrices in GGML's blocks (:mod:`src.export.ggml_blocks`).

The file: magic number and sizes, mel filters, the vocabulary's bytes, then every tensor with its own header, as
whisper.cpp's ``whisper_model_load`` reads them. All matrices have one type, among them the token embedding, which is
also the head: it is the one tensor that is rounded here, and how much that changes it is told. Convolutions are
float16, all else float32.

whisper.cpp knows its special tokens by number (:mod:`src.export.ggml_tokens`). A smaller vocabulary is therefore
laid out like the English one.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from src.export.base import Exportable, Runtime
from src.export.ggml_blocks import BLOCK, EXACT, TYPES, BlockType, encode
from src.export.ggml_tokens import ENGLISH, Numbers, unknown_tokens
from src.lowbit.granularity import WeightSpec
from src.machine.progress import progress
from src.models.graph import Linear
from src.models.loading import load_config
from src.models.whisper.family import Whisper
from src.quant.extras import Extra
from src.quant.grid import round_to_nearest
from src.settings import GgmlExport, ModelSettings

FILE = "ggml-model.bin"
_MAGIC = 0x67676D6C
_FORMATS = 2000  # version 2 of the blocks, times 1000, is added to the file's type
_FLOAT32, _FLOAT16 = 0, 1
_PADDING = 256  # frames of the encoder whose keys flash attention fills up with zeros, without a mask
_PADDED = "run it with flash attention off, which pads this model's window with frames that are attended to"
_ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "out"}
_NAMES = {  # of modules, inside a block or at the top
    **{f"self_attn.{ours}": f"attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    **{f"encoder_attn.{ours}": f"cross_attn.{theirs}" for ours, theirs in _ATTENTION.items()},
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "final_layer_norm": "mlp_ln",
    "model.encoder.conv1": "encoder.conv1",
    "model.encoder.conv2": "encoder.conv2",
    "model.encoder.embed_positions": "encoder.positional_embedding",
    "model.encoder.layer_norm": "encoder.ln_post",
    "model.decoder.embed_positions": "decoder.positional_embedding",
    "model.decoder.embed_tokens": "decoder.token_embedding",
    "model.decoder.layer_norm": "decoder.ln",
}


class Ggml(Runtime):
    """See the module docstring; ``weights`` is the type of block, ``auto`` the smallest that holds the grid exactly."""

    name = "ggml"

    def __init__(self, chosen: GgmlExport) -> None:
        super().__init__(chosen)
        self._forced = TYPES.get(chosen.weights)

    @property
    def holds(self) -> frozenset[Extra]:
        """Real zero points, in blocks with an offset."""
        return frozenset({Extra.REAL_ZEROS} if self._forced and self._forced.offset else ())

    @classmethod
    def lacks(cls, model: ModelSettings) -> str | None:
        """It takes Whisper with the proportions that whisper.cpp takes for granted."""
        if model.family != Whisper.name:
            return f"is whisper.cpp's file, and {model.name} is a {model.family} model"
        config = load_config(model)
        if not config.tie_word_embeddings:
            return "takes the token embedding for the head, and this model has a head of its own"
        if reason := unknown_tokens(model, config):
            return reason
        widths = {config.encoder_ffn_dim, config.decoder_ffn_dim}
        if widths != {4 * config.d_model} or config.d_model % BLOCK or config.activation_function != "gelu":
            return "knows Whisper with its published proportions only"
        return None

    def check_linear(self, linear: Linear, spec: WeightSpec | None) -> None:
        """Groups of whole blocks on a grid that the blocks hold; see the base."""
        if spec is None:
            problem = f"has one type for all matrices, and would have to round {linear.path}, which has 16 bits"
            raise self.refuse(problem, "Quantize all of scope.encoder, scope.decoder and scope.cross_attention")
        columns = spec.columns_per_group(linear.in_features)
        if columns % BLOCK:
            problem = f"has blocks of {BLOCK} columns, of which {columns} in {linear.path} are no multiple"
            raise self.refuse(problem, "Use group_size=32")
        if not any(kind.holds(spec) for kind in self._kinds()):
            what = f"{spec.bits} bits {'without' if spec.symmetric else 'with'} zero points"
            raise self.refuse(f"has no {self.weights} blocks that hold {what} without rounding again", _nearest(spec))

    def read_bytes(self, weight: Linear, spec: WeightSpec | None) -> int:
        """Blocks of the smallest kind that holds the grid; the embedding has no grid and takes the smallest at hand."""
        kind = next(kind for kind in self._kinds() if spec is None or kind.holds(spec))
        return weight.out_features * weight.in_features // BLOCK * kind.block_bytes

    def write(self, model: Exportable, folder: Path) -> list[str]:
        specs = {weight.spec for weight in model.stored.weights.values()}
        kind = next(kind for kind in self._kinds() if all(map(kind.holds, specs)))
        with (folder / FILE).open("wb") as file:
            _write_sizes(file, model, kind)
            _write_mel_filters(file, model)
            _write_vocabulary(file, model)
            weights = progress([*model.stored.weights], "export, weights")
            moved = [_write_linear(file, model, path, kind) for path in weights]
            changed = _write_embedding(file, model, kind)
            for name in model.stored.leftovers:
                if not name.startswith(f"{model.graph.embedding}."):
                    _write_leftover(file, model, name)
        return _notes(model, kind, max(moved), changed)

    def _kinds(self) -> list[BlockType]:
        return [self._forced] if self._forced else [TYPES[name] for name in EXACT]


def _nearest(spec: WeightSpec) -> str:
    fitting = [name for name, kind in TYPES.items() if kind.holds(spec)]
    return f"Use export.weights={' or '.join(fitting)}" if fitting else "Use symmetric=true or at most 7 bits"


def _notes(model: Exportable, kind: BlockType, moved: float, changed: float) -> list[str]:
    notes = [
        f"the token embedding, which is also the head, is rounded to {kind.name}: {changed:.2%} of its norm",
        "whisper.cpp itself rounds the activations that it multiplies with these blocks to 8 bits",
        "whisper.cpp has rules of its own for tokens that are never written, for times, long audio and failed windows",
        *([_PADDED] if model.config.max_source_positions % _PADDING else []),
    ]
    if model.settings.language is not None:
        notes.append(
            f"whisper.cpp is told the language when it runs, by default en: language={model.settings.language}"
        )
    if moved:
        notes.append(f"offsets of {kind.name} blocks are rounded to float16: weights move by up to {moved:.2g} steps")
    vocabulary = model.config.vocab_size
    if vocabulary < ENGLISH:
        notes.append(f"the {vocabulary} tokens are laid out among {ENGLISH}, as whisper.cpp counts them")
    return notes


def _write_sizes(file: BinaryIO, model: Exportable, kind: BlockType) -> None:
    config = model.config
    encoder = (config.max_source_positions, config.d_model, config.encoder_attention_heads, config.encoder_layers)
    decoder = (config.max_target_positions, config.d_model, config.decoder_attention_heads, config.decoder_layers)
    sizes = (
        _MAGIC,
        max(config.vocab_size, ENGLISH),
        *encoder,
        *decoder,
        config.num_mel_bins,
        _FORMATS + kind.file_type,
    )
    file.write(struct.pack(f"<{len(sizes)}i", *sizes))


def _write_mel_filters(file: BinaryIO, model: Exportable) -> None:
    filters = np.array(model.speech.limits()["mel_filters"], "<f4").T
    file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())


def _write_vocabulary(file: BinaryIO, model: Exportable) -> None:
    """The bytes of every token before the end token; whisper.cpp names those after it itself."""
    tokens = model.speech.token_bytes()
    file.write(struct.pack("<i", len(tokens)))
    for token in tokens:
        file.write(struct.pack("<i", len(token)) + token)


def _write_tensor(file: BinaryIO, name: str, shape: tuple[int, ...], kind: int, data: bytes) -> None:
    """Header and data; GGML counts axes from the last."""
    encoded = name.encode()
    header = (len(shape), len(encoded), kind, *reversed(shape))
    file.write(struct.pack(f"<{len(header)}i", *header) + encoded + data)


def _write_linear(file: BinaryIO, model: Exportable, path: str, kind: BlockType) -> float:
    """By how much of a step the weights moved."""
    weight = model.stored.weights[path]
    data, moved = encode(weight, kind)
    _write_tensor(file, f"{tensor_name(path)}.weight", weight.shape, kind.tensor_type, data)
    return moved


def _write_embedding(file: BinaryIO, model: Exportable, kind: BlockType) -> float:
    """How much of the embedding's norm rounding took."""
    W = _laid_out(model, model.stored.leftovers[f"{model.graph.embedding}.weight"].float())
    rounded = round_to_nearest(W, WeightSpec(kind.bits, BLOCK, symmetric=not kind.offset))
    data, _ = encode(rounded, kind)
    _write_tensor(file, f"{tensor_name(model.graph.embedding)}.weight", rounded.shape, kind.tensor_type, data)
    return float(torch.linalg.norm(W - rounded.dequantize()) / torch.linalg.norm(W))


def _laid_out(model: Exportable, W: Tensor) -> Tensor:
    """Rows [tokens, d] where whisper.cpp looks for them; those that no transcript may use are zero."""
    if len(W) >= ENGLISH:
        return W
    speech, rows, numbers = model.speech, W.new_zeros(ENGLISH, W.shape[1]), Numbers.of(ENGLISH)
    rows[: speech.eos] = W[: speech.eos]
    rows[numbers.end], rows[numbers.start] = W[speech.eos], W[speech.prompt[0]]
    times = W[speech.prompt[-1] :]  # and "no timestamps" before them
    rows[numbers.no_timestamps : numbers.no_timestamps + len(times)] = times
    return rows


def _write_leftover(file: BinaryIO, model: Exportable, name: str) -> None:
    path, _, part = name.rpartition(".")
    tensor: Any = model.stored.leftovers[name].float().numpy()
    conv = path in model.graph.frontend
    if conv and part == "bias":
        tensor = tensor[:, None]
    half = conv and part == "weight"
    renamed = tensor_name(path) if path.endswith("embed_positions") else f"{tensor_name(path)}.{part}"
    data = tensor.astype("<f2" if half else "<f4").tobytes()
    _write_tensor(file, renamed, tensor.shape, _FLOAT16 if half else _FLOAT32, data)


def tensor_name(path: str) -> str:
    """``model.encoder.layers.0.fc1`` as ``encoder.blocks.0.mlp.0``."""
    if path in _NAMES:
        return _NAMES[path]
    _, side, _, number, inside = path.split(".", 4)
    return f"{side}.blocks.{number}.{_NAMES[inside]}"
