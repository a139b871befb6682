"""Trying out equalisations of a link: how far does a module's output move when the link's linears are quantized so?

The search of a scale runs over the full-precision model, block by block; nothing is changed until it is over. A link
whose linears lie in several blocks (keys and values of all cross-attentions) is judged by the sum over its blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from src.calib.capture import Calibration
from src.calib.task import BlockTask
from src.calib.walk import Walker, WalkOptions
from src.machine.progress import progress
from src.methods.workbench import Workbench
from src.models.graph import Block, Feed, Link


@dataclass(frozen=True)
class Probe:
    """Where the effect is seen: at the output of the module at ``module``, or, inside it, at the input of ``inside``.

    Attributes:
        module: path of a module that runs the link's linears.
        inside: path of a linear in it, or None.
    """

    module: str
    inside: str | None = None


@dataclass(frozen=True)
class Trial:
    """What quantization would put in place of a linear's weight [out, in] and input [..., in], or add to its bias."""

    weight: Tensor
    input: Callable[[Tensor], Tensor] | None = None
    bias: Tensor | None = None


Candidate = TypeVar("Candidate")  # what is tried on a link, e.g. a scale [in]


def inner_probe(block: Block, link: Link) -> Probe:
    """The attention or MLP module around norm-fed linears in ``block``; a linear that is no part of one by itself."""
    first = next(linear.path for linear in block.linears if linear.path in link.linears)
    around = first.rpartition(".")[0]
    return Probe(around if link.feed.listed_as is Feed.NORM and around != block.path else first)


class Observation:
    """A probe's module with all its calls during one run of a block, and what it gave at full precision."""

    def __init__(self, model: nn.Module, task: BlockTask, probe: Probe) -> None:
        self._model = model
        self._probe = probe
        parts = [part for batch in task.inputs for _, part in batch.parts()]
        self._valid = [part.valid for part in parts]
        self._shares = [None if part.weights is None else part.weights[part.valid].square() for part in parts]
        self._calls = self._record(task)
        self._reference = list(self._outputs())

    def loss(self, trials: Mapping[str, Trial]) -> float:
        """``||output - output at full precision||^2``, summed over channels, mean over rows that are not padding.

        The mean is weighted by what rows count.
        """
        total, rows = 0.0, 0.0
        with _installed(self._model, trials):
            for output, reference, shares in zip(self._outputs(), self._reference, self._shares, strict=True):
                error = (output - reference).float().square().sum(-1, dtype=torch.float64)
                total += float(error.sum() if shares is None else error @ shares.double())
                rows += len(output) if shares is None else float(shares.sum())
        return total / rows

    def _record(self, task: BlockTask) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def record(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            calls.append((arguments, keywords))

        handle = self._module.register_forward_pre_hook(record, with_kwargs=True)
        try:
            task.outputs()
        finally:
            handle.remove()
        return calls

    @property
    def _module(self) -> nn.Module:
        return self._model.get_submodule(self._probe.module)

    def _outputs(self) -> Iterator[Tensor]:
        """Valid rows [rows, channels] of every call."""
        for (arguments, keywords), valid in zip(self._calls, self._valid, strict=True):
            yield self._output(arguments, keywords)[valid]

    def _output(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
        seen: list[Tensor] = []
        handle = None
        if self._probe.inside is not None:
            inside = self._model.get_submodule(self._probe.inside)
            handle = inside.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            output = self._module(*arguments, **keywords)
        finally:
            if handle is not None:
                handle.remove()
        if seen:
            return seen[0]
        first: Tensor = output[0] if isinstance(output, tuple) else output
        return first


@contextmanager
def _installed(model: nn.Module, trials: Mapping[str, Trial]) -> Iterator[None]:
    """Weights and inputs of ``trials`` in the linears of the model, until the end of the context."""
    originals: dict[str, Tensor] = {}
    handles = []
    try:
        for path, trial in trials.items():
            weight = model.get_parameter(f"{path}.weight")
            originals[path] = weight.data
            weight.data = trial.weight.to(weight)
            if trial.input is not None:
                hook = _replace_input(trial.input)
                handles.append(model.get_submodule(path).register_forward_pre_hook(hook))
            if trial.bias is not None:
                handles.append(model.get_submodule(path).register_forward_hook(_add_to_output(trial.bias)))
        yield
    finally:
        for path, original in originals.items():
            model.get_parameter(f"{path}.weight").data = original
        for handle in handles:
            handle.remove()


def _replace_input(change: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def replace(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (change(given[0]), *given[1:])

    return replace


def _add_to_output(bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + bias.to(output)

    return add


def losses_by_link(
    bench: Workbench,
    calibration: Calibration,
    candidates: Mapping[str, Sequence[Candidate]],
    quantize: Callable[[str, Candidate], Trial | None],
    probe: Callable[[Block, Link], Probe],
) -> dict[str, list[float]]:
    """Loss of every candidate, by link name.

    Args:
        bench: the model, unquantized; left as it is.
        calibration: clips the outputs are compared on.
        candidates: what to try, by link name.
        quantize: the linear at a path under a candidate; None leaves it as it is.
        probe: where to look, for a link and a block that holds some of its linears.
    """
    links = [link for link in bench.graph.links if link.name in candidates]
    losses = {link.name: [0.0] * len(candidates[link.name]) for link in links}

    def on_block(task: BlockTask) -> None:
        paths = {linear.path for linear in task.block.linears}
        for link in links:
            own = [path for path in link.linears if path in paths]
            if own:
                observation = Observation(bench.module, task, probe(task.block, link))
                for number, candidate in enumerate(progress(candidates[link.name], link.name)):
                    losses[link.name][number] += observation.loss(_trials(own, candidate, quantize))

    Walker(bench.speech, calibration, WalkOptions(gram=False, label="search")).walk(on_block)
    return losses


def _trials(
    paths: Sequence[str], candidate: Candidate, quantize: Callable[[str, Candidate], Trial | None]
) -> dict[str, Trial]:
    found = {path: quantize(path, candidate) for path in paths}
    return {path: trial for path, trial in found.items() if trial is not None}
