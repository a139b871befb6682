"""The block-by-block walk sees what a plain forward pass of the whole model sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from src.calib.running_statistics import About, RunningStatistics
from src.calib.statistics import load_statistics, measure, save_statistics
from src.calib.task import BlockTask
from src.calib.walk import Walker, WalkOptions
from src.models.speech import SpeechModel
from src.quant.link_statistics import LinkStatistics
from tests.calib.clips import noise_calibration
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])


@torch.inference_mode()
def inputs_of_whole_model(speech: SpeechModel, batch_size: int) -> dict[str, Tensor]:
    """Inputs ``[rows, in]`` of every linear, by path, from forward passes clip by clip: nothing is padded."""
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for linear in speech.graph.linears:

        def record(_: object, inputs: tuple[Tensor, ...], path: str = linear.path) -> None:
            seen.setdefault(path, []).append(inputs[0].flatten(0, -2))

        handles.append(speech.module.get_submodule(linear.path).register_forward_pre_hook(record))
    calibration = noise_calibration(speech, batch_size)
    for features, tokens in zip(calibration.features, calibration.tokens, strict=True):
        speech.forward_tokens(torch.tensor([tokens]), speech.encode([features]))
    for handle in handles:
        handle.remove()
    return {path: torch.cat(rows) for path, rows in seen.items()}


@BUILDERS
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_statistics_equal_those_of_unpadded_forward_passes(build: Callable[[], SpeechModel], batch_size: int) -> None:
    speech = build()
    measured = measure(speech, noise_calibration(speech, batch_size), gram=True)
    expected = inputs_of_whole_model(speech, batch_size)
    assert {link.name for link in speech.graph.links} == set(measured)
    for link in speech.graph.links:
        for path in link.linears:
            x = expected[path]
            item = measured[link.name]
            assert item.count == len(x), path
            torch.testing.assert_close(item.gram, x.T @ x, rtol=1e-3, atol=1e-3, msg=path)
            torch.testing.assert_close(item.minimum, x.amin(0), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(item.maximum, x.amax(0), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(item.abs_max, x.abs().amax(0), rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(item.abs_mean, x.abs().mean(0), rtol=1e-3, atol=1e-4)


@BUILDERS
def test_frames_and_tokens_are_counted_apart(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    calibration = noise_calibration(speech, 2)
    counts = {name: item.count for name, item in measure(speech, calibration, gram=False).items()}
    tokens = sum(map(len, calibration.tokens))
    frames = int(speech.encode(calibration.features).mask.sum())
    assert set(counts.values()) == {tokens, frames}
    assert counts[speech.graph.link_of(speech.graph.encoder[0].linears[0].path).name] == frames
    assert counts[speech.graph.link_of(speech.graph.decoder[0].linears[0].path).name] == tokens


@BUILDERS
def test_refresh_feeds_a_block_from_its_changed_predecessors(build: Callable[[], SpeechModel]) -> None:
    def damage(speech: SpeechModel) -> Callable[[BlockTask], None]:
        def on_block(task: BlockTask) -> None:
            seen.update({name: item for name, item in task.statistics.items() if name not in seen})
            for linear in task.block.linears:
                speech.module.get_parameter(f"{linear.path}.weight").mul_(0.9)

        return on_block

    seen: dict[str, LinkStatistics] = {}
    changed = build()
    Walker(changed, noise_calibration(changed, 2), WalkOptions(gram=True, refresh=True)).walk(damage(changed))
    final = measure(changed, noise_calibration(changed, 2), gram=True)  # the model as it is after every change
    # The first linear of a block reads its predecessors' output, which no later change moves.
    for block in changed.graph.blocks:
        first = changed.graph.link_of(block.linears[0].path).name
        torch.testing.assert_close(seen[first].gram, final[first].gram, rtol=1e-3, atol=1e-2)

    seen = {}
    kept = build()
    Walker(kept, noise_calibration(kept, 2), WalkOptions(gram=True)).walk(damage(kept))
    original = measure(build(), noise_calibration(kept, 2), gram=True)
    for name, item in original.items():
        torch.testing.assert_close(seen[name].gram, item.gram, rtol=1e-3, atol=1e-2)


@BUILDERS
@pytest.mark.parametrize("link_by_link", [False, True])
def test_cross_gram_matrices_compare_with_the_model_that_is_not_rounded(
    build: Callable[[], SpeechModel], link_by_link: bool
) -> None:
    """Link by link, of every link: what it was told is what the final model gives. Else of a block's first link."""

    def on_block(task: BlockTask) -> None:
        for linear in task.block.linears:
            link = changed.graph.link_of(linear.path).name
            seen.setdefault(link, task.statistics[link])
            changed.module.get_parameter(f"{linear.path}.weight").mul_(0.9)

    seen: dict[str, LinkStatistics] = {}
    changed = build()
    options = WalkOptions(gram=True, refresh=True, cross=True, link_by_link=link_by_link)
    Walker(changed, noise_calibration(changed, 2), options).walk(on_block)
    before, after = inputs_of_whole_model(build(), 2), inputs_of_whole_model(changed, 2)
    firsts = {block.linears[0].path for block in changed.graph.blocks}
    shared = {link.name for link in changed.graph.links if link.source == changed.graph.encoder_norm}
    compared = 0
    for link in changed.graph.links:
        if link_by_link or link.name in shared or firsts.intersection(link.linears):
            X_fp, X = before[link.linears[0]], after[link.linears[0]]
            torch.testing.assert_close(seen[link.name].gram, X.T @ X, rtol=1e-3, atol=1e-2)
            torch.testing.assert_close(seen[link.name].cross_gram, (X_fp - X).T @ X, rtol=1e-3, atol=2e-2)
            compared += 1
    assert compared == (len(changed.graph.links) if link_by_link else len(changed.graph.blocks) + 1)


