"""Quantizing that was killed goes on from the last finished block and ends with the same bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from src.calib.task import BlockTask
from src.lowbit.granularity import WeightSpec
from src.methods.apply import Quantizer
from src.methods.base import Method, Transformed
from src.methods.block_journal import BlockJournal
from src.methods.build import build_method
from src.methods.workbench import Workbench
from src.models.speech import SpeechModel
from src.project import ROOT
from src.quant.checkpoint import leftover_tensors, save_weights
from src.quant.ends import RoundedEnds
from src.settings import Settings
from tests.calib.clips import noise_calibration
from tests.composed import composed
from tests.tiny import tiny_moonshine, tiny_whisper

BUILDERS = {
    "sandbox_whisper": lambda: tiny_whisper(encoder_layers=1, decoder_layers=1),
    "sandbox_moonshine": lambda: tiny_moonshine(encoder_num_hidden_layers=1, decoder_num_hidden_layers=1),
}
WHISPER, MOONSHINE = BUILDERS
BLOCKS = 2
SHORT = {  # what takes long, made short
    "budget": ["method.widths=[2,8]"],
    "distill": ["method.epochs=2", "method.copies=1"],
    "autoround": ["method.steps=2"],
    "flatquant": ["method.epochs=1"],
    "omniquant": ["method.epochs=1"],
    "osplus": ["method.steps=2"],
    "osplus_gptq": ["method.steps=2"],
    "spinquant": ["method.iterations=2"],
    "spinquant_rtn": ["method.iterations=2"],
    "tesseraq": ["method.steps=1", "method.thresholds=[0.5,0.1]"],
    "tesseraq_omniquant": ["method.steps=1", "method.thresholds=[0.5]", "method.start.epochs=1"],
    "awq_module": ["method.steps=3"],
}
MORE = {  # other ways in which blocks depend on what precedes them
    "full precision before it": (MOONSHINE, ["method=gptq", "calib.propagate=fp"]),
    "scales divided out of statistics": (WHISPER, ["method=smoothquant", "bits=w4a4", "activation.range=static"]),
    "static inputs and cache": (WHISPER, ["method=gptq", "bits=w4a4kv4", "activation.range=static"]),
    "no transform that acts": (WHISPER, ["method=omniquant", "method.epochs=1", "bits=w4a16"]),
    "a rotated model learns": (MOONSHINE, ["method=distill", "method@method.start=quarot", *SHORT["distill"]]),
    "planned ends": (WHISPER, ["method=budget", "scope=everything", "method@ends=gptq"]),
    "rotated cache": (WHISPER, ["method=quarot", "bits=w4a4kv4"]),
}


def calibrated() -> dict[str, tuple[str, list[str]]]:
    """Every method that reads calibration clips or transforms the model; new ones too."""
    names = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
    methods = {name: build_method(composed(f"method={name}").method) for name in names}
    chosen = [name for name, method in methods.items() if method.needs.calibration or method.needs.transforms]
    bits = {name: "w4a4" if number % 2 else "w4a16" for number, name in enumerate(chosen)}
    bits |= dict.fromkeys(("flatquant", "omniquant", "osplus", "spinquant", "quarot"), "w4a4")
    return {
        name: ((WHISPER, MOONSHINE)[number // 2 % 2], [f"method={name}", f"bits={bits[name]}", *SHORT.get(name, [])])
        for number, name in enumerate(chosen)
    }


KINDS = {**calibrated(), **MORE}


class Killed(Exception):  # noqa: N818
    """Stands for the end of the process."""


@dataclass
class Made:
    """What a run made.

    Attributes:
        file: bytes of the checkpoint.
        rows: the layer table.
        transforms: how often the model was transformed, and grids planned.
        blocks: paths of the blocks worked on.
        expected_nats: what the plan foretells, if anything.
    """

    file: bytes = b""
    rows: list[dict[str, Any]] = field(default_factory=list)
    transforms: int = 0
    blocks: list[str] = field(default_factory=list)
    expected_nats: float | None = None


Moment = Callable[[str], None]  # is told of everything that happens


def at(moment: str) -> Moment:
    """Dies there."""

    def die(what: str) -> None:
        if what == moment:
            raise Killed

    return die


def quantize(settings: Settings, folder: Path, dies: Moment = lambda _: None, *, nudged: bool = False) -> Made:
    """Quantizes a tiny model; ``nudged``: with a transform and a plan that come out different."""
    speech: SpeechModel = BUILDERS[settings.model.name]()
    method, made = build_method(settings.method), Made()
    kind: type[Any] = type(method)
    fit, transform, plan, ends = kind.fit_block, kind.transform, kind.plan, RoundedEnds.round
    folder.mkdir(exist_ok=True)

    def transformed(self: Method, bench: Workbench) -> Transformed:
        made.transforms += 1
        found: Transformed = transform(self, bench)
        if nudged:
            with torch.no_grad():
                for parameter in bench.module.parameters():
                    parameter.mul_(1.01)
        dies("transform")
        return found

    def planned(self: Method, bench: Workbench) -> dict[str, WeightSpec | None]:
        found: dict[str, WeightSpec | None] = plan(self, bench)
        dies("plan")
        return dict.fromkeys(found, WeightSpec(8, -1, False)) if nudged else found

    def fitted(self: Method, bench: Workbench, task: BlockTask) -> Any:
        dies("block")
        made.blocks.append(task.block.path)
        return fit(self, bench, task)

    def rounded(self: RoundedEnds) -> None:
        ends(self)
        dies("ends")

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, new in (
            (kind, "transform", transformed),
            (kind, "plan", planned),
            (kind, "fit_block", fitted),
            (RoundedEnds, "round", rounded),
        ):
            patch.setattr(owner, name, new)
        quantizer = Quantizer(speech, method, settings, noise_calibration(speech, 2), journal=BlockJournal(folder))
        quantizer.run()
    leftovers = leftover_tensors(speech.module, quantizer.weights)
    save_weights(folder / "whole", quantizer.weights, leftovers, quantizer.edits, quantizer.inputs)
    made.file, made.rows = (folder / "whole").read_bytes(), quantizer.rows
    made.expected_nats = quantizer.expected_nats
    return made


@pytest.fixture
def two_threads() -> Iterator[Callable[[], None]]:
    """Gives torch a second thread until the end of the test."""
    threads = torch.get_num_threads()
    yield lambda: torch.set_num_threads(threads + 1)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_the_resumed_model_has_the_bytes_of_an_unbroken_one(
    tmp_path: Path, kind: str, two_threads: Callable[[], None]
) -> None:
    """Though a second transform and plan would come out different, and there are more threads.

    Files are written one after the other: those of a run that was killed are the first of an unbroken one's.
    """
    model, overrides = KINDS[kind]
    settings = composed(f"model={model}", *overrides)
    whole = quantize(settings, tmp_path)
    lines = (tmp_path / "blocks.progress").read_bytes().splitlines(keepends=True)
    (tmp_path / "blocks.progress").write_bytes(b"".join(lines[:3]))  # basis, what precedes the blocks, one block
    two_threads()
    again = quantize(settings, tmp_path, nudged=True)
    assert (again.transforms, len(again.blocks)) == (0, BLOCKS - 1)
    assert again.file == whole.file
    assert again.rows == whole.rows
    assert again.expected_nats == whole.expected_nats


def test_a_transform_that_comes_out_different_gives_another_model(tmp_path: Path) -> None:
    """What the test above rests on."""
    settings = composed("model=sandbox_whisper", "method=quarot_rtn", "bits=w4a4")
    assert quantize(settings, tmp_path / "one").file != quantize(settings, tmp_path / "other", nudged=True).file


@pytest.mark.parametrize("moment", ["transform", "plan", "block", "ends"])
@pytest.mark.parametrize("overrides", [["method=quarot"], ["method=myqasr_gptq", "calib.propagate=fp"]])
def test_a_kill_at_any_moment_changes_nothing(tmp_path: Path, overrides: list[str], moment: str) -> None:
    """Ends are rounded before the blocks or after them, as ``calib.propagate`` says."""
    settings = composed("model=sandbox_whisper", "wbits=3", "head_bits=4", *overrides)
    whole = quantize(settings, tmp_path / "unbroken")
    with pytest.raises(Killed):
        quantize(settings, tmp_path / "resumed", at(moment))
    again = quantize(settings, tmp_path / "resumed")
    assert again.transforms == (0 if moment in ("block", "ends") else 1)
    assert (again.file, again.rows) == (whole.file, whole.rows)


def files(folder: Path) -> dict[str, Path]:
    """The files of a journal in the order in which they came, the journal itself last."""
    journal = folder / "blocks.progress"
    names = [json.loads(line.partition(" ")[2])["name"] for line in journal.read_text().splitlines()[1:]]
    return {name: folder / f"{name}.safetensors.progress" for name in names} | {"journal": journal}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, Made]:
    """A run that died when all blocks were done."""
    settings = composed("model=sandbox_whisper", "method=smoothquant", "bits=w4a8", "calib.propagate=fp")
    folder = tmp_path_factory.mktemp("finished")
    return settings, folder, quantize(settings, folder)


@pytest.mark.parametrize(
    ("which", "damage"),
    [(0, "edited"), (0, "empty"), (1, "cut"), (1, "folder"), (2, "absent"), (2, "edited"), (3, "edited"), (3, "cut")],
)
def test_what_followed_a_damaged_file_is_made_again(
    finished: tuple[Settings, Path, Made], tmp_path: Path, which: int, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings, folder, whole = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    name, file = list(files(tmp_path).items())[which]
    content = file.read_bytes()
    middle = len(content) // 2
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "absent":
        edited = content[:middle] + b"~" + content[middle + 1 :]
        file.write_bytes({"cut": content[:-8], "empty": b"", "edited": edited}[damage])
    again = quantize(settings, tmp_path)
    if name != "journal":
        assert "absent or damaged" in caplog.text
        assert (again.transforms, len(again.blocks)) == (which == 0, BLOCKS - max(which - 1, 0))
    assert (again.file, again.rows) == (whole.file, whole.rows)


def test_blocks_of_other_settings_are_not_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    speech = tiny_whisper()
    block = speech.graph.blocks[0]
    first = BlockJournal(tmp_path, {"batch_size": 16})
    first.keep(block, speech.module, {}, [], {}, [])
    assert BlockJournal(tmp_path, {"batch_size": 16}).holds(block)
    assert not BlockJournal(tmp_path, {"batch_size": 8}).holds(block)
    assert "was begun with other batch_size (16, now 8)" in caplog.text
