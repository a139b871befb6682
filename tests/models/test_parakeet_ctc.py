"""Parakeet CTC, a family without a decoder: it gives what transformers gives, and runs through the whole pipeline."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ParakeetFeatureExtractor

from src.calib.end_inputs import end_statistics
from src.calib.statistics import measure
from src.decoding.ctc import best_path
from src.decoding.decode import greedy
from src.errors import UserError
from src.methods.parts.fold import fold_scale
from src.models.claims import check_checkpoint
from src.models.graph import Feed
from src.models.loading import load, load_config, load_graph
from src.models.parakeet_ctc.features import LogMel
from src.models.parakeet_ctc.speech import ParakeetSpeech
from src.quant.ends import chosen_ends, flat_weight
from src.settings import ModelSettings
from src.stages.calibrate import Calibrate
from src.stages.measure import Measure
from src.stages.point import open_point
from src.stages.profile import Profile
from src.stages.quantize import Quantize
from tests import commands
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import build_random, model_settings
from tests.tiny.parakeet_ctc import (
    EXTRACTOR,
    PARAKEET,
    PARAKEET_ENCODER,
    numbered_words,
    parakeet_checkpoint,
    parakeet_config,
    tiny_parakeet,
)

SAMPLES = (28_000, 20_011, 15_000, 9_000, 330)
BLANK = PARAKEET["pad_token_id"]


def waveforms() -> list[np.ndarray]:
    """Bursts of tones and noise, so that frames differ."""
    draw = np.random.default_rng(0)
    sounds = []
    for samples in SAMPLES:
        pitch = np.repeat(draw.uniform(100, 4000, samples // 1000 + 1), 1000)[:samples]
        sounds.append(0.3 * np.sin(np.cumsum(pitch) * 2 * np.pi / 16_000) + draw.normal(0, 0.01, samples))
    return [each.astype(np.float32) for each in sounds]


def theirs(sounds: list[np.ndarray]) -> dict[str, Tensor]:
    """What transformers' extractor makes of a batch."""
    try:
        extractor = ParakeetFeatureExtractor()
    except ImportError:
        pytest.skip("this transformers wants librosa for its features")
    return dict(extractor(sounds, sampling_rate=16_000, return_tensors="pt"))


@pytest.fixture(scope="module")
def original() -> Any:
    return varied(build_random(parakeet_config(), 3))


def varied(module: Any) -> Any:
    """With a front-end so loud that frames differ in their best token, and a head that likes the blank."""
    head, frontend = module.ctc_head, module.encoder.subsampling
    with torch.no_grad():
        for layer in (*frontend.layers, frontend.linear):
            for name, parameter in layer.named_parameters():
                parameter.mul_(3 if name == "weight" else 0)
        head.bias.zero_()
        head.bias[BLANK] = 0.5
    return module.eval()


def speech_of(seed: int) -> ParakeetSpeech:
    speech = tiny_parakeet(seed)
    varied(speech.module)
    return speech


def test_features_equal_those_of_transformers() -> None:
    batch = theirs(waveforms())
    for row, waveform in enumerate(waveforms()):
        found = LogMel()(waveform)
        assert len(found) == int(batch["attention_mask"][row].sum())
        torch.testing.assert_close(found, batch["input_features"][row, : len(found)], atol=2e-5, rtol=1e-4)


def test_a_clip_shorter_than_two_frames_is_padded_with_silence() -> None:
    assert torch.isfinite(LogMel()(np.full(40, 0.1, np.float32))).all()
    assert torch.equal(LogMel()(np.full(40, 0.1, np.float32)), LogMel()(np.pad(np.full(40, 0.1, np.float32), (0, 280))))


def test_logits_equal_those_of_transformers_alone_and_together(original: Any) -> None:
    speech, sounds = speech_of(3), waveforms()
    together = speech.encode(speech.features(sounds))
    found = speech.frame_logits(together)
    expected = original(**theirs(sounds)).logits
    torch.testing.assert_close(found[together.mask], expected[together.mask], atol=2e-5, rtol=1e-4)
    for row, sound in enumerate(sounds):
        alone = speech.frame_logits(speech.encode(speech.features([sound])))[0]
        torch.testing.assert_close(alone, found[row, : len(alone)], atol=2e-5, rtol=1e-4)


