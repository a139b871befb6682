"""Statistics of what a model's ends multiply: inputs of the front-end's convolutions, unfolded, and of the head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, linear, pad, unfold
from torch.overrides import TorchFunctionMode

from src.calib.capture import Calibration
from src.calib.gram import RunningGrams
from src.machine.progress import progress
from src.models.products import FastLinears
from src.models.speech import SpeechModel
from src.quant.ends import flat_weight
from src.quant.link_statistics import LinkStatistics


@torch.no_grad()
def end_statistics(speech: SpeechModel, calibration: Calibration, paths: Iterable[str]) -> dict[str, LinkStatistics]:
    """Counts and Gram matrices by path of what ``speech``, as it is, multiplies with the weights of its ends.

    The columns are those of :func:`~src.quant.ends.flat_weight`. An embedding multiplies nothing: its rows are read as
    they are, so that every column counts alike and its matrix is the identity. One that is the head too has two errors,
    of what enters the residual stream and of the logits; both count alike, as matrices of one trace that are added.

    Args:
        speech: the recogniser at full precision.
        calibration: clips, which pass one by one.
        paths: of the ends' modules.
    """
    graph, module = speech.graph, speech.module
    embedding = module.get_parameter(f"{graph.embedding}.weight")
    tied = embedding is module.get_parameter(f"{graph.head}.weight")  # or there is none
    read = {path: module.get_parameter(f"{path}.weight") for path in paths}
    hears = _Listener({path: each for path, each in read.items() if each is not embedding or tied}, module)
    decodes = any(path not in graph.frontend for path in hears.grams)
    if hears.grams:
        for number in progress(range(len(calibration.ids)), "ends, clips"):
            clip = calibration.part([number])
            features, tokens = clip.features[0], clip.tokens[0]
            hears.frame_weights = partial(clip.frame_weights, speech)
            with FastLinears(), hears:
                if decodes:
                    speech.logits([features], torch.tensor([tokens], device=speech.device))
                else:
                    speech.encoder_inputs([features])
    found = {path: LinkStatistics(hears.counts[path], grams.finish().gram) for path, grams in hears.grams.items()}
    if graph.has_embedding and graph.embedding in read:
        eye = torch.eye(embedding.shape[1], device=speech.device)
        beside = found.get(graph.embedding)
        if beside is None or beside.gram is None:
            found[graph.embedding] = LinkStatistics(len(embedding), eye)
        else:
            both = beside.gram + beside.gram.diagonal().mean() * eye
            found[graph.embedding] = LinkStatistics(beside.count, both)
    return found


class _Listener(TorchFunctionMode):
    """Context inside which the inputs of some linears and convolutions are added up.

    Args:
        weights: theirs, by path.
        module: that holds them.
    """

    def __init__(self, weights: Mapping[str, Tensor], module: torch.nn.Module) -> None:
        super().__init__()
        self._paths = {id(weight): path for path, weight in weights.items()}
        self.frame_weights: Callable[[int], list[Tensor] | None] = lambda _: None  # of the clip that is heard
        self.counts = dict.fromkeys(weights, 0)
        self.grams = {
            path: RunningGrams(flat_weight(module, path).shape[1], cross=False, device=weight.device)
            for path, weight in weights.items()
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (linear, conv1d, conv2d) and (path := self._paths.get(id(args[1]))) is not None:
            rows = args[0].flatten(0, -2) if func is linear else _UNFOLDED[func](*args)
            counts = self.frame_weights(len(rows)) if func is conv1d else None
            self.grams[path].add(rows.float(), None, None if counts is None else counts[0].flatten())
            self.counts[path] += len(rows)
        return func(*args, **(kwargs or {}))


def unfolded(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001  arguments of conv1d
    stride: tuple[int] = (1,),
    padding: tuple[int] = (0,),
    dilation: tuple[int] = (1,),
    groups: int = 1,
) -> Tensor:
    """Rows [frames, in * kernel] whose products with the flat weight are the convolution's outputs.

    Raises:
        ValueError: it skips frames between its taps, or does not read all channels.
    """
    _refuse(dilation, groups)
    windows = pad(x, (padding[0], padding[0])).unfold(-1, weight.shape[-1], stride[0])  # [batch, in, frames, kernel]
    return windows.transpose(1, 2).flatten(0, 1).flatten(1)


def unfolded_plane(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001  arguments of conv2d
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """Likewise of conv2d: rows [frames * bands, in * kernel * kernel]. Raises ValueError, as :func:`unfolded`."""
    _refuse(dilation, groups)
    kernel = (weight.shape[-2], weight.shape[-1])
    return unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2).flatten(0, 1)


def _refuse(dilation: tuple[int, ...], groups: int) -> None:
    if set(dilation) != {1} or groups != 1:
        raise ValueError("a convolution with dilation or groups")


_UNFOLDED: dict[Callable[..., Any], Callable[..., Tensor]] = {conv1d: unfolded, conv2d: unfolded_plane}
