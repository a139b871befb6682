"""A checkpoint that is not what it seems is refused by file, field or tensor; what only looks unusual is read right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from src.errors import UserError
from src.models.loading import check_processors, load, load_graph, model_identity
from tests.models.checkpoints import INDEX, WEIGHTS, Spoil, both, bytes_of, edited, sharded, tensors
from tests.tiny import WHISPER, model_settings

LAYER = "model.decoder.layers.1.fc1.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"})
    )
    save_file({"base_model.model.q.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")


def without(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def replaced(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text) and None


def dangling(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "blob")
    (folder / WEIGHTS).symlink_to("../../blobs/0123")


def packed(held: dict[str, Any]) -> None:
    held[LAYER] = held[LAYER].to(torch.int8)


def zeroed_tail(data: bytes) -> bytes:
    return data + bytes(64)


def quantized(**told: Any) -> Spoil:
    return edited("config.json", quantization_config=told)


# What is refused before anything is computed, from headers and settings, and what the sentence says.
EARLY: dict[str, tuple[Spoil, str]] = {
    "an adapter beside the weights": (adapter, r"adapter to 'org/base' .* beside weights.*merge_and_unload"),
    "an adapter alone": (both(adapter, without("config.json", WEIGHTS)), r"holds an adapter .* and no weights"),
    "bitsandbytes": (quantized(quant_method="bitsandbytes", load_in_8bit=True), r"'bitsandbytes', 8 bits.*wbits=8"),
    "gptq": (quantized(quant_method="gptq", bits=4), r"quantization_config .*'gptq', 4 bits"),
    "an unknown method": (
        quantized(quant_method="hyperquant"),
        "'hyperquant'.*Give the checkpoint that it was made of",
    ),
    "a quantization without a method": (quantized(), r"quantization_config \(quant_method None\)"),
    "codes without a quantization_config": (tensors(packed), rf"{LAYER} in .* type I8, as in a quantized"),
    "weights cut in the middle": (
        bytes_of(WEIGHTS, lambda data: data[: len(data) // 2]),
        r"safetensors is cut off: it has",
    ),
    "weights cut in the header": (bytes_of(WEIGHTS, lambda data: data[:100]), r"is cut off: it has 100 bytes"),
    "empty weights": (bytes_of(WEIGHTS, lambda _: b""), r"is cut off: it has 0 bytes"),
    "bytes behind the weights": (bytes_of(WEIGHTS, zeroed_tail), r"64 more than its tensors"),
    "a damaged header": (bytes_of(WEIGHTS, lambda data: data[:9] + b"?" + data[10:]), r"header that is no safetensors"),
    "a pointer": (bytes_of(WEIGHTS, lambda _: POINTER), r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
    "a pointer for a tokenizer": (
        bytes_of("tokenizer.json", lambda _: POINTER),
        r"tokenizer\.json is a Git LFS pointer",
    ),
    "an error page": (
        bytes_of(WEIGHTS, lambda _: b"<!DOCTYPE html><html>"),
        r"no safetensors file: it begins with b'<!DOC",
    ),
    "a pickle that was renamed": (
        bytes_of(WEIGHTS, lambda _: b"PK\3\4" + bytes(99)),
        r"a pickle of PyTorch under the name",
    ),
    "a variant alone": (
        lambda to: (to / WEIGHTS).rename(to / "model.fp16.safetensors") and None,
        r"has model\.fp16\.saf",
    ),
    "a link that leads nowhere": (dangling, r"is a link to \.\./\.\./blobs/0123, which is not there"),
    "an absent shard": (
        both(sharded(("a.safetensors", "b.safetensors")), without("b.safetensors")),
        r"names b\.safetensors",
    ),
    "a shard without its tensor": (
        both(
            sharded(("a.safetensors", "b.safetensors")),
            edited(INDEX, weight_map={LAYER: "a.safetensors", "x": "b.safetensors"}),
        ),
        r"names x in b\.safetensors, which does not hold it",
    ),
    "a shard outside of the folder": (
        both(without(WEIGHTS), edited(INDEX, weight_map={LAYER: "../other.safetensors"})),
        r"names '\.\./other\.safetensors', which is no safetensors file of the folder",
    ),
    "an index that is none": (both(without(WEIGHTS), edited(INDEX, weights={})), r"has no weight_map"),
    "a config that is no JSON": (replaced("config.json", "{"), r"config\.json is not JSON"),
    "a config that is a list": (replaced("config.json", "[]"), r"config\.json holds a list"),
    "generation settings that are no JSON": (
        replaced("generation_config.json", "x"),
        r"generation_config\.json is not JSON",
    ),
    "another family": (
        edited("config.json", model_type="wav2vec2"),
        r"is a wav2vec2 model, but model\.family is whisper",
    ),
    "no family": (edited("config.json", drop=("model_type",)), r"family that its config\.json does not name"),
    "no layers": (edited("config.json", encoder_layers=0), r"encoder_layers 0, which is no positive integer"),
    "a negative width": (edited("config.json", d_model=-64), r"d_model -64, which is no positive integer"),
    "heads in words": (edited("config.json", decoder_attention_heads="two"), r"decoder_attention_heads 'two'"),
    "heads that do not divide": (edited("config.json", encoder_attention_heads=3), r"64 d_model cannot be shared by 3"),
    "more layers than there are": (
        edited("config.json", encoder_layers=3),
        r"says encoder_layers 3, and the weights have 2",
    ),
    "fewer layers than there are": (
        edited("config.json", decoder_layers=1),
        r"says decoder_layers 1, and the weights have 2",
    ),
    "a vocabulary of 10^12": (
        edited("config.json", vocab_size=10**12),
        r"vocab_size 1000000000000, and the weights have 96",
    ),
    "other mel bins": (edited("config.json", num_mel_bins=128), r"num_mel_bins 128, and the weights have 80"),
    "an end that is no token": (
        edited("generation_config.json", eos_token_id=96),
        r"eos_token_id 96, which is no token of 96",
    ),
    "several ends": (
        edited("generation_config.json", eos_token_id=[89, 90]),
        r"eos_token_id \[89, 90\], and a transcript has one",
    ),
    "no end": (
        both(edited("config.json", eos_token_id=None), edited("generation_config.json", eos_token_id=None)),
        "eos_token_id null",
    ),
    "an unknown activation": (
        edited("config.json", activation_function="magic"),
        r"says activation_function 'magic', which is none of gelu, ",
    ),
    "a scale in words": (edited("config.json", scale_embedding="yes"), r"scale_embedding 'yes', which is neither true"),
    "a negative cap": (edited("generation_config.json", max_length=-1), r"max_length -1"),
}


@pytest.mark.parametrize("name", EARLY)
def test_is_refused_before_anything_is_computed(name: str, copy: Path) -> None:
    spoil, told = EARLY[name]
    spoil(copy)
    for read in (model_identity, lambda settings: load(settings, "cpu", 0)):
        with pytest.raises(UserError, match=told) as caught:
            read(model_settings(copy))
        assert caught.value.field == "model.source"


def lost(held: dict[str, Any]) -> None:
    del held[LAYER]


def longer(held: dict[str, Any]) -> None:
    held[LAYER] = torch.cat([held[LAYER], held[LAYER]])


def adapted(held: dict[str, Any]) -> None:
    held["model.decoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.ones(4, 64)


def wrapped(prefix: str) -> Spoil:
    def change(held: dict[str, Any]) -> None:
        for name in list(held):
            held[prefix + name] = held.pop(name)

    return tensors(change)


# What takes the structure, hence transformers, to find: still from headers alone.
STRUCTURE: dict[str, tuple[Spoil, str]] = {
    "a tensor lost": (tensors(lost), rf"lacks 1 weights \({LAYER}\)"),
    "another shape": (tensors(longer), rf"another shape .*\({LAYER} \[256, 64\], not \[128, 64\]\)"),
    "an adapter among the weights": (tensors(adapted), r"does not have \(.*q_proj\.lora_A\.weight\)"),
    "compiled": (wrapped("_orig_mod."), r"begin with '_orig_mod\.'.*`model\._orig_mod\.save_pretrained"),
    "of parallel training": (wrapped("module."), r"begin with 'module\.'.*`model\.module\.save_pretrained"),
    "no head of its own though it says so": (
        edited("config.json", tie_word_embeddings=False),
        r"lacks 1 weights \(proj_out",
    ),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_tensors_are_those_of_the_structure(name: str, copy: Path) -> None:
    spoil, told = STRUCTURE[name]
    spoil(copy)
    for read in (load_graph, lambda settings: load(settings, "cpu", 0)):
        with pytest.raises(UserError, match=told):
            read(model_settings(copy))


def of_value(value: float) -> Spoil:
    def change(held: dict[str, Any]) -> None:
        held[LAYER][3, 5] = value

    return tensors(change)


BROKEN: dict[str, tuple[Spoil, str]] = {
    "not a number": (of_value(float("nan")), rf"has in {LAYER} 1 of 8192 values NaN or infinite"),
    "infinite": (of_value(float("-inf")), rf"has in {LAYER} 1 of 8192 values NaN or infinite"),
    "too large to be stored": (of_value(1e6), rf"has in {LAYER} values too large for float16"),
}

PROCESSORS: dict[str, tuple[Spoil, str]] = {
    "other mel bins in the extractor": (
        edited("preprocessor_config.json", feature_size=128),
        r"makes 128 mel bins.* takes 80",
    ),
    "another rate in the extractor": (edited("preprocessor_config.json", sampling_rate=8000), r"for 8000 Hz"),
    "another extractor": (
        edited("preprocessor_config.json", feature_extractor_type="Wav2Vec2FeatureExtractor"),
        r"is a Wav2Vec2FeatureExtractor, and whisper takes a WhisperFeatureExtractor",
    ),
    "a tokenizer that is none": (replaced("tokenizer.json", "{}"), r"lacks its feature extractor or tokenizer"),
    "generation settings of another vocabulary": (
        edited("generation_config.json", no_timestamps_token_id=92),
        r"says no_timestamps_token_id 92 where the tokenizer has 93",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_is_refused_when_it_is_loaded(name: str, copy: Path) -> None:
    spoil, told = BROKEN[name]
    spoil(copy)
    with pytest.raises(UserError, match=told):
        load(model_settings(copy), "cpu", 0)


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_are_refused_without_a_weight(name: str, copy: Path) -> None:
    spoil, told = PROCESSORS[name]
    spoil(copy)
    for read in (check_processors, lambda settings: load(settings, "cpu", 0)):
        with pytest.raises(UserError, match=told):
            read(model_settings(copy))


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    last = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"] += [{**last, "id": 94 + n, "content": f"<|more{n}|>"} for n in range(3)]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"has '<\|more2\|>' as token 96, and the embedding has 96 rows"):
        load(model_settings(copy), "cpu", 0)


@pytest.mark.parametrize(("field", "value"), [("d_model", 512), ("decoder_layers", 6), ("encoder_attention_heads", 3)])
def test_a_checkpoint_of_another_size_than_the_models_yaml_is_refused(field: str, value: int, copy: Path) -> None:
    declared = {"vocab_size": 51865, "max_source_positions": 1500, field: value}
    with pytest.raises(UserError, match=rf"of another size than model=tiny: {field} is \d+, not {value}"):
        model_identity(model_settings(copy, architecture=declared))
    del declared[field]  # a fine-tune's vocabulary and window are its own
    model_identity(model_settings(copy, architecture=declared))


@pytest.mark.parametrize(("field", "value"), [("activation_function", "relu"), ("scale_embedding", True)])
def test_what_no_weight_tells_is_as_the_models_yaml_says(field: str, value: Any, copy: Path) -> None:
    edited("config.json", **{field: value})(copy)
    with pytest.raises(UserError, match=rf"of another kind than model=tiny: {field} is {value}, not "):
        model_identity(model_settings(copy, architecture={"d_model": 64}))
    model_identity(model_settings(copy, architecture={"d_model": 64, field: value}))


def test_moonshine_is_checked_too(moonshine_folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(moonshine_folder, tmp_path / "checkpoint"))
    for field, value in (("hidden_size", 128), ("intermediate_size", 64), ("encoder_num_hidden_layers", 5)):
        before = (copy / "config.json").read_bytes()
        edited("config.json", **{field: value})(copy)
        with pytest.raises(UserError, match=rf"says {field} {value}, and the weights have"):
            model_identity(model_settings(copy, "moonshine"))
        (copy / "config.json").write_bytes(before)
    edited("preprocessor_config.json", feature_extractor_type="WhisperFeatureExtractor")(copy)
    with pytest.raises(UserError, match="moonshine takes a Wav2Vec2FeatureExtractor"):
        load(model_settings(copy, "moonshine"), "cpu", 0)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("~nosuchuser/model", "home directory"),
        ("x" * 5000, "File name too long"),
        (f"a/{'b' * 200}", "there is no folder"),
        ("a--b/..c", "there is no folder"),
        ("a\0b", "there is no folder"),
        (str(Path(__file__)), "is a file"),
    ],
)
def test_paths_that_are_none(source: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        model_identity(model_settings(source))
    assert caught.value.field == "model.source"
    assert len(str(caught.value)) < 500


def test_a_random_model_of_a_folder_reads_its_config_alone(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes(b"")
    settings = model_settings(copy, random_weights=True)
    assert load(settings, "cpu", 0).module.config.d_model == WHISPER["d_model"]
    edited("config.json", d_model=0)(copy)
    with pytest.raises(UserError, match="d_model 0"):
        model_identity(settings)
