"""tokenizer.bin, which Moonshine's runtime files have in place of tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from src.models.formats.foreign import as_json

_BYTE_TOKENS: Final = range(3, 259)
_SPECIAL: Final = re.compile(r"<unk>|</?s>|<<ST_\d+>>")


def tokenizer_json(data: bytes) -> bytes:
    """tokenizer.json from tokenizer.bin, which has the bytes of every token one behind the other, after their length.

    A length of 128 and more takes two bytes. Pairs are merged in the order of the tokens that they make, as in every
    vocabulary of SentencePiece; of runs of spaces, which no transcript has, the authors' order is another one.
    """
    names: list[str] = []
    at = 0
    while at < len(data):
        length, at = data[at], at + 1
        if length >= 128:
            length, at = length - 128 + 128 * data[at], at + 1
        if at + length > len(data):
            raise ValueError(f"{len(data)} bytes of at least {at + length}")
        token, at = data[at : at + length], at + length
        names.append(f"<0x{token[0]:02X}>" if len(names) in _BYTE_TOKENS else token.decode())
    ids = {name: number for number, name in enumerate(names)}
    if names[:3] != ["<unk>", "<s>", "</s>"] or len(ids) != len(names):
        raise ValueError(f"it has {len(names)} tokens, of which {len(ids)} differ, and begins with {names[:3]}")
    words = {name: number for name, number in ids.items() if not name.startswith("<<ST_")}
    made = sorted(
        (name for name in words if words[name] not in _BYTE_TOKENS), key=lambda name: (not name.strip("▁"), words[name])
    )
    return as_json(
        tokenizer={
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": number,
                    "content": name,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for name, number in ids.items()
                if _SPECIAL.fullmatch(name)
            ],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            "pre_tokenizer": None,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [
                    {"SpecialToken": {"id": "<s>", "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "<s>", "type_id": 1}},
                    {"Sequence": {"id": "B", "type_id": 1}},
                ],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            },
            "model": {
                "type": "BPE",
                "unk_token": "<unk>",
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "dropout": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "vocab": words,
                "merges": [[left, right] for name in made for left, right in _splits(name, words)],
            },
        }
    )["tokenizer.json"]


def _splits(name: str, words: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs = ((name[:at], name[at:]) for at in range(1, len(name)))
    return sorted(
        (pair for pair in pairs if set(pair) <= words.keys()), key=lambda pair: (words[pair[0]], words[pair[1]])
    )
