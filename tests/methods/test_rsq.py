"""Importance of rows: the attention they receive, as the authors weight it, and where it enters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from whole_models import bench_of, double, largest_relative_error, outputs

from src.calib.task import BlockTask
from src.calib.walk import Walker, WalkOptions
from src.errors import UserError
from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.methods.parts.attention_received import attention_received
from src.methods.rsq import RSQ, importance
from src.models.speech import SpeechModel
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
AUTHORS: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "rsq_importance.json").read_text())


def rsq(*overrides: str) -> RSQ:
    method = build_method(composed("method=rsq", *overrides).method)
    assert isinstance(method, RSQ)
    return method


def authors_inputs() -> tuple[Tensor, Tensor]:
    """Attention received by each row, and rows, as the golden file describes them."""
    generator = torch.Generator().manual_seed(AUTHORS["seed"])
    rows = AUTHORS["rows"]
    scores = torch.randn(1, AUTHORS["heads"], rows, rows, generator=generator)
    return scores.softmax(-1).sum((1, 2)), torch.randn(rows, AUTHORS["columns"], generator=generator)


def test_importances_and_gram_matrix_equal_those_of_the_authors() -> None:
    received, X = authors_inputs()
    R = importance(received, torch.ones_like(received, dtype=torch.bool), AUTHORS["r_min"])[0]
    torch.testing.assert_close(R.square() / R.square().max(), torch.tensor(AUTHORS["weighting"]), rtol=1e-5, atol=1e-6)
    XR = X * R[:, None]
    torch.testing.assert_close(XR.T @ XR, torch.tensor(AUTHORS["half_H"]), rtol=1e-5, atol=1e-5)


def test_squares_span_r_min_to_one_over_each_clip_and_padding_counts_nothing() -> None:
    received, valid = torch.rand(3, 20) * 5, torch.ones(3, 20, dtype=torch.bool)
    valid[1, 12:] = False
    R = importance(received, valid, 0.1)
    assert not R[1, 12:].any()
    for clip, mask in zip(R, valid, strict=True):
        squared = clip[mask].square()
        assert float(squared.min() / squared.max()) == pytest.approx(0.1, rel=1e-4)
        assert float(squared.mean()) == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(R[1, :12], importance(received[1:2, :12], valid[1:2, :12], 0.1)[0])


def test_rows_that_are_attended_alike_count_alike() -> None:
    valid = torch.ones(1, 6, dtype=torch.bool)
    assert torch.equal(importance(torch.full((1, 6), 0.5), valid, 0.01), torch.ones(1, 6))
    assert torch.equal(importance(torch.ones(1, 1), valid[:, :1], 0.01), torch.ones(1, 1))


@BUILDERS
def test_attention_received_is_that_of_the_model(build: Callable[[], SpeechModel]) -> None:
    """Against transformers' eager attention, clip by clip without padding."""
    speech, eager = build(), build()
    eager.module.set_attn_implementation("eager")
    calibration = noise_calibration(speech, 5)
    seen: list[tuple[str, Tensor, Tensor]] = []

    def on_block(task: BlockTask) -> None:
        (batch,) = task.inputs
        seen.append((task.block.path, attention_received(speech.module, task.module, batch), batch.valid))

    Walker(speech, calibration, WalkOptions(gram=False)).walk(on_block)
    assert speech.module.config._attn_implementation == "sdpa"
    for clip, (features, tokens) in enumerate(zip(calibration.features, calibration.tokens, strict=True)):
        expected: dict[str, Tensor] = {}
        handles = [
            eager.module.get_submodule(f"{block.path}.self_attn").register_forward_hook(
                lambda _module, _inputs, output, into=expected, path=block.path: into.update({path: output[1]})
            )
            for block in eager.graph.blocks
        ]
        with torch.no_grad():
            eager.forward_tokens(torch.tensor([tokens]), eager.encode([features]))
        for handle in handles:
            handle.remove()
        for path, received, valid in seen:
            torch.testing.assert_close(received[clip][valid[clip]], expected[path].sum((1, 2))[0], rtol=1e-3, atol=1e-4)


@BUILDERS
@pytest.mark.parametrize("propagate", ["quantized", "fp"])
def test_weights_enter_the_gram_matrices_of_a_block(build: Callable[[], SpeechModel], propagate: str) -> None:
    speech = build()
    settings = composed("method=rsq", "wbits=4", f"calib.propagate={propagate}")
    method, grams, weights = rsq(), [], []

    class Spy(RSQ):
        def fit_block(self, bench: Any, task: BlockTask) -> Any:
            grams.append(task.statistics)
            weights.append(self.token_weights(bench, task))
            return super().fit_block(bench, task)

    spy = Spy(**{each.name: getattr(method, each.name) for each in fields(method)})
    Quantizer(speech, spy, settings, noise_calibration(speech, 2)).run()
    assert len(weights) == len(speech.graph.blocks)
    link = speech.graph.link_of(speech.graph.encoder[0].linears[0].path)
    rotated = build()
    bench = bench_of(rotated)
    method.transform(bench)
    unweighted = bench.statistics(gram=True)[link.name].gram
    assert (grams[0][link.name].gram - unweighted).norm() > 0.01 * unweighted.norm()
    rows = sum(int((each > 0).sum()) for each in weights[0])
    assert rows == grams[0][link.name].count
    assert sum(float(each.square().sum()) for each in weights[0]) == pytest.approx(rows, rel=1e-4)


@BUILDERS
def test_the_output_stays_as_it_is_and_what_is_not_weighted_is_noted(build: Callable[[], SpeechModel]) -> None:
    speech = double(build)
    before = outputs(speech)
    notes = rsq().transform(bench_of(speech)).notes
    assert largest_relative_error(outputs(speech), before) < 1e-10
    cross = [path for link in speech.graph.links if link.source == speech.graph.encoder_norm for path in link.linears]
    assert set(notes) == set(cross)
    assert all("all frames count alike" in note for note in notes.values())


def test_a_rounder_without_a_gram_matrix_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.rounder: rtn does not read the Gram matrix"):
        rsq("method@method.rounder=rtn")
