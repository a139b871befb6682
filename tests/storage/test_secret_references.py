"""Secrets of a command line stand in the environment, and references to them wherever Hydra and launchers write."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from secrets_planted import IN_CONTEXT, KEYS

from src.project import ROOT
from src.storage.redaction import without_secrets
from src.storage.secret_references import conceal, without_secrets_in

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As it was, when a test ends."""
    for name in [name for name in os.environ if name.startswith("EDGE_ASR_SECRET")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


@pytest.mark.parametrize(
    ("group", "secret", "value"),
    [
        (KEYS["github"], KEYS["github"], KEYS["github"]),
        (f"'of {KEYS['jwt']} and'", KEYS["jwt"], f"of {KEYS['jwt']} and"),
        *((f"'{text}'", secret, text) for text, secret in IN_CONTEXT.values() if "://" in text),
        ("'https://${oc.env:WHO}:hunter2-x@host/'", "hunter2-x", "https://me:hunter2-x@host/"),
    ],
)
def test_what_is_used_is_what_was_given_and_what_is_written_is_a_reference(
    group: str, secret: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHO", "me")
    [rewritten] = without_secrets_in([f"tracking.group={group}"])
    assert secret not in rewritten
    assert without_secrets_in([rewritten]) == [rewritten]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [rewritten], return_hydra_config=True)
    assert secret.encode() not in pickle.dumps(config)
    assert config.tracking.group == value
    assert "EDGE_ASR_SECRET" not in without_secrets(OmegaConf.to_yaml(config.tracking))


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("+method.api_key=one-plain-key,other-plain-key", "+method.api_key=,"),
        ("+method.tokens=[one-plain-key,7]", "+method.tokens=[,7]"),
        ("+hydra.job.env_set.ANYTHING='not to be known'", "+hydra.job.env_set.ANYTHING=''"),
        ("hydra.job.env_set.ANYTHING=/data/models", "hydra.job.env_set.ANYTHING=/data/models"),
        ("cache.keys=token,channel", "cache.keys=token,channel"),
        (f"model.revision={COMMIT}", f"model.revision={COMMIT}"),
        ("wbits=2,3", "wbits=2,3"),
        ("+x='${oc.env:HF_TOKEN}'", "+x='${oc.env:HF_TOKEN}'"),
        ("--config-name=config", "--config-name=config"),
    ],
)
def test_all_that_follows_a_telling_key_and_nothing_else_is_moved(argument: str, kept: str) -> None:
    [rewritten] = without_secrets_in([argument])
    parts = rewritten.split("${oc.env:EDGE_ASR_SECRET_")
    assert parts[0] + "".join(part.partition("}")[2] for part in parts[1:]) == kept


def test_what_hydra_would_copy_from_the_environment_is_referred_to() -> None:
    assert without_secrets_in(["hydra.job.env_copy=[A_B, C]"]) == [
        "+hydra.job.env_set.A_B=${oc.env:A_B}",
        "+hydra.job.env_set.C=${oc.env:C}",
    ]


def test_secrets_of_yaml_files_become_references_too() -> None:
    config = OmegaConf.create(
        {
            "model": {"source": IN_CONTEXT["login of a URL"][0], "name": "tiny", "n": 3, "at": "${.source}"},
            "service": {"password": "hunter2-in-yaml"},
            "list": [KEYS["aws"], None, "???"],
        }
    )
    OmegaConf.set_readonly(config, True)
    conceal(config)
    held = pickle.dumps(config)
    assert not [word for word in (b"hunter2", KEYS["aws"].encode()) if word in held]
    assert (config.model.at, config.model.name, config.model.n) == (IN_CONTEXT["login of a URL"][0], "tiny", 3)
    assert (config.service.password, config.list[0]) == ("hunter2-in-yaml", KEYS["aws"])
