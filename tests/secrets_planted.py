"""Secrets of every kind that are not anybody's, and a search for them in all that a run leaves."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# What looks like a secret wherever it stands.
KEYS: Final = {
    "hugging face": "hf_aAbBcCdDeEfFgGhHiIjJ",
    "openai": "sk-proj-a1B2c3D4e5F6g7H8i9J0",
    "stripe": "sk_live_a1B2c3D4e5F6g7H8",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "google": "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "github": "ghp_a1B2c3D4e5F6g7H8i9J0k1L2",
    "github, fine-grained": "github_pat_11AAAAAAA0a1B2c3D4e5F6_g7H8i9J0",
    "gitlab": "glpat-a1B2c3D4e5F6g7H8i9J0",
    "slack": "xoxb-123456789012-a1B2c3D4e5F6",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLW9mLWl0",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAKj34\n-----END RSA PRIVATE KEY-----",
}
# A text, and what of it is secret.
IN_CONTEXT: Final = {
    "login of a URL": ("https://me:hunter2-in-url@host/x", "hunter2-in-url"),
    "login with an at sign": ("https://me:p@ss-in-url@host/x", "ss-in-url"),
    "token of a query": ("https://host/x?a=1&token=t1ny", "t1ny"),
    "amazon's signature": ("https://host/x?X-Amz-Signature=0a1b2c3d&X-Amz-Expires=60", "0a1b2c3d"),
    "amazon's old signature": ("https://host/x?AWSAccessKeyId=AKID&Signature=abc%2Fdef%3D&Expires=1", "abc%2Fdef"),
    "azure's signature": ("https://host/x?sv=2020&sig=q1w2e3r4", "q1w2e3r4"),
    "google's signature": ("https://host/x?X-Goog-Signature=f00f00", "f00f00"),
    "access token": ("https://host/x?access_token=ya-tiny", "ya-tiny"),
    "a query in a query": ("https://host/?to=https%3A%2F%2Fh%3Ftoken%3Dinner-token", "inner-token"),
    "an override": ("+method.api_key=plain-word-key", "plain-word-key"),
    "a variable": ("PGPASSWORD=short psql", "short"),
    "bearer": ("Authorization: Bearer plainwordtoken", "plainwordtoken"),
    "basic": ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    "bearer alone": ("curl -H 'Bearer correct-horse-battery'", "correct-horse-battery"),
    "netrc": ("machine api.wandb.ai login user password 0123abcd", "0123abcd"),
    "a weights and biases key": ("WANDB_API_KEY=" + "0123456789abcdef" * 2 + "01234567", "0123456789abcdef"),
    "the same in a command": ("wandb login " + "0123456789abcdef" * 2 + "01234567", "0123456789abcdef"),
    "json": ('{"client_secret": "plainword"}', "plainword"),
    "python": ("{'api_key': 'a1b2c3d4e5f6g7h8'}", "a1b2c3d4e5f6g7h8"),
    "yaml": ("a:\n  token: plainwordtoken\n", "plainwordtoken"),
}
# What looks like a secret to a careless reader.
PLAIN: Final = (
    "model.revision=0123456789abcdef0123456789abcdef01234567",
    "commit 0123456789abcdef0123456789abcdef01234567-dirty",
    '{"weights.safetensors": "' + "0123456789abcdef" * 4 + '"}',
    "cache.keys=channel profile.tokens=20 evaluate.suppress_tokens=true",
    "  keys: channel\n  tokens: 20\n",
    '{"model.decoder.embed_tokens": "kept at 16 bits: it is the head", "tokens": 448}',
    '{"model.decoder.embed_tokens": "per-channel"}',
    "WANDB_API_KEY: there is no API key for http://127.0.0.1:9",
    "git@github.com:owner/name.git https://host/x?config=clean&split=test",
    "task-specific-long-thing-2 risk-adjusted-return-1999 the basic understanding of it",
    "token=${oc.env:HF_TOKEN} password=${oc.env:PASSWORD}",
    "max_new_tokens=448, pad_token=<pad>, key=lambda row: row",
)


def found(secrets: Iterable[str], folder: Path) -> dict[str, list[str]]:
    """The secrets that a file below ``folder``, or the name of one, holds, with the files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    leaks = dict[str, list[str]]()
    for path in files:
        content = path.read_bytes()
        held = [content, str(path).encode()]
        if content.startswith(b"\x1f\x8b"):
            held.append(gzip.decompress(content))
        for secret in secrets:
            if any(secret.encode() in each for each in held):
                leaks.setdefault(secret, []).append(str(path.relative_to(folder)))
    return leaks
