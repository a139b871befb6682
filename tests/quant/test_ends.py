"""Quantized front-ends and heads: just they change, they are stored once, and blocks see them as settings ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from src.calib.capture import Calibration
from src.calib.end_inputs import end_statistics
from src.calib.task import BlockTask
from src.errors import UserError
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.asked import input_bits
from src.methods.base import Method, Needs, Rounded
from src.methods.build import build_method
from src.methods.ends import end_rounder, planned_ends
from src.methods.rtn import RTN
from src.methods.workbench import Workbench
from src.models.loading import load
from src.models.speech import SpeechModel
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.ends import RoundedEnds, chosen_ends, flat_weight, write_weight
from src.quant.restore import restore
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.quant.quantized import logits, quantized
from tests.tiny import tiny_moonshine, tiny_whisper
from tests.utterances import load_utterances

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
BOTH = ("head_bits=3", "frontend_bits=5")


def is_tied(speech: SpeechModel) -> bool:
    embedding, head = speech.graph.embedding, speech.graph.head
    return speech.module.get_submodule(embedding).weight is speech.module.get_submodule(head).weight


def rounded_ends(speech: SpeechModel, *overrides: str) -> RoundedEnds:
    settings = composed("method=rtn", *overrides)
    specs = {end.path: end.spec for end in chosen_ends(speech.graph, speech.module, settings)}
    ends = planned_ends(speech, settings, None, specs)
    ends.round()
    return ends


@BUILDERS
@pytest.mark.parametrize(
    "overrides",
    [
        ("method=rtn", "scope=everything", "wbits=3"),
        ("method=gptq", "scope=head", "wbits=2", "group_size=32"),
        ("method=quarot", "bits=w4a8", "symmetric=true", *BOTH),
        ("method=smoothquant", "bits=w8a8", "calib.propagate=fp", *BOTH),
        ("method=quarot", "bits=w4a16", "method@ends=gptq_mse", *BOTH),
        ("method=rtn", "calib.propagate=fp", "method@ends=gptq", *BOTH),
    ],
    ids=" ".join,
)
def test_reloaded_model_equals_the_one_in_memory(
    build: Callable[[], SpeechModel], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    settings = composed(*overrides)
    speech = build()
    quantizer = quantized(speech, settings)
    path = tmp_path / "model.safetensors"
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(path, quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    reloaded = build(seed=1)  # other weights, all of which have to be replaced
    restore(reloaded, path, input_bits(reloaded.graph, settings))
    assert torch.equal(logits(reloaded), logits(speech))
    assert is_tied(speech)
    assert is_tied(reloaded)
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
    assert f"{speech.graph.embedding}.weight.codes" in names
    assert not names & {f"{speech.graph.embedding}.weight", f"{speech.graph.head}.weight"}
    assert not any(name.startswith(f"{speech.graph.head}.") for name in names)


@BUILDERS
@pytest.mark.parametrize("scope", ["head", "frontend"])
def test_one_end_changes_and_nothing_else(build: Callable[[], SpeechModel], scope: str) -> None:
    plain, speech = build(), build()
    quantized(plain, composed("method=fp"))
    quantizer = quantized(speech, composed("method=rtn", "wbits=3", f"scope={scope}"))
    chosen = {"head": (speech.graph.embedding,), "frontend": speech.graph.frontend}[scope]
    assert set(quantizer.weights) == set(chosen)
    before = dict(plain.module.named_parameters())
    changed = {name for name, value in speech.module.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {f"{path}.weight" for path in chosen}


@BUILDERS
@pytest.mark.parametrize("size", [-1, 32])
def test_every_row_or_group_is_rounded_to_its_own_min_max_grid(build: Callable[[], SpeechModel], size: int) -> None:
    """From the definition: at most 2^b values a group, none further than half a step from where it was."""
    original, speech = build(), build()
    ends = rounded_ends(speech, f"group_size={size}", *BOTH)
    assert list(ends.paths) == [*speech.graph.frontend, speech.graph.embedding]
    for path in ends.paths:
        W, Q = (flat_weight(each.module, path) for each in (original, speech))
        bits = 3 if path == speech.graph.embedding else 5
        columns = size if size > 0 and W.shape[1] % size == 0 else W.shape[1]
        for w, q in zip(W.reshape(-1, columns), Q.reshape(-1, columns), strict=True):
            step = (w.max().clamp(min=0) - w.min().clamp(max=0)) / (2**bits - 1)
            assert len(q.unique()) <= 2**bits
            assert (w - q).abs().max() <= step * 0.51 + 1e-6, path  # scales are float16


@BUILDERS
def test_the_layer_table_lists_them_after_the_linears(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    rows = quantized(speech, composed("method=rtn", "wbits=4", "group_size=32", *BOTH)).rows
    graph = speech.graph
    assert [row["linear"] for row in rows] == [*(each.path for each in graph.linears), *graph.frontend, graph.embedding]
    ends = rows[len(graph.linears) :]
    assert [row["component"] for row in ends] == [*("frontend" for _ in graph.frontend), "head"]
    assert [row["wbits"] for row in ends] == [*(5 for _ in graph.frontend), 3]
    for row in ends:
        assert row["abits"] == 16
        assert 0 < row["weight_error"] < 0.5
        assert row["notes"][:2] == ["rounded by rtn", "its input stays at 16 bits"]
        undivided = row["shape"][1] % 32 != 0
        assert any("group size 32 does not divide" in note for note in row["notes"]) == undivided
    assert any("one matrix" in note for note in ends[-1]["notes"])


def test_a_group_of_32_does_not_divide_the_127_taps_of_moonshines_first_convolution() -> None:
    speech = tiny_moonshine()
    ends = rounded_ends(speech, "group_size=32", *BOTH)
    grids = {path: weight.scale.shape[1] for path, weight in ends.weights.items()}
    assert list(grids.values()) == [1, 64 * 7 // 32, 128 * 3 // 32, 64 // 32]


def convolved(speech: SpeechModel, path: str, x: Tensor) -> Tensor:
    """The convolution's output [frames, out], without its bias."""
    conv = speech.module.get_submodule(path)
    return torch.nn.functional.conv1d(x, conv.weight, None, conv.stride, conv.padding).flatten(0, 1).T


