"""What only looks unusual is read right, and the identity covers all that is read of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from src.errors import UserError
from src.models.loading import load, load_config, load_graph, model_identity
from tests.models.checkpoints import Spoil, both, edited, sharded, tensors
from tests.tiny import model_settings

HEAD, EMBEDDING = "proj_out.weight", "model.decoder.embed_tokens.weight"


def widened(held: dict[str, Any]) -> None:
    held.update({name: tensor.double() for name, tensor in held.items()})


def unprefixed(held: dict[str, Any]) -> None:
    for name in list(held):
        held[name.removeprefix("model.")] = held.pop(name)


def foreign(held: dict[str, Any]) -> None:
    held["ema.decay"] = torch.zeros(1)


@pytest.mark.parametrize(
    "change",
    [
        sharded(("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")),
        sharded(("left.safetensors", "right.safetensors")),
        sharded(("parts/1.safetensors", "parts/2.safetensors")),
        tensors(widened),
        tensors(unprefixed),
        tensors(foreign),
        lambda folder: (folder / "model.fp32.safetensors").write_bytes(b"a variant is not read") and None,
    ],
    ids=[
        "shards",
        "shards of other names",
        "shards in a folder",
        "float64",
        "no prefix",
        "another model's",
        "a variant",
    ],
)
def test_the_same_weights_in_another_form_are_the_same_model(change: Spoil, copy: Path, whisper_folder: Path) -> None:
    change(copy)
    expected = load(model_settings(whisper_folder), "cpu", 0).module.state_dict()
    load_graph(model_settings(copy))
    found = load(model_settings(copy), "cpu", 0).module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    "names", [("left.safetensors", "right.safetensors"), ("parts/1.safetensors", "parts/2.safetensors")]
)
def test_identity_covers_every_file_that_is_loaded(names: tuple[str, str], copy: Path) -> None:
    """And none besides: a changed byte in any of them is another model."""
    sharded(names)(copy)
    first = model_identity(model_settings(copy))
    (copy / "trainer_state.json").write_text("{}")
    (copy / "model.fp16.safetensors").write_text("a variant")
    assert model_identity(model_settings(copy)) == first
    seen = [
        file
        for file in sorted(copy.rglob("*"))
        if file.is_file() and re.search(r"(left|[12])\.saf|index|config|tokenizer", file.name)
    ]
    assert len(seen) >= 6
    for file in seen:
        data = file.read_bytes()
        changed = data[:-1] + bytes([data[-1] ^ 1]) if file.suffix == ".safetensors" else data + b"\n"
        file.write_bytes(changed)
        assert model_identity(model_settings(copy)) != first, file.name
        file.write_bytes(data)


def test_loading_sees_no_file_that_the_identity_does_not(copy: Path) -> None:
    expected = load(model_settings(copy), "cpu", 0)
    first = model_identity(model_settings(copy))
    shutil.copy(copy / "tokenizer.json", copy / "tokenizer.5.0.json")
    (copy / "chat_template.jinja").write_text("x")
    assert model_identity(model_settings(copy)) == first
    assert load(model_settings(copy), "cpu", 0).text([39]) == expected.text([39])
    edited("tokenizer_config.json", fast_tokenizer_files=["tokenizer.5.0.json"])(copy)
    with pytest.raises(UserError, match=r"names other files to read \(fast_tokenizer_files"):
        model_identity(model_settings(copy))


@pytest.mark.parametrize("says_tied", [True, False])
def test_the_weights_tell_whether_the_head_is_the_embedding(says_tied: bool, copy: Path) -> None:
    def swapped(held: dict[str, Any]) -> None:
        held[HEAD] = held[EMBEDDING].flip(0)

    both(tensors(swapped), edited("config.json", tie_word_embeddings=says_tied))(copy)
    module = load(model_settings(copy), "cpu", 0).module
    assert torch.equal(module.proj_out.weight, module.model.decoder.embed_tokens.weight.flip(0))
    assert not load_config(model_settings(copy)).tie_word_embeddings
    tensors(lambda held: held.update({HEAD: held[EMBEDDING]}))(copy)
    assert load_config(model_settings(copy)).tie_word_embeddings
