"""How much every row of a linear's output matters to the end loss: squared gradients, group by group of its channels.

The guidance of GuidedQuant (arXiv 2505.07004): to second order, a change ``dz`` of outputs costs ``sum (dz dL/dz)^2``.
The loss ``L`` of a clip is the cross-entropy of the teacher's tokens and of the end token after them, summed: a token
counts as much in a long clip as in a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from src.calib.capture import Calibration
from src.machine.process import release_memory
from src.machine.progress import progress
from src.methods.parts.head_loss import head_loss
from src.methods.parts.rotated_network import scored_tokens
from src.models.graph import RowKind
from src.models.products import FastLinears
from src.models.speech import SpeechModel

_NEGLIGIBLE = 1e-3


def output_saliencies(
    speech: SpeechModel, calibration: Calibration, paths: Iterable[str], groups: int, *, by_clip: bool
) -> dict[str, list[Tensor]]:
    """Squared gradients of the linears at ``paths``, by path: bfloat16 [groups, rows] a clip, 1 on average of a group.

    A linear's output channels are split in ``groups`` as :func:`torch.tensor_split` does, over each of which gradients
    are averaged. A group that no gradient reaches has 1 throughout. Rows below a thousandth of the average, which
    together have less than a thousandth of the total, have 0: of a window that is mostly silence, three in four.

    Args:
        speech: the recogniser at full precision; no parameter gets a gradient.
        calibration: clips, which pass one by one.
        paths: linears of the blocks.
        groups: how many.
        by_clip: hear half of the window where it holds a clip; what lies behind has 0.
    """
    found: dict[str, list[Tensor]] = {path: [] for path in paths}
    handles = [
        speech.module.get_submodule(path).register_forward_hook(listener(groups, kept)) for path, kept in found.items()
    ]
    frames = {path for path in found if speech.graph.link_of(path).rows is RowKind.FRAME}
    heard = calibration.in_half(speech) if by_clip else calibration
    try:
        for clip, tokens in enumerate(progress(calibration.tokens, "gradients of the end loss, clips")):
            features = heard.features[clip]
            with torch.enable_grad():
                end_loss(speech, features, tokens).backward()  # type: ignore[no-untyped-call]
            if features.shape != calibration.features[clip].shape:
                for path in frames:
                    found[path][clip] = pad(found[path][clip], (0, found[path][clip].shape[1]))
            release_memory()  # clips differ in length, and so in the sizes of what they free
    finally:
        for handle in handles:
            handle.remove()
    return {path: _normalised(kept) for path, kept in found.items()}


def end_loss(speech: SpeechModel, features: Tensor, tokens: Sequence[int]) -> Tensor:
    """Cross-entropy of a clip's tokens after the prompt and of the end token, summed; gradients start at the blocks."""
    states = end_states(speech, features, tokens)
    targets = torch.tensor([*tokens[1:], speech.eos], device=speech.device)
    head = speech.module.get_submodule(speech.graph.head)
    return head_loss(states, head.weight, targets[-len(states) :]) * len(states)


def end_states(
    speech: SpeechModel, features: Tensor, tokens: Sequence[int], embedded: Callable[[Tensor], None] = lambda _: None
) -> Tensor:
    """What the head is fed to predict a clip's tokens after the prompt and the end token, [predictions, d].

    Args:
        speech: the recogniser.
        features: of the clip; gradients start at the blocks, or at ``features`` where these ask for them.
        tokens: what the decoder is fed.
        embedded: is told the gradients [tokens, d] of what the embedding gave.
    """
    graph, module = speech.graph, speech.module
    with FastLinears():
        hidden, arguments, mask = speech.encoder_inputs([features])
        if not hidden.requires_grad:
            hidden.requires_grad_()
        for block in graph.encoder:
            hidden = speech.block(block)(hidden, **arguments)
        encoded = speech.encoded(hidden, mask)
        hidden, arguments = speech.decoder_inputs(torch.tensor([tokens], device=speech.device), encoded)
        hidden.requires_grad_()
        hidden.register_hook(lambda gradients: embedded(gradients[0]))  # type: ignore[no-untyped-call]
        for block in graph.decoder:
            hidden = speech.block(block)(hidden, **arguments)
        states: Tensor = module.get_submodule(graph.decoder_norm)(hidden)[0]
    return states[-scored_tokens(speech, tokens) :]


def mean_squares(gradients: Tensor, groups: int) -> Tensor:
    """Mean square of each group of channels, [groups, rows], of ``gradients`` [rows, channels].

    Fewer groups, of one channel each, where there are not as many channels.
    """
    squares = gradients.float().square().T
    return torch.stack([each.mean(0) for each in squares.tensor_split(min(groups, len(squares)))])


def listener(groups: int, kept: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """Hook of a linear that keeps :func:`mean_squares` of its output's gradients, one clip after the other."""

    def keep(gradients: Tensor) -> None:
        kept.append(mean_squares(gradients[0], groups).bfloat16())  # whose exponents are float32's

    def listen(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(keep)  # type: ignore[no-untyped-call]

    return listen


def _normalised(saliencies: list[Tensor]) -> list[Tensor]:
    """[groups, rows] a clip, each group divided by its mean over all clips."""
    total = torch.stack([each.double().sum(1) for each in saliencies]).sum(0)
    mean = (total / sum(each.shape[1] for each in saliencies)).unsqueeze(1)
    shares = (torch.where(mean > 0, each / mean, 1.0) for each in saliencies)
    return [each.masked_fill(each < _NEGLIGIBLE, 0).bfloat16() for each in shares]
