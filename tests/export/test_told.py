"""What evaluate was told beside the bits is in the files, or said to be missing from them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSpeechSeq2Seq

from src.decoding.transcribe import transcribe
from src.errors import UserError
from src.export.ggml_tokens import Numbers
from src.export.onnx_generate import Recogniser
from src.models.loading import load
from src.project import ROOT
from src.stages.base import RESULT, read_json
from src.stages.export import Export
from src.stages.point import Point
from tests.composed import composed
from tests.export.exporting import export, opened, quantized, tokens, utterances
from tests.models.checkpoints import WEIGHTS, Spoil, both, edited, tensors

THE = 30  # the word that most clips begin with
EMBEDDING, HEAD = "model.decoder.embed_tokens.weight", "proj_out.weight"
PLAIN = ("model=sandbox_whisper", "method=rtn", "wbits=8", "dataset.limit=2")
GGML = ("export=ggml", "model=sandbox_whisper", "method=rtn", "wbits=4", "group_size=32")
MULTILINGUAL = edited("generation_config.json", is_multilingual=True)


def changed(folder: Path, spoil: Spoil) -> str:
    """The override that names a changed copy of the sandbox Whisper, its weights as transformers stores them."""
    copy = Path(shutil.copytree(ROOT / "src/sandbox/models/whisper", folder / "checkpoint"))
    module = load(composed("model=sandbox_whisper").model, "cpu", 0).module
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items() if name != HEAD}
    save_file(weights, copy / WEIGHTS, metadata={"format": "pt"})
    spoil(copy)
    return f"model.source={copy}"


def notes(point: Point) -> str:
    return " ".join(read_json(point.exported.path / RESULT)["notes"])


def generated(folder: Path, point: Point) -> list[list[int]]:
    """What transformers writes from an exported folder with its own defaults."""
    model, speech = AutoModelForSpeechSeq2Seq.from_pretrained(folder), quantized(point)
    features = [speech.features([utterance.waveform()])[0][None] for utterance in utterances(point)]
    written = [model.generate(each, max_new_tokens=60)[0].tolist() for each in features]
    return [[token for token in ids if token not in (*speech.prompt, speech.eos)] for ids in written]


def test_tokens_that_evaluate_may_write_are_written(tmp_path: Path) -> None:
    source = changed(tmp_path, edited("generation_config.json", suppress_tokens=[THE]))
    free = (*PLAIN, source, "evaluate.suppress_tokens=false")
    onnx, packed = (opened(tmp_path, f"export={name}", *free) for name in ("onnx", "compressed_tensors"))
    folder = export(onnx)
    speech, clips = quantized(onnx), utterances(onnx)
    expected, suppressed = (transcribe(speech, clips, suppress=each)[1] for each in (False, True))
    assert expected != suppressed
    assert Recogniser(folder, threads=1).generate([clip.waveform() for clip in clips]) == expected
    assert generated(export(packed), packed) == expected
    assert onnx.exported != opened(tmp_path, "export=onnx", *PLAIN, source).exported


def test_the_language_is_in_the_files_and_other_settings_are_told(tmp_path: Path) -> None:
    chosen = (*PLAIN, changed(tmp_path, MULTILINGUAL), "model.language=en", "dtype=bfloat16", "dataset.limit=1")
    point = opened(tmp_path, "export=compressed_tensors", *chosen)
    folder = export(point)
    told = json.loads((folder / "generation_config.json").read_text())
    assert (told["language"], told["task"], told["lang_to_id"]) == ("en", "transcribe", {"<|en|>": 633})
    assert generated(folder, point) == tokens(point, quantized(point))
    assert "evaluate computed in bfloat16" in notes(point)
    assert "_name_or_path" not in json.loads((folder / "config.json").read_text())


def test_onnx_cuts_clips_that_it_hears_together(tmp_path: Path) -> None:
    point = opened(tmp_path, "export=onnx", *PLAIN)
    recogniser = Recogniser(export(point), threads=1)
    assert notes(point) == ""
    waveform = np.tile(utterances(point)[0].waveform(), 9)[: 7 * 16_000]
    with pytest.warns(UserWarning, match="1 clips are longer than 6 s"):
        found = recogniser.generate([waveform])
    assert found == recogniser.generate([waveform[: 6 * 16_000]])


def own_head(held: dict[str, torch.Tensor]) -> None:
    held[HEAD] = held[EMBEDDING].clone()
    held[HEAD][[45, 245]] = held[HEAD][[245, 45]]


def test_a_head_of_its_own_is_exported(tmp_path: Path) -> None:
    """Though config.json says it is the embedding."""
    source = changed(tmp_path, tensors(own_head))
    point = opened(tmp_path, "export=onnx", *PLAIN, source)
    recogniser = Recogniser(export(point), threads=1)
    found = recogniser.generate([utterance.waveform() for utterance in utterances(point)])
    assert found == tokens(point, quantized(point))


def longer(rows: int) -> Spoil:
    """A vocabulary with rows behind its end."""

    def grown(held: dict[str, torch.Tensor]) -> None:
        held[EMBEDDING] = torch.cat([held[EMBEDDING], held[EMBEDDING][:1].expand(rows, -1)])

    return both(tensors(grown), edited("config.json", vocab_size=640 + rows))


@pytest.mark.parametrize(
    ("spoil", "language", "told"),
    [
        (tensors(own_head), "null", "a head of its own"),
        (MULTILINGUAL, "en", "640 tokens for English, and this one is multilingual"),
        (longer(301 + 1), "null", "others among them"),
        (longer(1), "null", "others among them"),
        (longer(51864 - 640), "null", r"start 50257.* this model has .*start 632"),
        (longer(51865 - 640), "null", r"looks for end 50257, start 50258, no timestamps 50363 in"),
        (longer(51867 - 640), "null", "51867, more than OpenAI's largest"),
    ],
)
def test_what_whisper_cpp_would_take_for_other_tokens_is_refused(
    spoil: Spoil, language: str, told: str, tmp_path: Path
) -> None:
    point = opened(tmp_path, *GGML, changed(tmp_path, spoil), f"model.language={language}")
    with pytest.raises(UserError, match=told) as caught:
        Export().check(point)
    assert caught.value.field == "export"


def test_numbers_are_those_of_the_published_vocabularies() -> None:
    assert Numbers.of(51864) == Numbers(50256, 50257, 50362)
    assert Numbers.of(51865) == Numbers(50257, 50258, 50363)
    assert Numbers.of(51866) == Numbers(50257, 50258, 50364)
