"""What the hub's folders of Whisper say beside the weights, for a folder in CTranslate2's format, which says less."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from src.models.files import read_object, wrong
from src.models.formats.foreign import as_json

TOKENIZER_REMEDY: Final = "Copy tokenizer.json from the checkpoint that the model was converted from"
_AFTER_LANGUAGES: Final = 6 + 1501  # translate, transcribe, start of LM, previous text, no speech, no timestamps; times


def settings_files(folder: Path, config: Mapping[str, Any]) -> dict[str, bytes]:
    """What the hub's folders of this model say beside the weights. Raises UserError."""
    told, tokenizer = read_object(folder / "config.json"), folder / "tokenizer.json"
    names = {each["content"]: each["id"] for each in read_object(tokenizer).get("added_tokens", [])}
    end, start = config["eos_token_id"], config["decoder_start_token_id"]
    english = config["vocab_size"] == 51864
    languages = config["vocab_size"] - start - 1 - _AFTER_LANGUAGES
    if not 1 <= languages <= 200 or names.get("<|startoftranscript|>", start) != start:
        problem = f"{tokenizer} and the {config['vocab_size']} words of model.bin are no vocabulary of Whisper's"
        raise wrong(problem, TOKENIZER_REMEDY)
    first = start + 1 + languages  # <|translate|>
    generation = {
        **{
            field: config[field] for field in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        },
        "max_length": config["max_target_positions"],
        "begin_suppress_tokens": told.get("suppress_ids_begin", [220, end]),
        "suppress_tokens": told.get("suppress_ids", []),
        "is_multilingual": not english,
        "no_timestamps_token_id": first + 5,
        "max_initial_timestamp_index": 50,
        "return_timestamps": False,
        "prev_sot_token_id": first + 3,
    }
    if "alignment_heads" in told:
        generation["alignment_heads"] = told["alignment_heads"]
    if not english:
        generation["lang_to_id"] = {name: number for name, number in names.items() if start < number < first}
        generation["task_to_id"] = {"transcribe": first + 1, "translate": first}
    end_token = "<|endoftext|>"
    made = as_json(
        config=config,
        generation_config=generation,
        tokenizer_config={
            "tokenizer_class": "WhisperTokenizer",
            **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), end_token),
            "errors": "replace",
            "model_max_length": 1024,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        },
        preprocessor_config={
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": config["num_mel_bins"],
            "sampling_rate": 16000,
            "hop_length": 160,
            "chunk_length": config["max_source_positions"] // 50,
            "n_fft": 400,
            "n_samples": config["max_source_positions"] * 320,
            "nb_max_frames": config["max_source_positions"] * 2,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
        },
    )
    return made | {"tokenizer.json": tokenizer.read_bytes()}
