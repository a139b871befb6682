from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.redaction import REDACTED, redact


@pytest.mark.parametrize("key", ["token", "hf_token", "WANDB_API_KEY", "apiKey", "client-secret", "passwords", "key"])
def test_strings_under_telling_keys_are_replaced(key: str) -> None:
    assert redact({"a": {key: "s3cret-value"}, "b": [{key: ["number-one", "number-two"]}]}) == {
        "a": {key: REDACTED},
        "b": [{key: [REDACTED, REDACTED]}],
    }


def test_settings_about_tokens_keep_their_numbers() -> None:
    config = {
        "profile": {"tokens": 30},
        "evaluate": {"suppress_tokens": True},
        "architecture": {"eos_token_id": 50256, "begin_suppress_tokens": [220, 50256], "pad_token_id": None},
        "revision": "0123456789abcdef0123456789abcdef01234567",
        "calib": {"monkey": "kept", "keyboard": "kept"},
    }
    assert redact(config) == config


def test_a_numeric_password_is_replaced() -> None:
    assert redact({"password": 12345678}) == {"password": REDACTED}


def test_words_too_short_to_be_a_key_stay_but_a_password_never_does() -> None:
    assert redact({"cache": {"keys": "channel"}, "password": "abc"}) == {
        "cache": {"keys": "channel"},
        "password": REDACTED,
    }


def test_secrets_are_found_inside_other_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "fake-service-token")
    cleaned = redact(
        {
            "command": "run --with fake-service-token",
            "hub": f"hf_{'x' * 30}",
            "mirror": "https://user:pa55@host/x",
        }
    )
    assert cleaned == {"command": f"run --with {REDACTED}", "hub": REDACTED, "mirror": f"https://{REDACTED}@host/x"}


def test_the_home_directory_becomes_a_tilde_and_only_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "ada"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    cleaned = redact(
        {
            "path": home / "models",
            "text": f"read {home}/a and file://{home}/b",
            "itself": str(home),
            "neighbour": f"{home}lace/x",
            "inside": f"/mnt{home}/x",
        }
    )
    assert cleaned == {
        "path": "~/models",
        "text": "read ~/a and file://~/b",
        "itself": "~",
        "neighbour": f"{home}lace/x",
        "inside": f"/mnt{home}/x",
    }


def test_the_copy_is_json_and_stable(tmp_path: Path) -> None:
    config = {"stages": ("calibrate", "quantize"), "dir": tmp_path, "token": "x", "n": 1.5, "none": None}
    cleaned = redact(config)
    assert json.loads(json.dumps(cleaned)) == cleaned == redact(cleaned)
    assert config["token"] == "x"
