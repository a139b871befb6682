"""Feature extractor and tokenizer of a checkpoint, and whether they are this model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    PreTrainedConfig,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from src.data.audio import SAMPLING_RATE
from src.models.files import wrong

_EXTRACTORS: Final = {"whisper": WhisperFeatureExtractor, "moonshine": Wav2Vec2FeatureExtractor}
_REMEDY: Final = "Copy the preprocessor's and the tokenizer's files from the checkpoint this one was made of"


def load_processors(folder: Path, config: PreTrainedConfig) -> tuple[Any, Any]:
    """Feature extractor and tokenizer in ``folder`` that belong to a model of ``config``.

    Raises:
        OSError: there are none.
        UserError: they are another model's.
    """
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise OSError("no tokenizer.json")  # transformers would make an empty tokenizer
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
    _check_extractor(extractor, config)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _check_tokenizer(tokenizer, config)
    return extractor, tokenizer


def _check_extractor(extractor: Any, config: PreTrainedConfig) -> None:
    expected = _EXTRACTORS[config.model_type]
    if not isinstance(extractor, expected):
        found = type(extractor).__name__
        raise wrong(f"the feature extractor is a {found}, and {config.model_type} takes a {expected.__name__}", _REMEDY)
    if extractor.sampling_rate != SAMPLING_RATE:
        problem = f"the feature extractor is for {extractor.sampling_rate} Hz, and audio is read at {SAMPLING_RATE} Hz"
        raise wrong(problem, _REMEDY)
    if config.model_type != "whisper":
        return
    check_window(extractor, config)
    if (extractor.hop_length, extractor.n_fft) != (160, 400):
        problem = (
            f"the feature extractor's frames are {extractor.hop_length} of {extractor.n_fft} samples, not 160 of 400"
        )
        raise wrong(problem, _REMEDY)


def check_window(extractor: WhisperFeatureExtractor, config: PreTrainedConfig) -> None:
    """Whether Whisper's encoder has a position for every second frame, and a channel for every mel bin.

    Raises:
        UserError: it has not.
    """
    frames = 2 * config.max_source_positions
    if extractor.nb_max_frames != frames:
        problem = f"the feature extractor makes {extractor.nb_max_frames} frames but the encoder takes {frames}"
        raise wrong(problem, "Set chunk_length in preprocessor_config.json to max_source_positions / 50")
    if extractor.feature_size != config.num_mel_bins:
        problem = (
            f"the feature extractor makes {extractor.feature_size} mel bins, the encoder takes {config.num_mel_bins}"
        )
        raise wrong(problem, _REMEDY)


def _check_tokenizer(tokenizer: Any, config: PreTrainedConfig) -> None:
    """Every id has a row in the embedding, and the end is where the model has it."""
    vocabulary = tokenizer.get_vocab()
    largest = max(vocabulary, key=vocabulary.__getitem__, default="")
    if not vocabulary or vocabulary[largest] >= config.vocab_size:
        number = vocabulary.get(largest)
        problem = f"the tokenizer has {largest!r} as token {number}, and the embedding has {config.vocab_size} rows"
        raise wrong(problem, _REMEDY)
    known, told = tokenizer.eos_token_id, config.eos_token_id
    if known is not None and told is not None and known not in (told if isinstance(told, list) else [told]):
        problem = f"the tokenizer's end token {tokenizer.eos_token!r} is {known}, and config.json says {told}"
        raise wrong(problem, _REMEDY)
