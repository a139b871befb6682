"""What every family owes the runtimes: each holds its models to the last bit, or refuses them in words.

A family takes part by itself, with the checkpoint that ``tests/tiny`` declares.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from src.errors import UserError
from src.export.build import RUNTIMES, build_runtime
from src.export.onnx_generate import Recogniser
from src.models.families import FAMILIES
from src.stages.export import Export
from src.stages.point import Point
from tests.export.exporting import export, opened, quantized, tiny_model
from tests.tiny import TINY

CLIPS = [np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32) for samples in (31_999, 16_000, 9_017)]
TOKENS = [9, 4, 33, 60, 7]


def point_of(family: str, runtime: str, folder: Path, *overrides: str) -> Point:
    """The family's checkpoint at 4 bits; skips what the runtime does not hold, once it has been refused in words."""
    made = tiny_model(family, TINY[family].checkpoint(folder / "checkpoint"))
    point = opened(folder, f"export={runtime}", *made, "method=rtn", "wbits=4", "group_size=32", *overrides)
    if reason := build_runtime(point.settings.export).lacks(point.settings.model):
        with pytest.raises(UserError, match=r"Use export=\w+") as caught:
            Export().check(point)
        assert caught.value.problem == f"{runtime} {reason}"
        pytest.skip(caught.value.problem)
    return point


@pytest.mark.parametrize("family", TINY)
def test_graphs_compute_what_the_quantized_model_computes(family: str, tmp_path: Path) -> None:
    point = point_of(family, "onnx", tmp_path)
    recogniser, speech = Recogniser(export(point), threads=1), quantized(point)
    tokens = torch.tensor([[*speech.prompt, *TOKENS]] * len(CLIPS))
    with torch.inference_mode():
        expected = speech.logits(speech.features(CLIPS), tokens)[:, -1]
    found = recogniser.step(tokens.numpy(), recogniser.start(recogniser.encode(CLIPS)))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("family", TINY)
def test_transformers_loads_the_weights_that_were_evaluated(family: str, tmp_path: Path) -> None:
    """As its own module has them; prepared for methods, they are those of the quantized model.

    Older versions of transformers leave scales beside the weights.
    """
    point = point_of(family, "compressed_tensors", tmp_path)
    loaded, report = FAMILIES[family].module.from_pretrained(export(point), output_loading_info=True)
    assert not any(report.values())
    FAMILIES[family].prepare(loaded)
    ours, theirs = quantized(point).module.state_dict(), loaded.state_dict()
    assert ours.keys() - theirs.keys() == set()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("family", TINY)
def test_a_refusal_offers_what_holds_the_family(family: str, runtime: str, tmp_path: Path) -> None:
    """Or says that nothing does, and what is offered is not refused."""
    made = tiny_model(family, TINY[family].checkpoint(tmp_path / "checkpoint"))
    plain = (*made, "method=rtn", "wbits=4", "group_size=32")
    try:
        Export().check(opened(tmp_path, f"export={runtime}", *plain))
    except UserError as refusal:
        if refusal.remedy.startswith("Use export=none"):
            model = opened(tmp_path, "export=none", *plain).settings.model
            assert all(each.lacks(model) for each in RUNTIMES.values())
        else:
            Export().check(opened(tmp_path, refusal.remedy.removeprefix("Use "), *plain))