@BUILDERS
def test_gram_matrices_of_ends_tell_the_error_of_what_they_compute(build: Callable[[], SpeechModel]) -> None:
    """``tr(E H E^T)`` is the squared change of a convolution's outputs and of the logits, summed over all clips."""
    speech = build(tie_word_embeddings=False)
    speech.cast(torch.float64)
    paths = (*speech.graph.frontend, speech.graph.head)
    calibration = noise_calibration(speech, 2)
    read: dict[str, list[Tensor]] = {path: [] for path in paths}
    handles = [
        speech.module.get_submodule(path).register_forward_pre_hook(lambda _, args, into=into: into.append(args[0]))
        for path, into in read.items()
    ]
    statistics = end_statistics(speech, calibration, paths)
    for handle in handles:
        handle.remove()
    for path, inputs in read.items():
        W = flat_weight(speech.module, path).clone()
        E = torch.randn(W.shape, generator=torch.Generator().manual_seed(0), dtype=W.dtype)
        flat_weight(speech.module, path).copy_(E)
        if path == speech.graph.head:
            outputs = [x @ E.T for x in inputs]
            assert statistics[path].count == sum(map(len, calibration.tokens))
        else:
            outputs = [convolved(speech, path, x) for x in inputs]
            assert statistics[path].count == sum(len(each) for each in outputs)
        gram = statistics[path].gram
        assert gram is not None
        assert ((E @ gram.double()) * E).sum().item() == pytest.approx(
            sum(y.square().sum().item() for y in outputs), 1e-4
        )


@BUILDERS
def test_what_is_embedding_and_head_is_rounded_for_both(build: Callable[[], SpeechModel]) -> None:
    tied, untied = (build(tie_word_embeddings=both) for both in (True, False))
    statistics = end_statistics(tied, noise_calibration(tied, 2), [tied.graph.embedding])
    gram = statistics[tied.graph.embedding].gram
    assert gram is not None
    alone = end_statistics(untied, noise_calibration(untied, 2), [untied.graph.embedding])
    assert torch.equal(alone[untied.graph.embedding].gram, torch.eye(64))
    rounder = build_method(composed("method=gptq").method)
    W, spec = flat_weight(tied.module, tied.graph.embedding), WeightSpec(3, -1, symmetric=False)
    errors = {
        name: W - one.round(W.clone(), spec, statistics[tied.graph.embedding]).weight.dequantize()
        for name, one in (("rtn", RTN("rtn", "minmax")), ("gptq", rounder))
    }
    costs = {name: ((E @ gram) * E).sum().item() for name, E in errors.items()}
    assert costs["gptq"] < costs["rtn"]


@pytest.mark.parametrize("model", ["embedded_whisper", "embedded_moonshine"])
@torch.no_grad()
def test_real_front_ends_at_4_bits_cost_a_fraction_of_what_rounding_to_nearest_does(model: str) -> None:
    """A scale an output channel, on speech that was not calibrated on: less than a fourth of the encoder's error."""
    speech = load(composed(f"model={model}").model, "cpu", 0)
    clips = load_utterances(composed("dataset=librispeech_sample_calibration").dataset, seed=0)[:8]
    waveforms = [clip.waveform()[: speech.window] for clip in clips]
    heard = speech.features(waveforms)
    seconds = [len(each) / speech.sampling_rate for each in waveforms]
    calibration = Calibration([clip.id for clip in clips], seconds, waveforms, heard, [[*speech.prompt]] * 8, 1)
    before = speech.encode(heard[:1]).states
    statistics = end_statistics(speech, calibration.part(range(1, 8)), speech.graph.frontend)
    weights = {path: flat_weight(speech.module, path).clone() for path in speech.graph.frontend}
    errors = {}
    for name in ("rtn", "gptq_mse"):
        rounder = build_method(composed(f"method={name}").method)
        for path, W in weights.items():
            rounded = rounder.round(W, WeightSpec(4, -1, symmetric=False), statistics[path])
            write_weight(speech.module, path, rounded.weight)
        errors[name] = (speech.encode(heard[:1]).states - before).square().mean().item()
    assert errors["gptq_mse"] < errors["rtn"] / 4


