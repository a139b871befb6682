"""tokenizer.bin, which Moonshine's runtime files have in place of tokenizer.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_BYTE_TOKENS: Final = range(3, 259)
_SPECIAL: Final = re.compile(r"<unk>|</?s>|<<ST_\d+>>")


def tokenizer_json(data: bytes) -> bytes:
    """tokenizer.json from tokenizer.bin, which has the bytes of every token one behind the other, after their length.

    A length of 128 and more takes two bytes. Pairs are merged in the order of the tokens that they make, as in every
    vocabulary of SentencePiece; of runs of spaces, which no transcript has, the authors' order is another one.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing

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
    merges = [pair for name in made for pair in _splits(name, words)]
    tokenizer = Tokenizer(BPE(words, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", ids["<s>"])])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = filter(_SPECIAL.fullmatch, ids)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in special])
    return tokenizer.to_str().encode()


def _splits(name: str, words: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs = ((name[:at], name[at:]) for at in range(1, len(name)))
    return sorted(
        (pair for pair in pairs if set(pair) <= words.keys()), key=lambda pair: (words[pair[0]], words[pair[1]])
    )
