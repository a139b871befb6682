"""Moonshine Streaming gives what transformers gives, of clips of any length, alone or together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor
from transformers.generation import GenerationMixin

from src.decoding.decode import greedy
from src.errors import UserError
from src.models.claims import check_checkpoint
from src.models.dimensions import Dimensions
from src.models.families import dimensions_of
from src.models.graph import Feed
from src.models.loading import load, load_config, load_graph
from src.models.moonshine_streaming.graph import streaming_graph
from src.models.moonshine_streaming.original import ADAPTER
from src.models.speech import SpeechModel
from src.profiling.point_profile import profile_point
from tests.composed import composed
from tests.profiling.profiling_points import point_of_quantized, quantized
from tests.tiny import build_random, model_settings
from tests.tiny.moonshine_streaming import (
    STREAMING,
    STREAMING_ENCODER,
    UNEVEN,
    streaming_config,
    tiny_streaming,
    tiny_uneven_streaming,
)

SAMPLES = (20_800, 16_033, 9_000, 1_100, 80)  # whole pieces of 5 ms, and not
KINDS = pytest.mark.parametrize("encoder", [{}, UNEVEN], ids=["as wide", "projected"])


def waveforms() -> list[np.ndarray]:
    noise = np.random.default_rng(0)
    return [(0.1 * noise.standard_normal(samples)).astype(np.float32) for samples in SAMPLES]


def theirs(waveform: np.ndarray) -> dict[str, Tensor]:
    """What transformers' processor makes of a clip."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    made = extractor(waveform, sampling_rate=16_000, padding=True, pad_to_multiple_of=80, return_tensors="pt")
    return {"input_values": made["input_values"], "attention_mask": made["attention_mask"]}


@KINDS
def test_logits_equal_those_of_transformers(encoder: dict[str, int]) -> None:
    module, speech = build_random(streaming_config(encoder=encoder), 3), tiny_streaming(3, encoder=encoder)
    tokens = torch.tensor([[1, 9, 4, 33, 60, 7]])
    for waveform in waveforms():
        expected = module(**theirs(waveform), decoder_input_ids=tokens).logits
        found = speech.forward_tokens(tokens, speech.encode(speech.features([waveform])))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@KINDS
def test_greedy_decoding_together_equals_generate_alone(encoder: dict[str, int]) -> None:
    module, speech = build_random(streaming_config(encoder=encoder), 3), tiny_streaming(3, encoder=encoder)
    found = greedy(speech, speech.features(waveforms()), SAMPLES, suppress=False)
    alone = []
    for waveform in waveforms():
        cap = speech.max_new_tokens(len(waveform))
        given = {**theirs(waveform), "decoder_input_ids": torch.tensor([[1]])}
        ids = GenerationMixin.generate(module, **given, max_new_tokens=cap, do_sample=False)[0, 1:].tolist()
        alone.append([token for token in ids if token not in (speech.eos, 0)])
    assert [[token for token in ids if token not in (speech.eos, 0)] for ids in found] == alone
    assert max(map(len, alone)) == 10


def test_a_frame_knows_nothing_of_what_is_heard_after_its_windows() -> None:
    """Two blocks look 2 frames and none ahead; a frame of 20 ms ends with the last of its four pieces."""
    speech = tiny_streaming()
    first = waveforms()[0]
    other = first.copy()
    other[12_800:] = 0  # 40 frames of 320 samples: frame 40 hears of it, and through the first block 38 and 39
    a, b = (speech.encode(speech.features([each])).states[0] for each in (first, other))
    assert torch.equal(a[:38], b[:38])
    assert not any(torch.allclose(a[frame], b[frame]) for frame in (38, 39, 40))


def test_tokens_are_bounded_as_the_first_generations() -> None:
    speech = tiny_streaming()
    assert [speech.max_new_tokens(16_000 * seconds) for seconds in (1, 10)] == [8, 67]
    assert tiny_streaming(max_position_embeddings=4096).window == 30 * 16_000
    assert speech.window == 128 * 320


