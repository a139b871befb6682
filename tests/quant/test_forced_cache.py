"""Teacher forcing reads the cache that generation reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from src.methods.apply import Quantizer
from src.methods.build import build_method
from src.models.cache_argument import cached
from src.models.speech import Encoded, SpeechModel
from src.quant.fake import kv_layer_factory, tell_frames
from src.quant.forced_cache import ForcedCache
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

LENGTH = 6
BUILD = {"whisper": tiny_whisper, "moonshine": tiny_moonshine}


@pytest.fixture(params=sorted(BUILD))
def speech(request: pytest.FixtureRequest) -> SpeechModel:
    return BUILD[request.param](seed=3)


@pytest.fixture
def encoded(speech: SpeechModel) -> Encoded:
    calibration = noise_calibration(speech, 3)
    with torch.no_grad():
        return speech.encode(calibration.features[:3])


def tokens(speech: SpeechModel) -> Tensor:
    return torch.randint(speech.module.config.vocab_size, (3, LENGTH), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def forced(speech: SpeechModel, encoded: Encoded, layer: Callable[[], DynamicLayer] | None) -> Tensor:
    """Output of the last decoder block for all tokens at once."""
    hidden, arguments = speech.decoder_inputs(tokens(speech), encoded)
    forward = type(speech.block(speech.graph.decoder[0])).forward
    cache = {} if layer is None else cached(forward, ForcedCache(layer, encoded.mask))
    for block in speech.graph.decoder:
        hidden = speech.block(block)(hidden, **{**arguments, **cache})
    return speech.module.get_submodule(speech.graph.head)(
        speech.module.get_submodule(speech.graph.decoder_norm)(hidden)
    )


@torch.no_grad()
def generated(speech: SpeechModel, encoded: Encoded, layer: Callable[[], DynamicLayer]) -> Tensor:
    """The same logits, a token at a time from a cache."""
    cache = speech.new_cache(layer)
    tell_frames(cache, encoded.mask)
    steps = tokens(speech).split(1, dim=1)
    return torch.stack([speech.decode_step(step, encoded, cache) for step in steps], dim=1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_all_tokens_at_once_read_what_generation_reads_step_by_step(
    speech: SpeechModel, encoded: Encoded, bits: int
) -> None:
    layer = kv_layer_factory(bits)
    at_once, stepwise = forced(speech, encoded, layer), generated(speech, encoded, layer)
    torch.testing.assert_close(at_once, stepwise, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(at_once, forced(speech, encoded, None), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", sorted(BUILD))
def test_keys_per_channel_are_those_of_generation_where_a_group_ends(family: str) -> None:
    """With one block, whose keys no query changes; earlier queries read the group before it is complete."""
    layers = {"whisper": "decoder_layers", "moonshine": "decoder_num_hidden_layers"}[family]
    speech = BUILD[family](seed=3, **{layers: 1})
    with torch.no_grad():
        encoded = speech.encode(noise_calibration(speech, 3).features[:3])
    layer = kv_layer_factory(4, key_group=LENGTH)
    at_once, stepwise = forced(speech, encoded, layer), generated(speech, encoded, layer)
    torch.testing.assert_close(at_once[:, -1], stepwise[:, -1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(at_once[:, -2], stepwise[:, -2], rtol=1e-4, atol=1e-4)


def test_a_pass_leaves_nothing_behind_and_clips_can_be_chosen(speech: SpeechModel, encoded: Encoded) -> None:
    cache = ForcedCache(kv_layer_factory(3, key_group=2), encoded.mask)
    hidden, arguments = speech.decoder_inputs(tokens(speech), encoded)
    block = speech.block(speech.graph.decoder[0])
    with torch.no_grad():
        first, second = (block(hidden, **arguments, **cached(type(block).forward, cache)) for _ in range(2))
    assert torch.equal(first, second)
    cross = cache.clips(slice(1, 2)).cross_attention_cache
    states = torch.randn(1, 2, encoded.mask.shape[1], 4, generator=torch.Generator().manual_seed(1))
    alone = ForcedCache(kv_layer_factory(3, key_group=2), encoded.mask[1:2]).cross_attention_cache
    assert torch.equal(cross.update(states, states, 0)[0], alone.update(states, states, 0)[0])


def test_gradients_pass_the_rounding(speech: SpeechModel, encoded: Encoded) -> None:
    cache = ForcedCache(kv_layer_factory(4), encoded.mask).self_attention_cache
    states = torch.randn(1, 2, 5, 8, requires_grad=True)
    keys, values = cache.update(states, states, 0)
    (keys.sum() + 2 * values.sum()).backward()
    assert torch.equal(states.grad, torch.full_like(states, 3.0))


@pytest.mark.parametrize(("propagate", "same"), [("quantized", False), ("fp", True)])
def test_decoder_blocks_are_fitted_to_what_the_quantized_cache_gives_them(propagate: str, same: bool) -> None:
    """Inputs of the first decoder block's attention output differ, and so do GPTQ's codes; the encoder's do not."""
    codes = []
    for bits in ("w4a16", "w4a16kv4"):
        speech = tiny_whisper(seed=3)
        settings = composed("method=gptq", f"bits={bits}", f"calib.propagate={propagate}")
        quantizer = Quantizer(speech, build_method(settings.method), settings, noise_calibration(speech, 3))
        quantizer.run()
        codes.append({path: weight.codes for path, weight in quantizer.weights.items()})
    differing = {path for path in codes[0] if not torch.equal(codes[0][path], codes[1][path])}
    assert bool(differing) is not same
    assert not any(path.startswith("model.encoder.") for path in differing)