@BUILDERS
def test_a_cross_gram_matrix_is_zero_where_nothing_was_rounded(build: Callable[[], SpeechModel]) -> None:
    speech, seen = build(), {}
    options = WalkOptions(gram=True, refresh=True, cross=True)
    walker = Walker(speech, noise_calibration(speech, 2), options)
    walker.walk(lambda task: seen.update(task.statistics))
    assert seen
    assert not any(each.cross_gram.any() for each in seen.values())


def test_statistics_survive_the_disk(tmp_path) -> None:
    speech = tiny_moonshine()
    measured = measure(speech, noise_calibration(speech, 2), gram=True)
    save_statistics(measured, tmp_path / "statistics.safetensors")
    loaded = load_statistics(tmp_path / "statistics.safetensors", torch.device("cpu"))
    assert set(loaded) == set(measured)
    for name, item in measured.items():
        assert loaded[name].count == item.count
        for field in ("gram", "minimum", "maximum", "abs_mean"):
            assert torch.equal(getattr(loaded[name], field), getattr(item, field))


def test_a_link_that_no_input_reached_is_an_error() -> None:
    with pytest.raises(ValueError, match="no calibration input"):
        RunningStatistics(4, gram=True, device=torch.device("cpu")).finish()


@BUILDERS
def test_targets_are_the_full_precision_outputs_whatever_happens_to_the_blocks(
    build: Callable[[], SpeechModel],
) -> None:
    def outputs(*, damaged: bool) -> dict[str, list[Tensor]]:
        speech, found = build(), {}

        def on_block(task: BlockTask) -> None:
            found[task.block.path] = task.targets if damaged else task.outputs()
            for linear in task.block.linears if damaged else ():
                speech.module.get_parameter(f"{linear.path}.weight").mul_(0.5)

        options = WalkOptions(gram=False, refresh=damaged, targets=damaged)
        Walker(speech, noise_calibration(speech, 2), options).walk(on_block)
        return found

    targets, expected = outputs(damaged=True), outputs(damaged=False)
    for path, batches in expected.items():
        for target, output in zip(targets[path], batches, strict=True):
            torch.testing.assert_close(target, output)


