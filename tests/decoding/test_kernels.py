"""Kernels for inference give the numbers of torch's own, and leave the model as it was."""

from __future__ import annotations

import copy
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from src.decoding.decode import encode
from src.decoding.kernels import inference_kernels
from src.models.speech import SpeechModel
from src.quant.linear import QuantLinear, install
from tests.tiny import tiny_moonshine, tiny_whisper

FRAMES = 1_130  # neither a multiple of a tile nor within one
ours = AttentionInterface()["cpu_inference"]


def states(length: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """[batch, heads, length, width] with scores that matter to a softmax."""
    return 2 * torch.randn(2, 3, length, 20, generator=torch.Generator().manual_seed(seed)).to(dtype)


def both(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Our attention, and the definition of it in float64."""
    module = nn.Module()
    module.is_causal = False
    scores = 0.3 * query.double() @ key.double().transpose(2, 3)
    if mask is not None:
        scores.masked_fill_(~mask, float("-inf"))
    exact = (scores.softmax(-1) @ value.double()).transpose(1, 2).float()
    return ours(module, query, key, value, mask, scaling=0.3)[0], exact


@pytest.mark.parametrize("queries", [1, 7, FRAMES])
def test_attention_is_softmax_of_scaled_scores(queries: int) -> None:
    found, expected = both(states(queries), states(FRAMES, seed=1), states(FRAMES, seed=2), None)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("queries", [1, FRAMES])
def test_masked_keys_do_not_count(queries: int) -> None:
    mask = torch.ones(2, 1, queries, FRAMES, dtype=torch.bool)
    mask[1, :, :, 400:] = False
    key, value = states(FRAMES, seed=1), states(FRAMES, seed=2)
    found, expected = both(states(queries), key, value, mask)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    value[1, :, 400:] = 1e6
    torch.testing.assert_close(both(states(queries), key, value, mask)[0], found)


@pytest.mark.parametrize("queries", [1, FRAMES])
def test_half_precision_keeps_the_softmax_in_float32(queries: int) -> None:
    half = [states(length, torch.bfloat16, seed) for seed, length in enumerate((queries, FRAMES, FRAMES))]
    found, expected = both(half[0], half[1], half[2], None)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.02 * expected.norm()


def test_causal_attention_stays_causal() -> None:
    module = nn.Module()
    module.is_causal = True
    query, key, value = (states(600, seed=seed) for seed in range(3))
    expected, _ = sdpa_attention_forward(module, query, key, value, None)
    torch.testing.assert_close(ours(module, query, key, value, None)[0], expected)


@pytest.mark.parametrize("abits", [16, 8])
@pytest.mark.parametrize("build", [tiny_whisper, tiny_moonshine])
def test_a_model_gives_the_same_logits(build: type[SpeechModel], abits: int) -> None:
    speech = build()
    for block in speech.graph.blocks:
        for linear in block.linears:
            install(speech.module, linear.path, None, abits)
    time = np.arange(30_000) / 16_000
    features = speech.features([np.sin(2_000 * time**2).astype(np.float32), np.sin(900 * time[:9_000]).astype("f4")])
    tokens = torch.tensor([[5, 9, 4], [7, 7, 1]])
    with torch.inference_mode():
        together = speech.encode(features)
        plain = speech.decode_step(tokens, together, speech.new_cache())
        with inference_kernels(speech.module):
            encoded = encode(speech, features)
            fast = speech.decode_step(tokens, encoded, speech.new_cache())
    assert torch.equal(encoded.mask, together.mask)
    assert (fast - plain).norm() < (1e-5 if abits == 16 else 2e-2) * plain.norm()  # a rounded input may flip a code


def test_the_model_is_as_before_afterwards() -> None:
    speech = tiny_whisper()
    install(speech.module, "model.encoder.layers.0.fc1", None, 8)
    before = copy.deepcopy(speech.module)
    with suppress(KeyboardInterrupt), inference_kernels(speech.module):
        assert speech.module.config._attn_implementation != "sdpa"
        raise KeyboardInterrupt
    assert speech.module.config._attn_implementation == "sdpa"
    for now, then in zip(speech.module.modules(), before.modules(), strict=True):
        assert type(now) is type(then)
        assert "forward" not in vars(now)
    assert isinstance(speech.module.get_submodule("model.encoder.layers.0.fc1"), QuantLinear)