def test_greedy_decoding_is_that_of_transformers_alone_and_together(original: Any) -> None:
    speech, sounds = speech_of(3), waveforms()
    found = greedy(speech, speech.features(sounds), SAMPLES, suppress=True)
    sequences = original.generate(**theirs(sounds)).tolist()
    collapsed = [[token for token, _ in groupby(row) if token != BLANK] for row in sequences]
    assert found == collapsed
    assert [greedy(speech, speech.features([each]), [len(each)], suppress=True)[0] for each in sounds] == found
    assert any(BLANK in row for row in sequences)
    assert len({token for row in found for token in row}) > 5
    assert sum(map(len, found)) < sum(int(speech.max_new_tokens(samples)) for samples in SAMPLES)


def test_a_token_heard_twice_with_a_blank_between_is_written_twice() -> None:
    tokenizer, speech = numbered_words(), speech_of(3)
    speech._tokenizer = tokenizer
    heard = [BLANK, 7, 7, BLANK, 7, 9, 9, BLANK]
    logits = torch.nn.functional.one_hot(torch.tensor([heard]), BLANK + 1).float()
    [ids] = best_path(logits, torch.ones(1, len(heard), dtype=torch.bool), BLANK)
    assert ids == [7, 7, 9]
    assert speech.text(ids) == tokenizer.decode(heard) == "w7 w7 w9"


def test_scales_fold_into_four_norms_and_the_values_and_change_nothing() -> None:
    speech = speech_of(0)
    speech.module.double()
    features = [each.double() for each in noise_calibration(speech, 2).features[:2]]
    before = speech.frame_logits(speech.encode(features))
    folding = [link for link in speech.graph.links if link.feed.folds]
    assert {link.source.rpartition("layers.0.")[2] for link in folding if "layers.0." in link.name} == {
        "norm_feed_forward1",
        "norm_self_att",
        "norm_conv",
        "norm_feed_forward2",
        "self_attn.v_proj",
    }
    for link in folding:
        width = speech.module.get_submodule(link.linears[0]).in_features
        fold_scale(speech.module, link, 0.5 + torch.rand(width, dtype=torch.float64))
    torch.testing.assert_close(speech.frame_logits(speech.encode(features)), before, atol=1e-9, rtol=1e-9)


def test_statistics_are_of_frames_and_of_positions() -> None:
    """28,000 samples are 175 log-mel frames, hence 22 frames; positions are counted clip by clip, as they are run."""
    speech = speech_of(0)
    calibration = noise_calibration(speech, 2)
    frames = [-(-(each.shape[0]) // 8) for each in calibration.features]
    assert frames[0] == 22
    found = measure(speech, calibration, gram=True)
    assert found.keys() == {link.name for link in speech.graph.links}
    padded = [22, 22, 12, 12, 4]  # to the longest of a batch of two
    for link in speech.graph.links:
        expected = sum(2 * each - 1 for each in padded) if link.feed is Feed.POSITIONS else sum(frames)
        assert found[link.name].count == expected


def test_gram_matrices_of_ends_are_of_what_they_multiply() -> None:
    """Norms of outputs follow from the matrix: tr(W H W^T) is the sum of the squares of what a weight makes."""
    speech = speech_of(0)
    calibration = noise_calibration(speech, 2).part([0])
    settings = composed("method=rtn", "head_bits=4", "frontend_bits=4")
    paths = [end.path for end in chosen_ends(speech.graph, speech.module, settings)]
    assert paths == [
        *(f"encoder.subsampling.{name}" for name in ("layers.0", "layers.3", "layers.6", "linear")),
        "ctc_head",
    ]
    made = {}
    for path in paths:
        module = speech.module.get_submodule(path)
        bias = module.bias.view(-1, *[1] * (2 if isinstance(module, torch.nn.Conv2d) else 0))
        module.register_forward_hook(
            lambda _, __, out, path=path, bias=bias: made.update({path: (out - bias).square().sum()})
        )
    found = end_statistics(speech, calibration, paths)
    for path in paths:
        W, H = flat_weight(speech.module, path), found[path].gram
        assert H is not None
        torch.testing.assert_close((W @ H * W).sum(), made[path], rtol=1e-4, atol=1e-4)


def stored(folder: Path, **changes: Any) -> ModelSettings:
    return model_settings(folder, family="parakeet_ctc", **changes)


def test_a_checkpoint_is_stored_and_loaded_as_transformers_has_it(original: Any, tmp_path: Path) -> None:
    parakeet_checkpoint(tmp_path, original)
    architecture = {**PARAKEET, "encoder_config": PARAKEET_ENCODER}
    settings = stored(tmp_path, architecture=architecture)
    check_checkpoint(settings, tmp_path)
    speech = load(settings, "cpu", 0)
    assert speech.graph == load_graph(settings) == tiny_parakeet().graph
    sounds = waveforms()
    ids = greedy(speech, speech.features(sounds), SAMPLES, suppress=True)
    assert ids == greedy(speech_of(3), speech_of(3).features(sounds), SAMPLES, suppress=True)
    assert speech.text(ids[0]) == " ".join(f"w{token}" for token in ids[0])
    assert load_config(settings).encoder_config.hidden_size == 64

    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**EXTRACTOR, "feature_size": 128}), encoding="utf-8")
    with pytest.raises(UserError, match="makes 128 mel bands, and the encoder takes 80"):
        load(settings, "cpu", 0)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    for was, said, told in (
        ('"hidden_size": 64', '"hidden_size": 66', r"encoder_config\.hidden_size 66, and the weights have 64"),
        ('"pad_token_id": 96', '"pad_token_id": 97', "pad_token_id 97, which is no token of 97"),
    ):
        (tmp_path / "config.json").write_text(text.replace(was, said), encoding="utf-8")
        with pytest.raises(UserError, match=told):
            check_checkpoint(settings, tmp_path)


