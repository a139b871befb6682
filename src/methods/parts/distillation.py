"""A whole quantized model that learns from the full-precision one, clip by clip.

The objective of one step is ``KL(p || p') + encoder_weight ||E - E'||^2 / ||E||^2`` with the teacher's encoder output
``E`` and its distributions ``p`` of the tokens of its own transcript: means over the step's tokens and its clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from src.calib.capture import Calibration
from src.errors import UserError
from src.lowbit.granularity import QuantizedWeight
from src.machine.process import release_memory
from src.machine.progress import progress
from src.methods.parts.learned_codes import LearnedCodes
from src.methods.parts.rotated_network import scored_tokens
from src.methods.tuning import Tuning
from src.methods.workbench import Workbench
from src.models.products import FastLinears
from src.models.speech import SpeechModel

WARM_UP = 10  # steps in which the learning rates rise


@dataclass(frozen=True, eq=False)
class Answer:
    """What the teacher makes of a clip: encoder output [frames, d], decoder output [scored tokens, d]; float16."""

    encoded: Tensor
    states: Tensor


@dataclass(frozen=True, eq=False)
class Learning:
    """What of a model learns: latent weights, log factors of step sizes, and what stays at 16 bits, by name."""

    codes: Mapping[str, LearnedCodes]
    latents: Mapping[str, nn.Parameter]
    others: Mapping[str, nn.Parameter]

    @property
    def factors(self) -> dict[str, nn.Parameter]:
        return {path: each.log_factor for path, each in self.codes.items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """All of them under names of their own."""
        kinds = {"latent": self.latents, "factor": self.factors, "other": self.others}
        return {f"{kind}:{name}": each for kind, named in kinds.items() for name, each in named.items()}

    def quantized(self) -> dict[str, QuantizedWeight]:
        """The weights as they are now, by module path."""
        return {path: each.quantize(self.latents[path]) for path, each in self.codes.items()}


@contextmanager
def learning(bench: Workbench, tuning: Tuning) -> Iterator[Learning]:
    """Inside, every quantized weight of the model is a parametrization that learns, as are biases and norms.

    At the end the model holds the dequantized weights of what was learned, and the others in float16's values.
    """
    module, codes, latents = bench.module, {}, {}
    for path, weight in tuning.weights.items():
        linear = module.get_submodule(path)
        if not isinstance(linear, nn.Linear):
            continue  # embedding, head and front-end stay as they were rounded
        codes[path] = LearnedCodes(weight)
        parametrize.register_parametrization(linear, "weight", codes[path], unsafe=True)
        latents[path] = dict(linear.named_parameters())["parametrizations.weight.original"]
    others = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.dim() == 1 and "parametrizations" not in name and _in_a_block(bench, name)
    }
    found = Learning(codes, latents, others)
    for parameter in found.parameters().values():
        parameter.requires_grad_(True)
    try:
        yield found
    finally:
        for parameter in found.parameters().values():
            parameter.requires_grad_(False)
        with torch.no_grad():
            weights = found.quantized()
            for path in codes:
                parametrize.remove_parametrizations(module.get_submodule(path), "weight", leave_parametrized=False)
                module.get_parameter(f"{path}.weight").requires_grad_(False).copy_(weights[path].dequantize())
            for parameter in others.values():
                parameter.copy_(parameter.half())  # the values they are stored with


def _in_a_block(bench: Workbench, name: str) -> bool:
    graph = bench.graph
    norms = (graph.encoder_norm, graph.decoder_norm)
    return any(name.startswith(f"{path}.") for path in (*norms, *(block.path for block in graph.blocks)))


class Distillation:
    """Lets ``student`` learn from ``teacher`` on the clips of ``calibration``.

    Args:
        student: the quantized model, inside :func:`learning`.
        teacher: the same before it was rounded.
        calibration: clips, and the tokens the decoder is fed.
        encoder_weight: see the module.
    """

    def __init__(
        self, student: SpeechModel, teacher: SpeechModel, calibration: Calibration, *, encoder_weight: float
    ) -> None:
        self._student, self._teacher, self._calibration = student, teacher, calibration
        self._encoder_weight = encoder_weight
        self._answers: dict[int, Answer] = {}

    def step(self, clips: Sequence[int]) -> float:
        """Adds the gradients of the objective over ``clips``, and returns it.

        Raises:
            UserError: it is not finite.
        """
        tokens = {clip: scored_tokens(self._student, self._calibration.tokens[clip]) for clip in clips}
        loss = 0.0
        for clip in clips:
            divergence, error = self._losses(clip)
            part = divergence * (tokens[clip] / sum(tokens.values())) + error * (self._encoder_weight / len(clips))
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        if not math.isfinite(loss):
            problem = f"learning diverged: the distance from full precision is {loss}"
            raise UserError("method", problem, "Lower the learning rates of the method")
        return loss

    def _losses(self, clip: int) -> tuple[Tensor, Tensor]:
        """Divergence, a mean over tokens, and relative error of the encoder's output."""
        answer = self._answer(clip)
        encoded, states = self._run(self._student, clip)
        target = answer.encoded.float()
        error = (encoded - target).square().sum() / target.square().sum()
        p = _head(self._teacher, answer.states.float()).detach().softmax(-1)
        log_p = _head(self._student, states).log_softmax(-1)
        return nn.functional.kl_div(log_p, p, reduction="batchmean"), error

    @torch.no_grad()
    def _answer(self, clip: int) -> Answer:
        if clip not in self._answers:
            self._answers[clip] = Answer(*(each.half() for each in self._run(self._teacher, clip)))
        return self._answers[clip]

    def _run(self, speech: SpeechModel, clip: int) -> tuple[Tensor, Tensor]:
        """Encoder and decoder output of one clip, [frames, d] and [scored tokens, d]."""
        features, tokens = self._calibration.features[clip], self._calibration.tokens[clip]
        with FastLinears():
            encoded = speech.encode([features])
            states = speech.decoder_states(torch.tensor([tokens], device=speech.device), encoded)
        return encoded.states[0], states[0, -scored_tokens(speech, tokens) :]


