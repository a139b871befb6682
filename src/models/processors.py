"""Feature extractor and tokenizer of a checkpoint, and whether they are this model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig

from src.data.audio import SAMPLING_RATE
from src.models.families import family_of
from src.models.files import PROCESSORS_REMEDY, wrong


def load_processors(folder: Path, config: PreTrainedConfig) -> tuple[Any, Any]:
    """Feature extractor and tokenizer in ``folder`` that belong to a model of ``config``.

    Raises:
        OSError: there are none.
        UserError: they are another model's.
    """
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise OSError("no tokenizer.json")  # transformers would make an empty tokenizer
    extractor = family_of(config.model_type).read_extractor(folder)
    _check_extractor(extractor, config)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _check_tokenizer(tokenizer, config)
    return extractor, tokenizer


def _check_extractor(extractor: Any, config: PreTrainedConfig) -> None:
    family = family_of(config.model_type)
    if not isinstance(extractor, family.extractor):
        found, expected = type(extractor).__name__, family.extractor.__name__
        raise wrong(f"the feature extractor is a {found}, and {family.name} takes a {expected}", PROCESSORS_REMEDY)
    if extractor.sampling_rate != SAMPLING_RATE:
        problem = f"the feature extractor is for {extractor.sampling_rate} Hz, and audio is read at {SAMPLING_RATE} Hz"
        raise wrong(problem, PROCESSORS_REMEDY)
    family.check_extractor(extractor, config)


def _check_tokenizer(tokenizer: Any, config: PreTrainedConfig) -> None:
    """Every id has a row in the embedding, and the end is where the model has it."""
    vocabulary = tokenizer.get_vocab()
    largest = max(vocabulary, key=vocabulary.__getitem__, default="")
    if not vocabulary or vocabulary[largest] >= config.vocab_size:
        number = vocabulary.get(largest)
        problem = f"the tokenizer has {largest!r} as token {number}, and the embedding has {config.vocab_size} rows"
        raise wrong(problem, PROCESSORS_REMEDY)
    known, told = tokenizer.eos_token_id, getattr(config, "eos_token_id", None)
    if known is not None and told is not None and known not in (told if isinstance(told, list) else [told]):
        problem = f"the tokenizer's end token {tokenizer.eos_token!r} is {known}, and config.json says {told}"
        raise wrong(problem, PROCESSORS_REMEDY)
