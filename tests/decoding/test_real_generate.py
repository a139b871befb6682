"""Real models write on real speech what transformers' own processors and ``generate`` write, token for token."""

import pytest

from tests.decoding.real_generate import MODELS, differing, sample


@pytest.mark.parametrize("model", MODELS)
def test_real_speech_gives_the_tokens_of_transformers(model: str) -> None:
    shortest = sample("other")[-6:]
    assert differing(model, shortest) == []
