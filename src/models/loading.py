"""Turns model settings into a recogniser, its graph, or its identity.

Importing this is cheap: torch and transformers are imported where they are needed, so that a run whose results are
all cached never pays for them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError, did_you_mean
from src.models.claims import check_checkpoint, check_config, shared_head, tensor_shapes
from src.models.families import family_of
from src.models.files import GENERATION, checkpoint_files, only
from src.models.formats import Foreign, foreign, settings_folder
from src.models.source import download, model_identity, resolve_revision, resolve_source
from src.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from src.models.graph import ModelGraph
    from src.models.speech import SpeechModel

__all__ = ["load", "load_config", "load_graph", "model_identity", "resolve_source"]

_log = logging.getLogger(__name__)

_PROCESSORS = "its feature extractor or tokenizer"


def load(settings: ModelSettings, device: str, seed: int) -> SpeechModel:
    """Loads a recogniser in fp32 for inference; ``seed`` draws the weights where they are random.

    Raises:
        UserError: the checkpoint is absent, can not be fetched, is not what it seems (:mod:`src.models.claims`), has
            other weights than its configuration says or weights that are no numbers, or lacks its processors.
    """
    if settings.random_weights:
        module, extractor, tokenizer = _random_module(settings, seed), None, None
    else:
        from src.models.processors import load_processors

        folder = _folder(settings)
        check_checkpoint(settings, folder)
        config = load_config(settings)
        with only(folder, checkpoint_files(folder)) as shown:
            with _reading(settings, _PROCESSORS, shown):
                extractor, tokenizer = load_processors(shown, config)
            found = foreign(folder)
            module = _pretrained_module(settings, config, shown, found)
        if found and found.rounded:
            _tell_rounded(settings.name, found.rounded)
    family = family_of(settings.family)
    family.prepare(module)
    speech = family.speech(module.to(device), settings, extractor, tokenizer)
    _check(settings, speech.graph, module)
    return speech


@cache
def _tell_rounded(name: str, how: str) -> None:
    """Once in a process, which loads a model for each stage."""
    _log.info("%s: %s; the baseline is that", name, how)


def load_prompt(settings: ModelSettings) -> tuple[int, ...]:
    """What transcripts start with, from configuration, processors and generation settings: no weight is read.

    Raises:
        UserError: as :func:`load`.
    """
    from transformers import GenerationConfig

    from src.models.processors import load_processors

    config, folder = load_config(settings), _folder(settings)
    with only(folder, checkpoint_files(folder)) as shown, _reading(settings, _PROCESSORS, shown):
        _, tokenizer = load_processors(shown, config)
        there = (shown / "generation_config.json").exists()
        generation = GenerationConfig.from_pretrained(shown) if there else GenerationConfig.from_model_config(config)
        return family_of(settings.family).prompt(generation, config, tokenizer.get_vocab(), settings.language)


def check_processors(settings: ModelSettings) -> None:
    """Checks feature extractor, tokenizer, and generation settings and language where they are told in the prompt.

    Raises:
        UserError: as :func:`load`.
    """
    if not settings.random_weights:
        load_prompt(settings)


def load_graph(settings: ModelSettings) -> ModelGraph:
    """The structure of a recogniser. Raises UserError as :func:`load_empty`."""
    return load_empty(settings)[0]


def load_empty(settings: ModelSettings) -> tuple[ModelGraph, PreTrainedModel]:
    """Structure and shapes of a recogniser from its configuration alone; no weight is read or drawn.

    The module is on torch's meta device.

    Raises:
        UserError: the configuration is absent, of another family, or can not be fetched; or the headers of the weights,
            where there are some, tell of others than it describes.
    """
    from src.models.contents import check_shapes

    config = load_config(settings)
    module = _empty(config)
    if not settings.random_weights:
        check_shapes(settings.source, module, tensor_shapes(_folder(settings)))
    family = family_of(settings.family)
    family.prepare(module)
    graph = family.graph(config)
    _check(settings, graph, module)
    return graph, module


def load_config(settings: ModelSettings) -> PreTrainedConfig:
    """The transformers configuration: from ``architecture`` for random weights, else from the checkpoint.

    Whether the head is the embedding is what the weights say, where there are some: config.json is often wrong there.

    Raises:
        UserError: as :func:`load_graph`.
    """
    if settings.random_weights and settings.architecture:
        return _config_from_architecture(settings)
    folder = _folder(settings)
    config = _config_from_folder(settings, folder)
    shared = None if settings.random_weights else shared_head(folder)
    if shared is not None:
        config.tie_word_embeddings = shared
    return config


def _folder(settings: ModelSettings) -> Path:
    """The folder of the checkpoint, fetched if need be; of another format, that of what transformers reads of it."""
    folder = resolve_source(settings.source)
    if folder is not None:
        return settings_folder(folder)
    fetched = download(settings.source, resolve_revision(settings.source, settings.revision))
    check_checkpoint(settings, fetched)  # as the identity does for a folder: before anything else
    return fetched


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


def _config_from_folder(settings: ModelSettings, folder: Path) -> PreTrainedConfig:
    from transformers import AutoConfig

    check_config(settings, folder)
    with only(folder, [folder / "config.json"]) as shown, _reading(settings, "a readable config.json", shown):
        config = AutoConfig.from_pretrained(shown, trust_remote_code=False)
    config.name_or_path = settings.source
    return config


def _config_from_architecture(settings: ModelSettings) -> PreTrainedConfig:
    """A configuration with the given fields; the misspelt would otherwise be kept and ignored."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, PreTrainedConfig

    family, default = family_of(settings.family), AutoConfig.for_model(settings.family)
    known = {field for field in default.to_dict() if field != "model_type"} | family.more_fields
    for field, value in settings.architecture.items():
        if field not in known:
            raise UserError(f"model.architecture.{field}", "no such field", did_you_mean(field, known))
        part: Any = getattr(default, field, None)
        for inner in value if isinstance(part, PreTrainedConfig) else ():
            if inner not in part.to_dict():
                remedy = did_you_mean(inner, part.to_dict())
                raise UserError(f"model.architecture.{field}.{inner}", "no such field", remedy)
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

    build = family_of(config.model_type).module.from_config
    try:
        module: PreTrainedModel = build(config, attn_implementation="sdpa", dtype=torch.float32)
    except (AssertionError, AttributeError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            "model.architecture", f"no model can be built from it ({error})", "Compare it with a yaml in conf/model"
        ) from error
    return module


