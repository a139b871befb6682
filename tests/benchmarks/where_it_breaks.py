"""Which linears a method breaks a model with: each kind and each block rounded alone, all others at full precision.

    python -m tests.benchmarks.where_it_breaks model=whisper_tiny_en_package method=gptq wbits=3 group_size=-1

rounds from the statistics of the original model, so that nothing depends on what was rounded before, and prints how far
the model's answers move on test clips: KL, the divergence of its next-token distributions on its own transcripts (nats
a token), and the relative squared error of the encoder's output. Word error rates of so few clips could not tell these
apart. Clips are those that half of Whisper's window holds, in that. Takes methods that only round.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from src.calib.capture import Calibration, capture
from src.calib.statistics import measure
from src.decoding.transcribe import transcribe
from src.methods.asked import weight_plan
from src.models.loading import load
from src.models.products import FastLinears
from src.models.speech import SpeechModel
from src.settings import Settings
from src.stages.point import open_point
from tests.composed import composed

CLIPS = 16  # test clips
REAL = (  # what the sandbox, which tests run on, would choose otherwise
    "model=embedded_whisper",
    "dataset=librispeech_sample_clean",
    "dataset@calib.dataset=librispeech_sample_calibration",
)
Answers = list[tuple[Tensor, Tensor]]


def halved(speech: SpeechModel, calibration: Calibration) -> Calibration:
    """The clips that half of the window holds, in that; all as they are, where clips are not padded."""
    fits = [i for i, each in enumerate(calibration.seconds) if speech.fits_half(round(each * speech.sampling_rate))]
    if not fits:
        return calibration
    return calibration.part(fits).in_half(speech)


@torch.no_grad()
def answers(speech: SpeechModel, heard: Sequence[Tensor], said: Sequence[Sequence[int]]) -> Answers:
    """Encoder output and log-probabilities of every clip's tokens after the prompt."""
    found = []
    for features, tokens in zip(heard, said, strict=True):
        with FastLinears():
            encoded = speech.encode([features])
            logits = speech.forward_tokens(torch.tensor([[*speech.prompt, *tokens]]), encoded)[0]
        found.append((encoded.states[0], logits[len(speech.prompt) - 1 :].log_softmax(-1)))
    return found


def distance(found: Answers, fp: Answers) -> tuple[float, float]:
    """KL a token, and the encoder's relative squared error, a mean over clips."""
    tokens = sum(len(each) for _, each in fp)
    kl = sum(float((p.exp() * (p - q)).sum()) for (_, p), (_, q) in zip(fp, found, strict=True)) / tokens
    errors = [float((e - own).square().sum() / e.square().sum()) for (e, _), (own, _) in zip(fp, found, strict=True)]
    return kl, sum(errors) / len(errors)


def parts(speech: SpeechModel) -> dict[str, Callable[[str], bool]]:
    """What is rounded alone, by what it is called."""
    graph = speech.graph
    chosen: dict[str, Callable[[str], bool]] = {"everything": lambda _: True}
    for side, blocks in (("encoder", graph.encoder), ("decoder", graph.decoder)):
        paths = [linear.path for block in blocks for linear in block.linears]
        chosen[side] = paths.__contains__
        for kind in dict.fromkeys(path.split(".layers.")[1].split(".", 1)[1] for path in paths):
            chosen[f"{side}, {kind}"] = {path for path in paths if path.endswith(f".{kind}")}.__contains__
        for block in blocks:
            chosen[block.path.removeprefix("model.")] = {linear.path for linear in block.linears}.__contains__
    return chosen


def main() -> None:
    with tempfile.TemporaryDirectory() as outputs:
        compare(composed(*REAL, *sys.argv[1:], f"output_dir={outputs}"))


def compare(settings: Settings) -> None:
    """Prints the table."""
    point = open_point(settings)
    speech = load(settings.model, settings.device, settings.seed)
    fp = copy.deepcopy(speech)
    clips = point.test_corpus.utterances()
    short = [clip for clip in clips if speech.fits_half(clip.samples)] or clips
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        utterances = point.calibration_corpus.utterances()
        kept = capture(speech, utterances, Path(folder) / "journal", batch_size=16, suppress=True)
        heard, said = transcribe(speech, short[:CLIPS], suppress=True)
    calibration = halved(speech, kept)
    heard = [each[..., : each.shape[-1] // 2] for each in heard] if short is not clips else heard
    statistics, plan = measure(speech, calibration, gram=True), weight_plan(speech.graph, settings)
    original = answers(fp, heard, said)
    rounded: dict[str, Tensor] = {}
    for path, spec in plan.items():
        if spec is not None:
            W = fp.module.get_parameter(f"{path}.weight").detach()
            link = statistics[speech.graph.link_of(path).name]
            rounded[path] = point.method.round(W.clone(), spec, link).weight.dequantize()
    table = Table("rounded alone", "KL", "encoder's error", title=f"{settings.model.name} {point.label}")
    for name, holds in parts(speech).items():
        with torch.no_grad():
            for path in rounded:
                source = rounded[path] if holds(path) else fp.module.get_parameter(f"{path}.weight")
                speech.module.get_parameter(f"{path}.weight").copy_(source)
        kl, error = distance(answers(speech, heard, said), original)
        table.add_row(name, f"{kl:.4f}", f"{error:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