@pytest.mark.parametrize("build", [tiny_streaming, tiny_uneven_streaming])
def test_norms_are_plain_and_every_linear_but_the_adapters_is_declared(build: Callable[[], SpeechModel]) -> None:
    speech = build()
    kinds = {type(child) for _, child in speech.module.named_modules() if "Norm" in type(child).__name__}
    assert kinds == {nn.LayerNorm}
    linears = {name for name, child in speech.module.named_modules() if isinstance(child, nn.Linear)}
    declared = {linear.path for linear in speech.graph.linears}
    assert linears - declared == {"proj_out", "model.encoder.embedder.linear"}
    [cross] = speech.graph.cross_links
    assert (cross.feed, len(cross.linears)) == (Feed.ADAPTER, 4)


@pytest.mark.parametrize(("build", "said"), [(tiny_streaming, []), (tiny_uneven_streaming, [ADAPTER])])
def test_the_layer_table_says_that_an_adapter_stays_at_16_bits(
    build: Callable[[], SpeechModel], said: list[str]
) -> None:
    speech, settings = build(), composed("method=rtn", "bits=w4a16", "head_bits=8")
    before = speech.module.get_submodule(ADAPTER).weight.clone()
    quantizer = quantized(speech, settings)
    skipped = [row for row in quantizer.rows if "skipped" in row]
    assert [row["linear"] for row in skipped] == said
    assert all((row["wbits"], row["shape"]) == (16, [64, 96]) for row in skipped)
    assert torch.equal(speech.module.get_submodule(ADAPTER).weight, before.half().float())
    profile = profile_point(point_of_quantized(speech, settings, quantizer), disk_bytes=0)
    assert profile.parameters == sum(parameter.numel() for parameter in speech.module.parameters())


def test_a_checkpoint_is_stored_and_loaded_as_transformers_has_it(tmp_path: Path) -> None:
    architecture = {**STREAMING, "encoder_config": {**STREAMING_ENCODER, **UNEVEN}}
    module = build_random(streaming_config(encoder=UNEVEN), 3)
    with torch.no_grad():
        module.proj_out.weight.copy_(module.model.decoder.embed_tokens.weight)  # as in the published ones, untied
    module.save_pretrained(tmp_path)
    stored = model_settings(tmp_path, family="moonshine_streaming", architecture=architecture)
    check_checkpoint(stored, tmp_path)
    assert not module.config.tie_word_embeddings
    assert load_config(stored).tie_word_embeddings
    assert load_graph(stored) == tiny_uneven_streaming().graph
    drawn = load(stored.model_copy(update={"random_weights": True}), "cpu", 0)
    assert drawn.graph == load_graph(stored)
    other = {**architecture, "encoder_config": {**architecture["encoder_config"], "hidden_size": 128}}
    with pytest.raises(UserError, match=r"encoder_config\.hidden_size is 96, not 128"):
        check_checkpoint(stored.model_copy(update={"architecture": other}), tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(text.replace('"hidden_size": 96', '"hidden_size": 97'), encoding="utf-8")
    with pytest.raises(UserError, match=r"encoder_config\.hidden_size 97, and the weights have 96"):
        check_checkpoint(stored, tmp_path)


def test_heads_of_two_widths_are_refused() -> None:
    with pytest.raises(UserError, match="heads are 16 wide and the decoder's 32"):
        streaming_graph(streaming_config(encoder={"head_dim": 16}))


def test_an_utterance_beyond_the_positions_has_no_costs() -> None:
    sizes: Dimensions = dimensions_of(tiny_streaming().module.config)
    assert sizes.frames(2.56) == 128
    with pytest.raises(UserError, match=r"3 s make 150 encoder frames, and the model has 128 positions"):
        sizes.lengths(3)
