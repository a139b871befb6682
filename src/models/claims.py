"""What a checkpoint says of itself, checked against what it holds before anything is computed with it.

Only headers and settings are read, and nothing heavy is imported: this runs before everything else of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from src.models.families import family_of
from src.models.family import Family
from src.models.files import (
    COMPLETE,
    CONFIG,
    INDEX,
    WEIGHTS,
    checkpoint_files,
    read_object,
    settings_files,
    shard_of_tensor,
    weight_files,
    wrong,
)
from src.models.formats import foreign
from src.models.tensors import FLOATS, Stored, equal, stored_tensors
from src.settings import ModelSettings

_ELSEWHERE: Final = ("transformers_weights", "configuration_files", "fast_tokenizer_files")
_QUANTIZED: Final = ("quantization_config", "compression_config")
_ACTIVATIONS: Final = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish")
_MORE: Final = ("max_position_embeddings", "encoder_num_key_value_heads", "decoder_num_key_value_heads")
_TOKENS: Final = ("eos_token_id", "decoder_start_token_id", "no_timestamps_token_id")
_FREE: Final = frozenset(  # what a fine-tune may change
    {"vocab_size", "max_source_positions", "max_target_positions", "max_position_embeddings"}
)
_HEAD, _EMBEDDING = "proj_out.weight", "decoder.embed_tokens.weight"
_LAYER = re.compile(r"(?:^|\.)(encoder|decoder)\.layers\.(\d+)\.")


def check_checkpoint(settings: ModelSettings, folder: Path) -> None:
    """Checks everything that can be told of the checkpoint in ``folder`` without reading a weight.

    Where it is in another format, ``folder`` is that of :func:`src.models.formats.settings_folder`.

    Raises:
        UserError: it is an adapter, quantized, cut off, of another family or size, or in another format.
    """
    files = checkpoint_files(folder)
    config = check_config(settings, folder)
    for file in settings_files(folder):
        if file.suffix == ".json":
            _refuse_elsewhere(file, read_object(file))
    _refuse_quantized(folder, config)
    tensors = _tensors(folder, files)
    _check_types(tensors)
    for field, said, held in _sizes(family_of(settings.family), config, tensors):
        raise wrong(f"{folder / CONFIG} says {field} {said}, and the weights have {held}", COMPLETE)
    _check_declared(settings, config)


def check_config(settings: ModelSettings, folder: Path) -> dict[str, Any]:
    """What config.json holds, see :func:`_flat`: of the right family, with possible sizes.

    Raises:
        UserError: it is not there, or it does not.
    """
    family = family_of(settings.family)
    if not (folder / CONFIG).exists():
        foreign(folder)  # tells more of a quantized checkpoint without settings
        problem = f"{str(folder)!r} has no {CONFIG}, hence no readable config.json"
        raise wrong(problem, f"{COMPLETE}; {_formats(folder)}")
    config = _flat(read_object(folder / CONFIG))
    found = config.get("model_type")
    if found != family.name:
        kind = f"a {found} model" if found else "of a family that its config.json does not name"
        problem = f"{settings.source!r} is {kind}, but model.family is {settings.family}"
        raise wrong(problem, "Choose the model yaml of that family, e.g. model=whisper_tiny")
    for field in (*family.sizes, *family.layers, *family.heads, *_MORE):
        value = config.get(field, 1)
        if field in _MORE and value is None:
            continue
        if type(value) is not int or value < 1:
            raise wrong(f"{folder / CONFIG} says {field} {value!r}, which is no positive integer", COMPLETE)
    width = config.get(family.width, 0)
    for field in family.heads:
        if width % config.get(field, 1):
            raise wrong(
                f"{folder / CONFIG}: {width} {family.width} cannot be shared by {config[field]} {field}", COMPLETE
            )
    for field, usual in family.usual.items():
        value = config.get(field, usual)
        if value not in _ACTIVATIONS if isinstance(usual, str) else type(value) is not bool:
            known = f"none of {', '.join(_ACTIVATIONS)}" if isinstance(usual, str) else "neither true nor false"
            raise wrong(f"{folder / CONFIG} says {field} {value!r}, which is {known}", COMPLETE)
    _check_tokens(family, folder, config)
    return config


def shared_head(folder: Path) -> bool | None:
    """Whether the head that the weights hold is the token embedding, whatever config.json says; None where none is."""
    tensors = _stored(folder)
    head, embedding = _named(tensors, _HEAD), _named(tensors, _EMBEDDING)
    return None if head is None or embedding is None else foreign(folder) is None and equal(head, embedding)


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors by name; none where there are no weights. Raises UserError."""
    return {name: tensor.shape for name, tensor in _stored(folder).items()}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` and what its parts tell, a part's name and a point before the field's."""
    parts = {name: part for name, part in config.items() if isinstance(part, Mapping)}
    return {**config, **{f"{name}.{field}": value for name, part in parts.items() for field, value in part.items()}}


def _stored(folder: Path) -> Mapping[str, Stored]:
    """All tensors by name, of any format. Raises UserError."""
    found = foreign(folder)
    return found.tensors if found else stored_tensors([file for file in weight_files(folder) if file.name != INDEX])


def _tensors(folder: Path, files: list[Path]) -> Mapping[str, Stored]:
    """All tensors by name, no index naming others. Raises UserError."""
    if foreign(folder):
        return _stored(folder)
    weights = [file for file in files if file.suffix == ".safetensors"]
    if not weights:
        raise wrong(f"{str(folder)!r} has no {WEIGHTS}; {_formats(folder)}", _CONVERT)
    tensors = stored_tensors(weights)
    if (folder / INDEX) in files:
        lost = {name: shard for name, shard in shard_of_tensor(folder).items() if name not in tensors}
        for name, shard in lost.items():
            raise wrong(f"{folder / INDEX} names {name} in {shard}, which does not hold it", COMPLETE)
    return tensors


_CONVERT: Final = "Convert it once with `save_pretrained(folder)` of transformers, and pass model.source=folder"


def _formats(folder: Path) -> str:
    """What is there instead of safetensors, in words."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    kinds = {
        "pickled weights are not loaded, they can run code": (".bin", ".pt", ".pth", ".ckpt", ".index.json"),
        "weights of other names are not loaded": (".safetensors",),
        "other formats are not loaded": (".h5", ".msgpack", ".onnx", ".ort", ".gguf", ".nemo"),
    }
    for words, endings in kinds.items():
        found = [name for name in names if name.endswith(endings)]
        if found:
            return f"it has {', '.join(found[:3])}, and {words}"
    return f"it has {', '.join(names[:5]) or 'no files'}"


def _refuse_elsewhere(file: Path, told: Mapping[str, Any]) -> None:
    """Files of other names, which transformers would read instead, are no part of the identity."""
    for key in _ELSEWHERE:
        if told.get(key):
            raise wrong(f"{file} names other files to read ({key}: {told[key]})", f"Remove {key}, and rename the files")


def _refuse_quantized(folder: Path, config: Mapping[str, Any]) -> None:
    for key in _QUANTIZED:
        described = config.get(key)
        if described is None:
            continue
        method, bits = (
            (described.get("quant_method"), _bits(described)) if isinstance(described, dict) else (None, None)
        )
        what = f"quant_method {method!r}" + (f", {bits} bits" if bits else "")
        problem = f"{folder / CONFIG} has a {key} ({what}): a quantized checkpoint would be taken for full precision"
        asked = f" with method=rtn wbits={bits} or another method" if bits in range(2, 9) else ""
        raise wrong(problem, f"Give the checkpoint that it was made of, and quantize that{asked}")


def _bits(described: Any) -> Any:
    """The first width that a quantization_config of any kind tells."""
    if isinstance(described, dict):
        for key in ("num_bits", "bits", "w_bit", "nbits"):
            if type(described.get(key)) is int:
                return described[key]
        if described.get("load_in_8bit") or described.get("load_in_4bit"):
            return 8 if described.get("load_in_8bit") else 4
        return next(filter(None, map(_bits, described.values())), None)
    return None


def _check_types(tensors: Mapping[str, Stored]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS and tensor.shape:
            problem = f"{name} in {tensor.file} is of type {tensor.dtype}, as in a quantized checkpoint"
            raise wrong(
                problem, "Give the checkpoint that it was made of, with weights in float16, bfloat16 or float32"
            )


def _sizes(family: Family, config: Mapping[str, Any], tensors: Mapping[str, Stored]) -> Iterator[tuple[str, int, int]]:
    """Fields that config.json and the weights disagree about, with what either says."""
    for field, (name, axis) in family.sizes.items():
        tensor = _named(tensors, name)
        if field in config and tensor is not None and len(tensor.shape) > axis and tensor.shape[axis] != config[field]:
            yield field, config[field], tensor.shape[axis]
    layers = {match.groups() for match in map(_LAYER.search, tensors) if match}
    for field, side in family.layers.items():
        held = len({number for where, number in layers if where == side})
        if field in config and held and held != config[field]:
            yield field, config[field], held


def _check_declared(settings: ModelSettings, config: Mapping[str, Any]) -> None:
    """The model's yaml, where it declares sizes, describes this checkpoint: a name is what results are read by.

    Heads and activations are among them, which the weights do not tell; a yaml without sizes declares neither.
    """
    family = family_of(settings.family)
    usual = family.usual if settings.architecture else {}
    sizes = {*family.sizes, *family.layers, *family.heads, *_MORE} - _FREE
    expected = {**usual, **_flat(settings.architecture)}
    for field in sorted((sizes | usual.keys()) & expected.keys() & config.keys()):
        said, declared = config[field], expected[field]
        if said not in (declared, None):
            what = f"of another {'kind' if field in usual else 'size'} than model={settings.name}"
            problem = f"{settings.source!r} is {what}: {field} is {said}, not {declared}"
            raise wrong(problem, "Choose the model yaml of that size, or write one with `architecture: {}` for it")


def _check_tokens(family: Family, folder: Path, config: Mapping[str, Any]) -> None:
    """Token ids of config.json and generation_config.json are within the vocabulary."""
    vocabulary = config.get("vocab_size")
    generation = folder / "generation_config.json"
    told = read_object(generation) if generation.exists() else {}
    for field in family.tokens:
        if config.get(field, 0) is None and told.get(field) is None:
            raise wrong(f"{folder / CONFIG} says {field} null", COMPLETE)
    for file, said in ((folder / CONFIG, config), (generation, told)):
        for field in dict.fromkeys((*_TOKENS, *family.tokens)):
            value = said.get(field)
            if isinstance(value, list) and len(set(map(str, value))) != 1:
                raise wrong(f"{file} says {field} {value}, and a transcript has one", "Leave one of them")
            for token in value if isinstance(value, list) else [value]:
                if token is not None and (type(token) is not int or token < 0 or token >= (vocabulary or token + 1)):
                    problem = f"{file} says {field} {token!r}, which is no token of {vocabulary}"
                    raise wrong(problem, COMPLETE)
        for field in ("suppress_tokens", "begin_suppress_tokens"):
            value = said.get(field)
            if value is not None and not (isinstance(value, list) and all(type(token) is int for token in value)):
                raise wrong(f"{file} says {field} {said[field]!r}, which is no list of tokens", COMPLETE)
        for field, least in (("max_tokens_per_second", 0.1), ("max_initial_timestamp_index", 0)):
            value = said.get(field)
            if value is not None and (type(value) not in (int, float) or not value >= least):
                raise wrong(f"{file} says {field} {value!r}, which is no number of at least {least}", COMPLETE)
        longest = said.get("max_length")
        if longest is not None and (type(longest) is not int or longest < 1):
            raise wrong(f"{file} says max_length {longest!r}, which is no positive integer", COMPLETE)


def _named(tensors: Mapping[str, Stored], name: str) -> Stored | None:
    return next((tensor for key, tensor in tensors.items() if key == name or key.endswith(f".{name}")), None)