def _empty(config: PreTrainedConfig) -> PreTrainedModel:
    """A module of this configuration without weights."""
    import torch

    with torch.device("meta"):
        return _build(config)


def _pretrained_module(
    settings: ModelSettings, config: PreTrainedConfig, folder: Path, found: Foreign | None
) -> PreTrainedModel:
    """The module with every weight read from the checkpoint, which may be ``found`` to be of another format."""
    import torch
    from transformers import GenerationConfig

    from src.models.contents import check_loaded

    with _quiet(), _reading(settings, "weights that its config.json describes", folder):
        kind = type(_empty(config)) if found else family_of(settings.family).module
        module, report = kind.from_pretrained(
            None if found else folder,
            state_dict=found and {name: torch.tensor(array) for name, array in found.read().items()},
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported instead
        )
        if found and (folder / GENERATION).exists():
            module.generation_config = GenerationConfig.from_pretrained(folder)
    check_loaded(settings.source, module, report)
    return module


@contextmanager
def _reading(settings: ModelSettings, what: str, folder: Path) -> Iterator[None]:
    """Whatever a library says of the files that it reads in ``folder`` is the user's to know, in one sentence."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).replace(f"{folder}/", "").replace(str(folder), settings.source).split())
        raise UserError(
            "model.source",
            f"{settings.source!r} lacks {what} ({said or type(error).__name__})",
            "Give the folder of a complete checkpoint, with preprocessor_config.json and tokenizer.json",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Weights load in seconds; a bar of tensors says nothing to a user, and what is wrong is an error here."""
    from transformers.utils import logging as library

    shown, level = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if shown:
            library.enable_progress_bar()
