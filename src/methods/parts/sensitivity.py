"""What an error of one weight costs in the end: to second order, from one backward pass over the calibration clips.

To second order, an error ``E`` of a weight makes the model's next-token distributions diverge by ``1/2 E[<G, E>^2]``,
nats summed over the tokens of a clip; ``G`` is the gradient of the clip's cross-entropy with respect to the weight, for
words that the model itself draws: the Fisher information, from one drawn word a token (Martens, arXiv 1412.1193, sec.
9.2). The outputs of the head are the distributions, so that its second order is known: half of the variance of ``E x``
under them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from src.calib.capture import Calibration
from src.calib.end_inputs import unfolded
from src.calib.observe import read_by
from src.machine.process import release_memory
from src.machine.progress import progress
from src.methods.parts.end_loss import end_states
from src.methods.parts.head_loss import head_loss
from src.models.products import product
from src.models.speech import SpeechModel

_TOKENS = 64  # whose logits are in memory at once
_HEAD_TOKENS = 512  # most that a head's errors are weighed on
_UNLIKELY = 1e-5  # probability of a word


@dataclass(frozen=True)
class Sensitivities:
    """What errors of weights cost: nats, summed over the tokens of all clips.

    Attributes:
        weights: ``G`` by path, of linears and convolutions, [clips, out, in].
        embedding: path of the embedding.
        words: tokens that were read, [rows].
        gradients: of what the embedding gave for them, [rows, d].
        head: path of the head: the embedding's, where they are one matrix.
        states: what the head was fed, [rows, d].
        W: the head as it is, [words, d].
    """

    weights: Mapping[str, Tensor]
    embedding: str
    words: Tensor
    gradients: Tensor
    head: str
    states: Tensor
    W: Tensor

    def rows(self, path: str) -> Tensor | slice:
        """Which rows of the weight at ``path`` errors cost anything in: int64 of embedding and head, else all."""
        return slice(None) if path in self.weights else self._words[path]

    @torch.no_grad()
    def cost(self, path: str, E: Tensor) -> float:
        """What errors of the weight at ``path`` cost; of one that is read twice, in both places.

        Args:
            path: of the linear, convolution, embedding or head.
            E: errors of its :meth:`rows`, [rows, in].
        """
        if path in self.weights:
            by_row = torch.stack([(G.float() * E).sum(1) for G in self.weights[path]])
            # Errors of different rows cancel or add up; of so few clips, the sum of all is uncertain by a third.
            return max(_sum(by_row.square()), _sum(by_row.sum(1).square())) / 2
        cost = 0.0
        rows = self._words[path]
        if path == self.embedding:
            place = torch.searchsorted(rows, self.words)
            cost += _sum((E[place] * self.gradients).sum(1).square()) / 2
        if path == self.head:
            variances, chosen = 0.0, self._head_states
            for states in torch.split(chosen, _TOKENS):
                p, change = product(states, self.W).softmax(-1)[:, rows], product(states, E)
                variances += _sum((p * change.square()).sum(1) - (p * change).sum(1).square())
            cost += variances / 2 * len(self.states) / len(chosen)
        return cost

    @cached_property
    @torch.no_grad()
    def _words(self) -> dict[str, Tensor]:
        """Words that were read, of the embedding; that are likely somewhere, of the head. In order."""
        read, likely = (torch.zeros(len(self.W), dtype=torch.bool, device=self.W.device) for _ in range(2))
        read[self.words] = True
        for states in torch.split(self._head_states, _TOKENS):
            likely |= (product(states, self.W).softmax(-1) > _UNLIKELY).any(0)
        tied = self.embedding == self.head
        counts = {self.embedding: read | likely} if tied else {self.embedding: read, self.head: likely}
        return {path: words.nonzero().flatten() for path, words in counts.items()}

    @property
    def _head_states(self) -> Tensor:
        return self.states[:: -(-len(self.states) // _HEAD_TOKENS)]


def measure_sensitivities(
    speech: SpeechModel, calibration: Calibration, paths: Iterable[str], *, seed: int
) -> Sensitivities:
    """One backward pass over every clip, as :func:`~src.methods.parts.end_loss.end_states` runs it.

    Args:
        speech: the recogniser at full precision; no parameter gets a gradient.
        calibration: clips, which pass one by one.
        paths: linears of the blocks and convolutions of the front-end; embedding and head are weighed in any case.
        seed: of the words that are drawn.
    """
    graph, module = speech.graph, speech.module
    generator = torch.Generator(speech.device).manual_seed(seed)
    head, embedding = (module.get_parameter(f"{path}.weight") for path in (graph.head, graph.embedding))
    listener = _GradientListener(module, paths)
    words: list[int] = []
    gradients: list[Tensor] = []
    fed: list[Tensor] = []
    frontend = not listener.gradients.keys().isdisjoint(graph.frontend)
    with listener:
        clips = zip(calibration.features, calibration.tokens, strict=True)
        for features, tokens in progress(list(clips), "sensitivities, clips"):
            with torch.enable_grad():
                states = end_states(speech, features.clone().requires_grad_(frontend), tokens, gradients.append)
                drawn = _drawn(states.detach(), head.detach(), generator)
                (head_loss(states, head, drawn) * len(drawn)).backward()  # type: ignore[no-untyped-call]
            words += tokens
            fed.append(states.detach())
            release_memory()  # clips differ in length, and so in the sizes of what they free
    return Sensitivities(
        {path: torch.stack(each) for path, each in listener.gradients.items()},
        graph.embedding,
        torch.tensor(words, device=speech.device),
        torch.cat(gradients),
        graph.embedding if head is embedding else graph.head,
        torch.cat(fed),
        head.detach().clone(),
    )


def _drawn(states: Tensor, W: Tensor, generator: torch.Generator) -> Tensor:
    """A word of the distribution after each of the ``states`` [rows, d], int64 [rows]."""
    drawn = [
        product(rows, W).softmax(-1).multinomial(1, generator=generator)[:, 0] for rows in torch.split(states, _TOKENS)
    ]
    return torch.cat(drawn)


class _GradientListener(TorchFunctionMode):
    """Context inside which ``G`` of linears and convolutions is kept, pass by pass.

    Args:
        module: that holds them.
        paths: theirs.
    """

    def __init__(self, module: nn.Module, paths: Iterable[str]) -> None:
        super().__init__()
        weights = {path: module.get_parameter(f"{path}.weight") for path in paths}
        self._module = module
        self._paths = {id(weight): path for path, weight in weights.items()}
        self._handles: list[RemovableHandle] = []
        self.gradients: dict[str, list[Tensor]] = {path: [] for path in weights}

    def __enter__(self) -> Self:
        for path in self._paths.values():
            module = self._module.get_submodule(path)
            if not isinstance(module, nn.Conv1d):  # a linear, which may run on a kernel that is no torch function
                self._handles.append(module.register_forward_hook(partial(self._listen, path)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is conv1d and (path := self._paths.get(id(args[1]))) is not None:
            output.register_hook(lambda g: self._add(path, unfolded(*args), g.transpose(1, 2)))
        return output

    def _listen(self, path: str, linear: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = read_by(linear, inputs[0])
        output.register_hook(lambda g: self._add(path, x, g))  # type: ignore[no-untyped-call]

    def _add(self, path: str, x: Tensor, g: Tensor) -> None:
        G = g.detach().flatten(0, -2).T @ x.detach().flatten(0, -2)
        self.gradients[path].append(G.bfloat16())  # whose exponents are float32's


def _sum(x: Tensor) -> float:
    return float(x.sum(dtype=torch.float64))