@torch.no_grad()
def test_silence_counts_in_convolutions_as_in_the_encoder() -> None:
    """The frames of the first convolution are half as long as those of the second."""
    speech = tiny_whisper()
    found = {}
    for silence in (0.0, 0.5, 1.0):
        calibration = replace(noise_calibration(speech, 2), silence=silence)
        found[silence] = end_statistics(speech, calibration, speech.graph.frontend)
    for path in speech.graph.frontend:
        none, half, all_ = (found[silence][path].gram for silence in (0.0, 0.5, 1.0))
        torch.testing.assert_close(half, (none + all_) / 2)
        assert 0.1 < none.trace() / all_.trace() < 0.99


@pytest.mark.parametrize("ends", ["quarot", "spqr", "fp", "guided", "omniquant"])
def test_only_rounders_of_single_weights_round_ends(ends: str) -> None:
    with pytest.raises(UserError, match=f"ends: {ends} does more than to round single weights"):
        end_rounder(composed(f"method@ends={ends}", "head_bits=4"))


@BUILDERS
def test_full_precision_has_no_ends(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    assert not chosen_ends(speech.graph, speech.module, composed("method=fp", *BOTH))
    assert not chosen_ends(speech.graph, speech.module, composed("method=rtn"))


@BUILDERS
def test_an_untied_head_is_a_weight_of_its_own(build: Callable[[], SpeechModel]) -> None:
    speech = build(tie_word_embeddings=False)
    assert not is_tied(speech)
    ends = rounded_ends(speech, "head_bits=4")
    assert {row["linear"]: row["component"] for row in ends.rows} == {
        speech.graph.embedding: "embedding",
        speech.graph.head: "head",
    }
    assert not any("one matrix" in note for row in ends.rows for note in row["notes"])


@BUILDERS
def test_blocks_are_fitted_to_what_rounded_ends_feed_them_unless_they_see_fp(
    build: Callable[[], SpeechModel],
) -> None:
    def codes(*overrides: str) -> dict[str, Tensor]:
        speech = build()
        speech.module.half().float()  # what stays at 16 bits is stored as it is
        weights = quantized(speech, composed("method=gptq", "wbits=3", *overrides)).weights
        return {linear.path: weights[linear.path].codes for linear in speech.graph.linears}

    graph = build().graph
    first = [block.linears[0].path for block in (graph.encoder[0], graph.decoder[0])]
    for propagate, follows in (("quantized", True), ("fp", False)):
        plain, coarse = (codes(f"calib.propagate={propagate}", *ends) for ends in ((), ("scope=everything",)))
        same = {path for path in plain if torch.equal(plain[path], coarse[path])}
        assert same.isdisjoint(first) if follows else same == set(plain)


@dataclass(frozen=True)
class Recorder(Method):
    """Rounds to nearest, and keeps what it is shown: the first batch of every block's inputs and targets."""

    inputs: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    @property
    def needs(self) -> Needs:
        return Needs(fits_blocks=True, block_inputs=True, block_outputs=True)

    def fit_block(self, bench: Workbench, task: BlockTask) -> Mapping[str, Rounded]:
        self.inputs.append(task.inputs[0].hidden)
        self.targets.append(task.targets[0])
        return {}


@BUILDERS
def test_targets_are_those_of_the_original_model(build: Callable[[], SpeechModel]) -> None:
    def shown(*overrides: str) -> tuple[Recorder, SpeechModel]:
        speech, method = build(), Recorder("recorder")
        speech.module.half().float()  # what stays at 16 bits is stored as it is
        settings = composed("method=rtn", "wbits=16", *overrides)
        Quantizer(speech, method, settings, noise_calibration(speech, 2)).run()
        return method, speech

    (plain, original), (rounded, speech) = shown(), shown("head_bits=2", "frontend_bits=2")
    assert len(rounded.targets) == len(speech.graph.blocks)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(rounded.targets, plain.targets, strict=True))
    assert not any(torch.equal(ours, theirs) for ours, theirs in zip(rounded.inputs, plain.inputs, strict=True))
    for path in (*speech.graph.frontend, speech.graph.embedding):
        assert not torch.equal(flat_weight(speech.module, path), flat_weight(original.module, path))
    assert is_tied(speech)
