"""What a transform must not change: logits in float64, under teacher forcing and token by token from a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from src.lowbit.granularity import WeightSpec
from src.methods.workbench import Workbench
from src.models.families import FAMILIES
from src.models.speech import SpeechModel
from tests.calib.clips import noise_calibration
from tests.tiny import TINY

MODELS: dict[str, Callable[[], SpeechModel]] = {  # that write token by token
    name: build
    for family, tiny in TINY.items()
    if FAMILIES[family].has_decoder
    for name, build in (*tiny.shapes.items(), *tiny.heads.items())
}


def double(build: Callable[[], SpeechModel]) -> SpeechModel:
    """The model in float64."""
    speech = build()
    speech.module.double()
    return speech


def bench_of(speech: SpeechModel, bits: int = 4, abits: int = 16, kvbits: int = 16, seed: int = 0) -> Workbench:
    """A workbench as the quantizer makes it, every linear in scope."""
    paths = [linear.path for linear in speech.graph.linears]
    plan = dict.fromkeys(paths, WeightSpec(bits, -1, False))
    return Workbench(speech, dict(plan), dict.fromkeys(paths, abits), kvbits, noise_calibration(speech, 2), seed)


@torch.inference_mode()
def outputs(speech: SpeechModel) -> list[Tensor]:
    """Logits of a padded batch of clips: all at once, and step by step from a cache."""
    calibration = noise_calibration(speech, 5)
    features = calibration.features[:3]
    tokens = torch.tensor([[*speech.prompt, 7, 11, 30, 5, 60]] * 3)
    encoded = speech.encode(features)
    cache, prompt = speech.new_cache(), len(speech.prompt)
    steps = [speech.decode_step(tokens[:, :prompt], encoded, cache)]
    steps += [speech.decode_step(tokens[:, at : at + 1], encoded, cache) for at in range(prompt, tokens.shape[1])]
    return [speech.forward_tokens(tokens, encoded), torch.stack(steps, dim=1)]


def largest_relative_error(after: Iterable[Tensor], before: Iterable[Tensor]) -> float:
    """Largest difference, relative to the largest value."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(after, before, strict=True))


def with_outliers(build: Callable[[], SpeechModel], size: float = 10) -> SpeechModel:
    """The model with two channels of both residual streams far from zero, as large models have them."""
    speech = build()
    with torch.no_grad():
        speech.module.get_parameter(f"{speech.graph.frontend[-1]}.bias")[5] = size
        speech.module.get_parameter(f"{speech.graph.embedding}.weight")[:, 9] += size
    return speech
