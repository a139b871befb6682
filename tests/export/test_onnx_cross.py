"""The encoder's keys and values as integers: what attention to them gives, and that clips stay by themselves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from src.errors import UserError
from src.export.base import Exportable
from src.export.onnx_cross import CROSSES
from src.export.onnx_generate import Recogniser
from src.export.onnx_graph import Graph
from src.quant.checkpoint import StoredModel
from tests.composed import composed
from tests.export.exporting import agreement, export, opened, quantized, tokens, utterances

HEADS, FRAMES = 6, 300
WIDTH = 32  # of the sandbox models' heads


def integers(masked: bool) -> onnx.ModelProto:
    """A graph from queries, keys and values [batch, heads, n, h] to attention through the integer cache."""
    graph = Graph(Exportable(composed("model=sandbox_whisper").model, StoredModel({}, {}, ()), 16, 0))
    q, k, v = (graph.input(name, TensorProto.FLOAT, ["batch", HEADS, f"n_{name}", WIDTH]) for name in "qkv")
    mask = graph.input("mask", TensorProto.BOOL, ["batch", 1, 1, "n_k"]) if masked else None
    held = CROSSES["int8"].stored(graph, k, v, mask)
    mixed = CROSSES["int8"].attend(graph, q, held, None if mask is None else graph.bias_of(mask))
    graph.output("mixed", mixed, TensorProto.FLOAT, ["batch", "n_q", HEADS * WIDTH])
    return graph.finish("attention")


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """What that graph returns."""
    session = onnxruntime.InferenceSession(integers(mask is not None).SerializeToString())
    read = {"q": q, "k": k, "v": v} | ({} if mask is None else {"mask": mask})
    [mixed] = session.run(None, {name: tensor.numpy() for name, tensor in read.items()})
    return torch.from_numpy(mixed)


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return mixed.transpose(1, 2).flatten(2)


def drawn(batch: int, new: int) -> list[torch.Tensor]:
    """Queries, keys and values whose channels differ in size a thousandfold and have means of their own."""
    torch.manual_seed(0)
    sizes = torch.logspace(-1.5, 1.5, WIDTH)
    lengths = (new, FRAMES, FRAMES)
    q, k, v = (torch.randn(batch, HEADS, n, WIDTH) + torch.randn(HEADS, 1, WIDTH) for n in lengths)
    return [q / sizes, k * sizes, v * sizes]


@pytest.mark.parametrize("new", [1, 4])
def test_attention_to_integers_is_attention_within_their_steps(new: int) -> None:
    q, k, v = drawn(2, new)
    error = (attended(q, k, v) - exact(q, k, v)).unflatten(-1, (HEADS, WIDTH)).abs().mean(dim=(0, 1, 2))
    assert (error / v.abs().amax(dim=(0, 1, 2)) < 1 / 64).all()  # in every channel, however small


def test_frames_too_weak_for_a_step_each_keep_their_common_weight() -> None:
    """One frame has half of the attention, 1,500 others have the rest, each far less than half a step of 1/255."""
    torch.manual_seed(0)
    frames = 1501
    q, v = torch.randn(1, HEADS, 1, WIDTH), torch.rand(1, HEADS, frames, WIDTH)
    k = torch.zeros(1, HEADS, frames, WIDTH)
    k[:, :, :1] = q / q.square().sum(-1, keepdim=True) * math.log(frames - 1) * WIDTH**0.5
    expected = exact(q, k, v)
    assert (attended(q, k, v) - expected).norm() < 0.02 * expected.norm()


def test_what_is_all_zero_stays_zero() -> None:
    q, k, v = (torch.zeros_like(each) for each in drawn(1, 1))
    assert (attended(q, k, v) == 0).all()


def test_padding_changes_nothing() -> None:
    q, k, v = drawn(1, 1)
    mask = torch.zeros(1, 1, 1, FRAMES, dtype=torch.bool)
    mask[..., :200] = True
    alone = attended(q, k[:, :, :200], v[:, :, :200], mask[..., :200])
    k[:, :, 200:], v[:, :, 200:] = 1e4, -1e4
    torch.testing.assert_close(attended(q, k, v, mask), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", ["sandbox_whisper", "sandbox_moonshine"])
def test_few_tokens_change_and_no_clip_sees_another(model: str, tmp_path: Path) -> None:
    point = opened(tmp_path, "export=onnx", "export.cross_cache=int8", f"model={model}", "method=rtn", "wbits=4")
    recogniser = Recogniser(export(point), threads=1)
    clips = [utterance.waveform() for utterance in utterances(point)]
    together = recogniser.generate(clips)
    assert agreement(tokens(point, quantized(point)), together) >= 0.9
    assert together == [recogniser.generate([clip])[0] for clip in clips]
    kept = recogniser.encode(clips[:1])
    for name in ("cross_keys.0", "cross_values.2"):
        assert kept[name].dtype == np.int8
        assert 32 < np.abs(kept[name].astype(int)).max() <= 64  # products in pairs fit 16 bits


def test_only_onnx_graphs_know_it() -> None:
    with pytest.raises(UserError, match=r"export\.cross_cache.*only ONNX graphs know it"):
        composed("export=ggml", "export.cross_cache=int8")
