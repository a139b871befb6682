"""The published models load and tokenize, and plain transformers' ``generate`` transcribes with them."""

from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from src.models.loading import load
from tests.sandbox.making.build import DATA, MODELS, sandbox_model
from tests.sandbox.making.corpus import PUBLISHED_LINES, published, read_config
from tests.sandbox.making.recipes import RECIPES
from tests.sandbox.making.scoring import word_error_rate
from tests.sandbox.making.synthesis import RATE

UTTERANCES = 12


@pytest.fixture(scope="module", params=list(RECIPES))
def loaded(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    folder = MODELS / request.param
    model = load(sandbox_model(request.param, folder), "cpu", 0).module
    return request.param, AutoProcessor.from_pretrained(folder), model.eval()


def test_the_tokenizer_round_trips_every_test_sentence(loaded: tuple[str, Any, Any]) -> None:
    _, processor, _ = loaded
    texts = [line.text for split in ("clean", "other") for line in published(split)]
    decoded = processor.tokenizer.batch_decode(processor.tokenizer(texts).input_ids, skip_special_tokens=True)
    assert [text.strip() for text in decoded] == texts


def test_the_shape_is_the_published_one(loaded: tuple[str, Any, Any]) -> None:
    name, processor, model = loaded
    config = model.config
    assert config.tie_word_embeddings
    assert len(processor.tokenizer) == config.vocab_size
    assert model.proj_out.weight is model.get_input_embeddings().weight
    assert config.hidden_size % 32 == 0
    if name == "whisper":
        extractor = processor.feature_extractor
        assert extractor.nb_max_frames == 2 * config.max_source_positions
        assert not model.generation_config.is_multilingual
        assert torch.isfinite(model.model.encoder.embed_positions.weight).all()


def test_it_transcribes_clean_speech(loaded: tuple[str, Any, Any]) -> None:
    _, processor, model = loaded
    utterances = read_config(DATA, "clean")[:: PUBLISHED_LINES // UTTERANCES][:UTTERANCES]
    hypotheses = []
    for utterance in utterances:
        inputs = processor(utterance.audio.numpy(), sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            tokens = model.generate(**inputs)
        hypotheses += processor.batch_decode(tokens, skip_special_tokens=True)
    assert word_error_rate([utterance.text for utterance in utterances], hypotheses) < 10.0
