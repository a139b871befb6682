"""``python -m src.transcribe``: what a user tries first after an export."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from src.runtimes import microphone
from src.runtimes.job import RuntimeJob
from src.runtimes.process import RuntimeProcess
from src.stages.point import Point
from tests import commands
from tests.export.exporting import export, opened, quantized, tokens, utterances

FIGURES = r"real-time factor \d+\.\d{3}, first token after \d+\.\d\d s, peak \d+ MiB"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its output_dir; the model is below cache."""
    output = tmp_path_factory.mktemp("outputs")
    export(point(output))
    return output


def point(output: Path) -> Point:
    return opened(output, "export=onnx", "model=sandbox_whisper", "method=rtn", "wbits=8", "group_size=32")


def transcribe(*arguments: object) -> subprocess.CompletedProcess[str]:
    return commands.run("src.transcribe", "--threads", "1", *arguments)


def test_files_of_any_format_and_length_become_text(folder: Path, tmp_path: Path) -> None:
    clips, speech = utterances(point(folder))[:3], quantized(point(folder))
    expected = [speech.text(ids).strip() for ids in tokens(point(folder), speech)[:3]]
    files = [tmp_path / name for name in ("a.wav", "b.flac", "long.ogg")]
    for file, clip in zip(files[:2], clips, strict=False):
        soundfile.write(file, np.stack([clip.waveform()] * 2, axis=1), 16_000)
    long = np.concatenate([clip.waveform() for clip in clips] * 3)
    soundfile.write(files[2], long, 16_000)
    done = transcribe("--output-dir", folder, *files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"{file}: {text}" for file, text in zip(files[:2], expected[:2], strict=True)]
    assert len(lines[2].split()) > 3 * len(expected[0].split())
    told = done.stderr.splitlines()
    assert re.search(r"onnx [\d.]+, 1 threads, loaded in [\d.]+ s, [\d.]+ MiB of files$", told[0])
    assert re.search(f"{FIGURES}$", told[1])
    assert f"{len(long) / 16_000:.1f} s in" in told[3]
    assert ", segments: real-time factor" in told[3]


def noise() -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(0).normal(0, 0.1, 8000), 16_000, format="WAV")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"some words", "it is none of wav, flac"),
        (noise()[:6000], "truncated"),
    ],
)
def test_a_file_that_cannot_be_heard_is_named_and_nothing_is_loaded(
    content: bytes | None, told: str, folder: Path, tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    good.write_bytes(noise())
    if content is not None:
        bad.write_bytes(content)
    done = transcribe("--output-dir", folder, good, bad)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Error: {bad}: ")
    assert told in line


def test_a_folder_that_is_no_export_is_named(tmp_path: Path) -> None:
    sound = tmp_path / "a.wav"
    sound.write_bytes(noise())
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for name in ("encoder.onnx", "decoder.onnx"):
        (damaged / name).write_bytes(b"no graph")
    (damaged / "generate.json").write_text('{"truncate": false}')
    for arguments, told in (
        (("--output-dir", tmp_path), "holds no export of onnx or ggml"),
        (("--model", tmp_path / "absent"), "is no folder"),
        (("--model", tmp_path), "holds neither generate.json nor ggml-model.bin"),
        (("--model", damaged), "it cannot be run"),
    ):
        done = transcribe(*arguments, sound)
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("Error: --model: ")
        assert told in line


def test_without_the_extra_the_microphone_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # as import sees what is not installed
    with pytest.raises(microphone.UserError, match=r"sounddevice. Install it with `pip install -e '\.\[microphone\]'`"):
        microphone.require_microphone()


def test_a_process_that_ends_tells_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)onnx in .* ended with exit code 1: .*generate\.json"):
        RuntimeProcess(RuntimeJob("onnx", str(tmp_path), 1)).__enter__()
