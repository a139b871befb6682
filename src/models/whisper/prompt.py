"""What Whisper's transcripts start with, from the generation settings and the tokenizer of a checkpoint.

Fine-tunes often have generation settings that are older than the library, or another model's. What they leave out, the
tokenizer tells; what they say otherwise than the tokenizer is refused, since every prompt would be a wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from src.errors import UserError, did_you_mean

_TIME: Final = re.compile(r"<\|\d+\.\d\d\|>")
_LANGUAGE: Final = re.compile(r"<\|([a-z]{2,3})\|>")
_MULTILINGUAL: Final = {50257: False, 50258: True}  # by the start token, in OpenAI's vocabularies
_REMEDY: Final = "Copy generation_config.json and the tokenizer's files from the checkpoint this one was made of"


def complete_generation(generation: Any, config: Any, vocabulary: Mapping[str, int]) -> None:
    """Adds to ``generation`` what it leaves out of start, "no timestamps", languages and tasks.

    Args:
        generation: the checkpoint's ``GenerationConfig``; changed.
        config: its ``WhisperConfig``.
        vocabulary: ids of all tokens, the special ones included.

    Raises:
        UserError: the two contradict each other, or neither knows.
    """
    for field, token in (
        ("decoder_start_token_id", "<|startoftranscript|>"),
        ("no_timestamps_token_id", "<|notimestamps|>"),
    ):
        told = getattr(generation, field, None)
        if told is None and field == "decoder_start_token_id":
            told = getattr(config, field, None)
        setattr(generation, field, _agreed(field, told, token, vocabulary))
    languages = dict(getattr(generation, "lang_to_id", None) or {})
    generation.is_multilingual = _is_multilingual(generation, config, vocabulary, languages)
    if not generation.is_multilingual:
        vars(generation).pop("lang_to_id", None)  # transformers takes a checkpoint that has it for a multilingual one
        return
    first, last = sorted((generation.decoder_start_token_id, generation.no_timestamps_token_id))
    for token, number in {} if languages else vocabulary.items():
        if _LANGUAGE.fullmatch(token) and first < number < last:
            languages[token] = number
    if not languages:
        raise UserError(
            "model.source", "generation_config.json lacks lang_to_id, the tokenizer has no language", _REMEDY
        )
    tasks = {"transcribe": None, **(getattr(generation, "task_to_id", None) or {})}
    generation.lang_to_id = {token: _agreed("lang_to_id", told, token, vocabulary) for token, told in languages.items()}
    generation.task_to_id = {
        task: _agreed("task_to_id", told, f"<|{task}|>", vocabulary) for task, told in tasks.items()
    }


def prompt(generation: Any, language: str | None) -> tuple[int, ...]:
    """Start token, language and task where the checkpoint is multilingual, and "no timestamps".

    Raises:
        UserError: the language is not one of the checkpoint's.
    """
    start, no_timestamps = generation.decoder_start_token_id, generation.no_timestamps_token_id
    languages: dict[str, int] = getattr(generation, "lang_to_id", None) or {}
    if not languages:
        if language is not None:
            raise UserError(
                "model.language",
                f"{language!r} is set but the checkpoint is English-only",
                "Use model.language=null (what clips are in is dataset.language)",
            )
        return (start, no_timestamps)
    known = [code.strip("<|>") for code in languages]
    if language is None:
        problem = "no language is set, and the checkpoint is multilingual"
        raise UserError("model.language", problem, f"Use model.language=en, or another of {', '.join(sorted(known))}")
    if language not in known:
        problem = f"{language!r} is not a language of this multilingual checkpoint"
        raise UserError("model.language", problem, did_you_mean(language, known))
    return (start, languages[f"<|{language}|>"], generation.task_to_id["transcribe"], no_timestamps)


def checkpoint_prompt(
    generation: Any, config: Any, vocabulary: Mapping[str, int], language: str | None
) -> tuple[int, ...]:
    """:func:`prompt` after :func:`complete_generation`.

    Without a vocabulary, arbitrary ids follow the start token: as many as the real prompt has, which is all that
    matters to its cost.
    """
    if not vocabulary:
        length = 2 if language is None else 4
        return tuple((config.decoder_start_token_id + i) % config.vocab_size for i in range(length))
    complete_generation(generation, config, vocabulary)
    return prompt(generation, language)


def times_are_tokens(ids: range, names: Mapping[int, str]) -> bool:
    """Whether the tokens ``ids`` are times by what the tokenizer calls them; older ones leave them without a name."""
    return all(_TIME.fullmatch(names.get(number, "<|0.00|>")) for number in ids)


def _agreed(field: str, told: int | None, token: str, vocabulary: Mapping[str, int]) -> int:
    known = vocabulary.get(token)
    if told is None and known is None:
        problem = f"generation_config.json lacks {field}, and the tokenizer has no {token}"
        raise UserError("model.source", problem, _REMEDY)
    if None not in (told, known) and told != known:
        problem = f"generation_config.json says {field} {told} where the tokenizer has {known} for {token}"
        raise UserError("model.source", problem, _REMEDY)
    return int(told if told is not None else known)  # type: ignore[arg-type]


def _is_multilingual(generation: Any, config: Any, vocabulary: Mapping[str, int], languages: Mapping[str, int]) -> bool:
    """By what says so most directly: a flag, the tokens that older settings force, or the vocabulary.

    English-only checkpoints have the tokens of all languages too, so that these tell nothing. Raises UserError.
    """
    flag = getattr(generation, "is_multilingual", None)
    if flag is not None or languages:
        return bool(flag) if flag is not None else True
    forced = getattr(generation, "forced_decoder_ids", None) or getattr(config, "forced_decoder_ids", None)
    if forced:
        return any(token in (None, vocabulary.get("<|transcribe|>")) for *_, token in forced)
    if generation.decoder_start_token_id not in _MULTILINGUAL:
        problem = "generation_config.json lacks is_multilingual, and nothing else tells whether the checkpoint is"
        raise UserError(
            "model.source", problem, 'Add "is_multilingual": true or false, or copy the file from its origin'
        )
    return _MULTILINGUAL[generation.decoder_start_token_id]
