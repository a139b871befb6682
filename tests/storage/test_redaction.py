from __future__ import annotations

import base64
import json
import logging
import pickle
import random
import sys
import time
from pathlib import Path

import pytest
from secrets_planted import IN_CONTEXT, KEYS, PLAIN

from src.errors import UserError
from src.storage.redaction import RedactingFilter, guarded, redact, redact_error, redact_yaml, sealed, without_secrets
from src.storage.secret_patterns import REDACTED
from src.storage.store import Store, fingerprint, write_json


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


def test_logs_carry_no_secret_in_message_arguments_or_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_PASSWORD", "correct-horse-battery")
    logger, lines = logging.Logger("a logger of its own"), []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines()
    handler.addFilter(RedactingFilter())
    logger.addHandler(handler)
    try:
        raise ValueError("cannot use correct-horse-battery")
    except ValueError:
        logger.exception("%s of %d in %s", "correct-horse-battery", 7, Path.home() / "data")
    (line,) = lines
    assert line.startswith("*** of 7 in ~/data\nTraceback")
    assert line.endswith("ValueError: cannot use ***")


def test_a_file_is_replaced_only_where_something_is_hidden(tmp_path: Path) -> None:
    clean, telling = tmp_path / "clean.yaml", tmp_path / "telling.yaml"
    clean.write_text("wbits: 4\n")
    telling.write_text(f"root: {Path.home()}/data\nsource: https://me:secret@example.org/m\n")
    before = clean.stat()
    for file in (clean, telling, tmp_path / "absent.yaml"):
        redact_yaml(file)
    assert clean.stat().st_mtime_ns == before.st_mtime_ns
    assert telling.read_text() == "root: ~/data\nsource: https://***@example.org/m\n"
    assert {path.name for path in tmp_path.iterdir()} == {"clean.yaml", "telling.yaml"}


def test_a_command_to_be_copied_keeps_the_home_directory_and_no_secret() -> None:
    command = f"python -m src.main output_dir={Path.home()}/out model.source=https://me:secret@example.org/m"
    expected = f"python -m src.main output_dir={Path.home()}/out model.source=https://***@example.org/m"
    assert without_secrets(command) == expected


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("around", ["{}", "x={} y", "'{}'", "https://host/{}/x", "pi-{}.", '{{"a": "{}"}}'])
def test_what_looks_like_a_key_is_hidden_wherever_it_stands(kind: str, around: str) -> None:
    cleaned = without_secrets(around.format(KEYS[kind]))
    assert REDACTED in cleaned
    assert KEYS[kind][6:] not in cleaned
    assert without_secrets(cleaned) == cleaned


@pytest.mark.parametrize("kind", IN_CONTEXT)
def test_what_stands_where_a_secret_does_is_hidden(kind: str) -> None:
    text, secret = IN_CONTEXT[kind]
    cleaned = without_secrets(text)
    assert secret not in cleaned
    assert without_secrets(cleaned) == cleaned
    assert secret not in str(redact({"value": text}))


@pytest.mark.parametrize("text", PLAIN)
def test_commits_checksums_and_settings_stay(text: str) -> None:
    assert without_secrets(text) == text


def test_a_key_inside_encoded_sound_is_none_and_megabytes_take_no_time() -> None:
    sound = base64.b64encode(random.Random(0).randbytes(6_000_000)).decode()
    page = f'<html lang="en">{sound[:4000000]}AKIAIOSFODNN7EXAMPLE{sound[4000000:]}</html>'
    began = time.process_time()
    assert without_secrets(page) == page
    assert time.process_time() - began < 3


def test_a_key_of_the_store_tells_secrets_apart_and_holds_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    urls = [f"https://me:pass-{word}@host/set?sig={word}" for word in ("one", "two")]
    one, two, again = (store.entry("s", {"source": url, "token": "plain-token", "n": 3}) for url in (*urls, urls[0]))
    assert one.fingerprint == again.fingerprint != two.fingerprint
    folder = one.obtain(lambda _: None)
    text = (folder / "key.json").read_text()
    assert not [word for word in ("pass-one", "sig=one", "plain-token") if word in text]
    assert fingerprint(json.loads(text)) == folder.name  # what is stored is what was hashed
    assert sealed(json.loads(text)) == json.loads(text)


def test_every_json_and_text_that_is_written_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", 'odd"token\\of mine')
    write_json(tmp_path / "a.json", {"note": f"failed with {KEYS['github']}", "also": ['odd"token\\of mine']})
    written = (tmp_path / "a.json").read_text()
    assert json.loads(written) == {"note": "failed with ***", "also": ["***"]}


def test_an_exception_that_is_pickled_holds_no_secret() -> None:
    error = UserError("model.source", f"nothing at {IN_CONTEXT['login of a URL'][0]}", "Change it")
    error.__cause__ = ValueError(IN_CONTEXT["an override"][0])
    redact_error(error)
    assert str(pickle.loads(pickle.dumps(error))) == "model.source: nothing at https://***@host/x. Change it."
    assert str(error.__cause__) == "+method.api_key=***"


def test_what_is_printed_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    stream = guarded(sys.stdout)
    print("using", KEYS["hugging face"], file=stream)
    stream.writelines(["a", f" {KEYS['aws']}\n"])
    assert capsys.readouterr().out == "using ***\na ***\n"
