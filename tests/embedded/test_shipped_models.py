"""The real models that ship: what the command makes of their authors' weights, whole, with their licences."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.embedded.shrink import named_model, shrink
from src.errors import UserError
from src.models.loading import load_graph, model_identity
from src.project import ROOT

MADE_OF = {"embedded_whisper": "whisper_tiny_en_package", "embedded_moonshine": "moonshine_tiny_package"}


@pytest.mark.parametrize("name", MADE_OF)
def test_the_shipped_files_are_what_the_command_makes(name: str, tmp_path: Path) -> None:
    original = named_model(MADE_OF[name])
    try:
        model_identity(original)
    except UserError as error:
        pytest.skip(str(error))
    shrink(original, tmp_path)
    shipped = ROOT / named_model(name).source
    made = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert made == {file: (shipped / file).read_bytes() for file in made}
    assert {file.name for file in shipped.iterdir()} == {*made, "LICENSE"}
    assert load_graph(named_model(name)) == load_graph(original)  # whole


@pytest.mark.parametrize("name", MADE_OF)
def test_records_say_that_the_baseline_is_rounded(name: str) -> None:
    settings = named_model(name)
    assert model_identity(settings)["rounded"] == "weights rounded to 8 bits by this project: the baseline is that"
    assert "MIT License" in (ROOT / settings.source / "LICENSE").read_text()
