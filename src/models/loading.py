"""Turns model settings into a recogniser, its graph, or its identity.

Importing this is cheap: torch and transformers are imported where they are needed, so that a run whose results are
all cached never pays for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError, did_you_mean
from src.models.source import download, has_safetensors, model_identity, resolve_revision, resolve_source
from src.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel

__all__ = ["load", "load_config", "load_graph", "model_identity", "resolve_source"]

# Accepted by the configuration class, though not among its fields.
_EXTRA_FIELDS = {"whisper": frozenset[str](), "moonshine": frozenset({"partial_rotary_factor", "rope_theta"})}


def load(settings: ModelSettings, device: str, seed: int) -> SpeechModel:
    """Loads a recogniser in fp32 for inference; ``seed`` draws the weights where they are random.

    Raises:
        UserError: the checkpoint is absent, can not be fetched, has only pickled weights, is of another family, lacks
            weights, or its module does not have the family's structure.
    """
    if settings.random_weights:
        module, extractor, tokenizer = _random_module(settings, seed), None, None
    else:
        folder = _checkpoint(settings)
        module = _pretrained_module(settings, folder)
        extractor, tokenizer = _processors(settings, folder)
    speech = _wrap(settings, module.to(device), extractor, tokenizer)
    _check(settings, speech.graph, module)
    return speech


def load_graph(settings: ModelSettings) -> ModelGraph:
    """The structure of a recogniser from its configuration alone; no weight is read or drawn.

    Raises:
        UserError: the configuration is absent, of another family, or can not be fetched.
    """
    import torch

    config = load_config(settings)
    with torch.device("meta"):
        module = _build(config)
    graph = _declared_graph(settings, config)
    _check(settings, graph, module)
    return graph


def load_config(settings: ModelSettings) -> PreTrainedConfig:
    """The transformers configuration: from ``architecture`` for random weights, else from the checkpoint.

    Raises:
        UserError: as :func:`load_graph`.
    """
    if settings.random_weights and settings.architecture:
        return _config_from_architecture(settings)
    folder = resolve_source(settings.source)
    if folder is None:
        folder = download(settings.source, resolve_revision(settings.source, settings.revision))
    return _config_from_folder(settings, folder)


def _declared_graph(settings: ModelSettings, config: PreTrainedConfig) -> ModelGraph:
    from src.models.moonshine_graph import moonshine_graph
    from src.models.whisper_graph import whisper_graph

    return whisper_graph(config) if settings.family == "whisper" else moonshine_graph(config)


def _wrap(settings: ModelSettings, module: PreTrainedModel, extractor: Any, tokenizer: Any) -> SpeechModel:
    from src.models.moonshine import MoonshineSpeech
    from src.models.whisper import WhisperSpeech

    parts = {"name": settings.name, "extractor": extractor, "tokenizer": tokenizer}
    if settings.family == "whisper":
        return WhisperSpeech(module, language=settings.language, **parts)
    return MoonshineSpeech(module, **parts)


def _check(settings: ModelSettings, graph: ModelGraph, module: PreTrainedModel) -> None:
    from src.models.graph_check import GraphError, check_graph

    try:
        check_graph(graph, module)
    except GraphError as error:
        raise UserError(
            "model.source",
            f"{settings.source!r} does not have the structure of {settings.family} ({error})",
            "Use an unmodified checkpoint, or declare its structure in src/models",
        ) from error


def _checkpoint(settings: ModelSettings) -> Path:
    """Folder of a checkpoint that has weights in the safetensors format."""
    folder = resolve_source(settings.source)
    if folder is None:
        folder = download(settings.source, resolve_revision(settings.source, settings.revision))
    if not has_safetensors(folder):
        raise UserError(
            "model.source",
            f"{settings.source!r} has no model.safetensors; pickled weights are not loaded, they can run code",
            "Convert it once with `save_pretrained(folder)` of transformers, and pass model.source=folder",
        )
    return folder


def _config_from_folder(settings: ModelSettings, folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            "model.source",
            f"{settings.source!r} has no readable config.json ({error})",
            "Give the folder of a complete checkpoint",
        ) from error
    if config.model_type != settings.family:
        raise UserError(
            "model.source",
            f"{settings.source!r} is a {config.model_type} model, but model.family is {settings.family}",
            "Choose the model yaml of that family, e.g. model=whisper_tiny",
        )
    return config


def _config_from_architecture(settings: ModelSettings) -> PreTrainedConfig:
    """A configuration with the given fields; the misspelt would otherwise be kept and ignored."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    default = AutoConfig.for_model(settings.family)
    known = {field for field in default.to_dict() if field != "model_type"} | _EXTRA_FIELDS[settings.family]
    for field in settings.architecture:
        if field not in known:
            raise UserError(f"model.architecture.{field}", "no such field", did_you_mean(field, known))
    try:
        return AutoConfig.for_model(settings.family, **settings.architecture)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise UserError(
            "model.architecture", " ".join(str(error).split()), "Compare it with a yaml in conf/model"
        ) from error


def _random_module(settings: ModelSettings, seed: int) -> PreTrainedModel:
    import torch

    config = load_config(settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(config)


def _build(config: PreTrainedConfig) -> PreTrainedModel:
    """An initialised module of this configuration on torch's default device."""
    import torch
    from transformers import AutoModelForSpeechSeq2Seq

    try:
        return AutoModelForSpeechSeq2Seq.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    except (AssertionError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            "model.architecture", f"no model can be built from it ({error})", "Compare it with a yaml in conf/model"
        ) from error


def _pretrained_module(settings: ModelSettings, folder: Path) -> PreTrainedModel:
    """The module with every weight read from the checkpoint."""
    import torch
    from transformers import AutoModelForSpeechSeq2Seq

    config = _config_from_folder(settings, folder)
    with _without_progress_bar():
        module, report = AutoModelForSpeechSeq2Seq.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:5])
        raise UserError(
            "model.source",
            f"{settings.source!r} lacks {len(report['missing_keys'])} weights ({missing})",
            "Give the folder of a complete checkpoint; missing weights would be random",
        )
    return module


def _processors(settings: ModelSettings, folder: Path) -> tuple[Any, Any]:
    """Feature extractor and tokenizer of the checkpoint."""
    from transformers import AutoFeatureExtractor, AutoTokenizer

    try:
        if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
            raise OSError("no tokenizer.json")  # transformers would make an empty tokenizer
        extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
        return extractor, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            "model.source",
            f"{settings.source!r} lacks its feature extractor or tokenizer ({error})",
            "Give the folder of a complete checkpoint, with preprocessor_config.json and tokenizer.json",
        ) from error


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Weights load in seconds; a bar of tensors says nothing to a user and breaks up the log."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
