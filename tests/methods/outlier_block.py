"""One encoder block of a tiny Whisper with outlying channels, from a seed alone; the golden files were made from it."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from src.calib.task import BlockInput, BlockTask
from src.lowbit.granularity import WeightSpec
from src.methods.workbench import Workbench
from src.models.speech import SpeechModel
from tests.tiny import tiny_whisper

CLIPS, FRAMES, WIDTH = 4, 64, 64


def outlier_block(seed: int) -> tuple[SpeechModel, BlockTask]:
    """A Whisper whose first encoder block has drawn weights, and that block with drawn inputs.

    Norm weights spread over two orders of magnitude and norm biases are as large, so that channels differ in size and
    are not centred.
    """
    generator = torch.Generator().manual_seed(seed)
    speech = tiny_whisper()
    block = speech.graph.encoder[0]
    module = speech.block(block)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(drawn.exp() if name.endswith("weight") else drawn)
            else:
                parameter.copy_(0.15 * drawn)
    hidden = torch.randn(CLIPS, FRAMES, WIDTH, generator=generator)
    valid = torch.ones(CLIPS, FRAMES, dtype=torch.bool)
    return speech, BlockTask(block, module, [BlockInput(hidden, {"attention_mask": None}, valid)])


def bench_for(speech: SpeechModel, spec: WeightSpec, abits: int = 16) -> Workbench:
    """A workbench without calibration clips; every linear in scope."""
    paths = [linear.path for linear in speech.graph.linears]
    return Workbench(speech, dict.fromkeys(paths, spec), dict.fromkeys(paths, abits), 16, None, 0)


@torch.no_grad()
def inputs_of(task: BlockTask, names: list[str]) -> dict[str, Tensor]:
    """What the linears called ``names`` (relative to the block) read, [clips, frames, in]."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}  # a call a part of the batch
    handles = [
        task.module.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: seen[name].append(given[0])
        )
        for name in names
    ]
    task.outputs()
    for handle in handles:
        handle.remove()
    return {name: torch.cat(calls) for name, calls in seen.items()}


def sha256_drawn(seed: int) -> str:
    """Of what torch draws first by ``seed``; what is computed from that differs in the last bits between processors."""
    return hashlib.sha256(torch.randn(256, generator=torch.Generator().manual_seed(seed)).numpy().tobytes()).hexdigest()
