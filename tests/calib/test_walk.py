"""The block-by-block walk sees what a plain forward pass of the whole model sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from src.calib.running_statistics import RunningStatistics
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