def _head(speech: SpeechModel, states: Tensor) -> Tensor:
    logits: Tensor = speech.module.get_submodule(speech.graph.head)(states)
    return logits


def distill(
    distillation: Distillation,
    learned: Learning,
    tuning: Tuning,
    *,
    clips: int,
    epochs: int,
    batch_size: int,
    rates: tuple[float, float, float],
    seed: int,
) -> None:
    """Passes over all ``clips``, in an order drawn for each, after which all is kept for a run that has to go on.

    Args:
        distillation: gives the gradients.
        learned: the parameters.
        tuning: what an earlier run kept, and how more is.
        clips: how many there are.
        epochs: how many passes.
        batch_size: clips a step.
        rates: Adam's learning rates of latent weights, log factors and others; they fall along a cosine, after
            :data:`WARM_UP` steps.
        seed: of the orders.

    Raises:
        UserError: the objective is no longer finite.
    """
    kinds = (learned.latents, learned.factors, learned.others)
    groups = [{"params": [*kind.values()], "initial_lr": rate} for kind, rate in zip(kinds, rates, strict=True) if kind]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.95))
    per_epoch = math.ceil(clips / batch_size)
    begun = _restore(learned, optimizer, tuning.kept)
    with torch.enable_grad():
        for epoch in progress(range(begun, epochs), "distill, passes"):
            order = torch.randperm(clips, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
            for step in progress(range(per_epoch), "steps"):
                share = _share(epoch * per_epoch + step, epochs * per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = share * group["initial_lr"]
                optimizer.zero_grad()
                distillation.step(order[step * batch_size : (step + 1) * batch_size])
                optimizer.step()
                release_memory()  # steps differ in their clips' lengths, and so in the sizes of what they free
            tuning.keep({**_state(learned, optimizer), "epoch": torch.tensor(epoch + 1)})


def _share(step: int, steps: int) -> float:
    """Of the learning rates, in step ``step`` of ``steps``: up over the first, down along a cosine."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _state(learned: Learning, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every parameter and what the optimizer remembers of it, by names."""
    state = {}
    for name, parameter in learned.parameters().items():
        state[f"{name}:value"] = parameter.detach()
        state |= {f"{name}:{key}": value for key, value in optimizer.state[parameter].items()}
    return state


@torch.no_grad()
def _restore(learned: Learning, optimizer: torch.optim.Optimizer, kept: Mapping[str, Tensor]) -> int:
    """Takes back what :func:`_state` gave; returns how many passes were finished."""
    if not kept:
        return 0
    for name, parameter in learned.parameters().items():
        parameter.copy_(kept[f"{name}:value"])
        optimizer.state[parameter] = {key: kept[f"{name}:{key}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
    return int(kept["epoch"])