TINY = (
    "model=parakeet_ctc_0_6b",
    "model.random_weights=true",
    *(f"model.architecture.encoder_config.{name}={value}" for name, value in PARAKEET_ENCODER.items()),
    *(f"model.architecture.{name}={value}" for name, value in PARAKEET.items()),
)


@pytest.mark.parametrize(
    ("overrides", "stage", "told"),
    [
        (("kvbits=4",), Quantize, r"kvbits.*has no decoder, hence no key-value cache to keep at 4 bits"),
        (
            ("method=quarot",),
            Quantize,
            "rotates residual streams, and that of .* goes through a norm after every block",
        ),
        (("method=distill",), Quantize, "learns from what a decoder writes, and parakeet_ctc_0_6b has none"),
        (("calib.decoder_inputs=reference",), Calibrate, "has no decoder that could read a reference"),
        (("profile.beams=2",), Profile, "has no decoder that could follow 2 hypotheses"),
        (("profile.runtimes=[torch]",), Measure, "decodes token by token, and parakeet_ctc_0_6b has no decoder"),
    ],
)
def test_what_needs_a_decoder_is_refused(overrides: tuple[str, ...], stage: type, told: str, tmp_path: Path) -> None:
    point = open_point(composed(*TINY, *overrides, f"output_dir={tmp_path}"))
    with pytest.raises(UserError, match=told):
        stage().check(point)


def test_the_pipeline_from_calibration_to_profile(tmp_path: Path) -> None:
    """Front-end and head too, by Gram matrices of what they multiply."""
    small = ("dataset.limit=2", "calib.n=2", "evaluate.probe_clips=2", "profile.repeats=1", "profile.max_load=1000")
    method = ("method=gptq", "bits=w4a8", "method@ends=gptq", "scope=everything", "head_bits=4", "frontend_bits=8")
    done = commands.run("src.main", *TINY, *small, *method, f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "records").glob("*.json")
    record = json.loads(file.read_text())
    results = record["results"]
    assert (results["calibrate"]["clips"], results["calibrate"]["tokens"]) == (2, 0)
    assert results["evaluate"]["utterances"] == 2
    rows = {row["linear"]: row for row in results["quantize"]["layers"]}
    assert {rows[path]["wbits"] for path in rows if path.startswith("encoder.layers.")} == {4}
    assert (rows["ctc_head"]["wbits"], rows["encoder.subsampling.layers.3"]["wbits"]) == (4, 8)
    profile = results["profile"]
    assert profile["memory_io_phases"].keys() == profile["macs_phases"].keys() == {"encoder"}
    assert profile["memory_io_breakdown"]["kv_cache"] == 0
    assert profile["memory_io_bytes"] == profile["parameter_bytes"], "each parameter is read once"
    assert profile["roofline"]["token_ms"] is None
    latency = record["measured"]["latency"]
    assert latency["encoder_ms"] > 0 < latency["prefill_ms"]
    assert latency["token_ms"] is None