@pytest.mark.parametrize("silence", [0.0, 0.05])
def test_silence_behind_clips_counts_as_told_in_gram_matrices_alone(silence: float) -> None:
    """Of all links that carry frames: those of the encoder, and its output, which the cross-attention reads."""
    speech = tiny_whisper()
    calibration = noise_calibration(speech, 2)
    plain = measure(speech, calibration, gram=True)
    found = measure(speech, replace(calibration, silence=silence), gram=True)
    inputs = inputs_of_whole_model(speech, 2)
    frames, per_second = speech.module.config.max_source_positions, 50
    counts = []
    for seconds in calibration.seconds:
        heard = min(frames, math.ceil((seconds + 0.5) * per_second))  # half a second behind it counts as speech
        counts.append(torch.cat([torch.ones(heard), torch.full((frames - heard,), silence)]))
    assert 0.2 < float((torch.cat(counts) == 1).float().mean()) < 0.9
    read_frames = {linear.path for block in speech.graph.encoder for linear in block.linears}
    read_frames |= {path for link in speech.graph.cross_links for path in link.linears}
    for link in speech.graph.links:
        for path in link.linears:
            x, item = inputs[path], found[link.name]
            weighted = x * torch.cat(counts)[:, None] if path in read_frames else x
            torch.testing.assert_close(item.gram, x.T @ weighted, rtol=1e-3, atol=1e-3, msg=path)
            assert torch.equal(item.abs_max, plain[link.name].abs_max)
            assert torch.equal(item.powers, plain[link.name].powers)


def test_no_frame_is_silence_where_clips_are_not_padded_to_one_length() -> None:
    speech = tiny_moonshine()
    assert replace(noise_calibration(speech, 2), silence=0.05).frame_weights(speech, 40) is None


def test_row_weights_enter_the_gram_matrix_alone() -> None:
    speech = tiny_moonshine()
    calibration = noise_calibration(speech, 2)
    plain = measure(speech, calibration, gram=True)
    doubled: dict[str, LinkStatistics] = {}

    def weigh(task: BlockTask) -> list[Tensor]:
        return [torch.full(each.valid.shape, 2.0) for each in task.inputs]

    walker = Walker(speech, calibration, WalkOptions(gram=True), weigh)
    walker.walk(lambda task: doubled.update(task.statistics))
    own = speech.graph.link_of(speech.graph.encoder[0].linears[0].path).name
    torch.testing.assert_close(doubled[own].gram, 4 * plain[own].gram)
    assert torch.equal(doubled[own].abs_max, plain[own].abs_max)


def test_row_weights_and_rare_rows_enter_the_gram_and_the_cross_gram_matrix_alike() -> None:
    torch.manual_seed(0)
    X, X_fp = torch.randn(60, 8), torch.randn(60, 8)
    R, rare = torch.rand(60), torch.arange(60) % 7 == 0
    running = RunningStatistics(8, gram=True, device=X.device, cross=True)
    for part in (slice(0, 25), slice(25, 60)):
        running.update(X[part], About(R[part], rare[part], X_fp[part]))
    found = running.finish()
    weighted, change = X * R[:, None], (X_fp - X) * R[:, None]
    common, tail = (weighted[each].T @ weighted[each] for each in (~rare, rare))
    factor = common.trace() / tail.trace()
    torch.testing.assert_close(found.gram, common + factor * tail)
    of_common, of_tail = (change[each].T @ weighted[each] for each in (~rare, rare))
    torch.testing.assert_close(found.cross_gram, of_common + factor * of_tail)


def test_rare_rows_alone_count_as_they_are() -> None:
    torch.manual_seed(0)
    X = torch.randn(20, 8)
    running = RunningStatistics(8, gram=True, device=X.device)
    running.update(X, About(rare=torch.ones(20, dtype=torch.bool)))
    torch.testing.assert_close(running.finish().gram, X.T @ X)


def test_divided_statistics_are_those_of_divided_inputs() -> None:
    torch.manual_seed(0)
    X, X_fp, s = torch.randn(30, 8), torch.randn(30, 8), torch.rand(8) + 0.5

    def measured(divisor: Tensor) -> LinkStatistics:
        running = RunningStatistics(8, gram=True, device=X.device, cross=True)
        running.update(X / divisor, About(unrounded=X_fp / divisor))
        return running.finish()

    divided, expected = measured(torch.ones(8)).divided(s), measured(s)
    for field in ("gram", "cross_gram", "minimum", "maximum", "abs_mean"):
        torch.testing.assert_close(getattr(divided, field), getattr(expected, field))
