"""Checkpoint folders made of the tiny models, and a machine without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from tokenizers import Tokenizer, models
from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperTokenizer

from src.models.source import resolve_revision
from tests.tiny import WHISPER, tiny_moonshine, tiny_whisper

SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An English-only checkpoint: letters, then the special tokens at the ids of ``tests.tiny.WHISPER``."""
    folder = tmp_path_factory.mktemp("whisper")
    letters = {chr(33 + i): i for i in range(WHISPER["eos_token_id"])}
    tokenizer = WhisperTokenizer(vocab=letters, merges=[], additional_special_tokens=list(SPECIALS))
    end, start, _, _, no_timestamps = tokenizer.convert_tokens_to_ids(list(SPECIALS))
    speech = tiny_whisper()
    speech.module.generation_config = GenerationConfig(
        decoder_start_token_id=start, eos_token_id=end, no_timestamps_token_id=no_timestamps, is_multilingual=False
    )
    for part in (speech.module, speech._extractor, tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def moonshine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moonshine")
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")), bos_token="<s>", eos_token="</s>"
    )
    speech = tiny_moonshine()
    for part in (speech.module, speech._extractor, tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(whisper_folder: Path, tmp_path: Path) -> Path:
    """A copy of the Whisper checkpoint that a test may spoil."""
    return Path(shutil.copytree(whisper_folder, tmp_path / "checkpoint"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub nothing answers at, and an empty cache, whose path it is."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    resolve_revision.cache_clear()
    return tmp_path / "hub"
