"""The page of panels: what it shows, checked without a server."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from commands import run
from omegaconf import OmegaConf

from src.errors import UserError
from src.project import ROOT
from src.tracking.keys import HEADLINES, METRICS, TABLES, as_markdown
from src.tracking.workspace import as_json, build_workspace
from tests.composed import composed


def panels() -> dict[str, dict[str, object]]:
    """Configuration of the panels that have a title, by it."""
    sections = as_json(build_workspace("team", "project"))["spec"]["section"]["panelBankConfig"]["sections"]
    configs = [panel["config"] for section in sections for panel in section["panels"]]
    return {config["chartTitle"]: config for config in configs if config.get("chartTitle")}


def test_wer_against_bits_is_one_line_a_method() -> None:
    panel = panels()["Error rate against weight bits, by method"]
    assert (panel["xAxis"], panel["metrics"]) == ("evaluate/wbits", ["evaluate/wer"])
    assert (panel["groupBy"], panel["aggregate"]) == ("method.value.name", True)
    assert composed("method=awq").method["name"] == "awq"  # what a run's configuration has there


def test_fronts_are_the_lowest_wer_at_each_cost() -> None:
    fronts = {title: panel for title, panel in panels().items() if title.startswith("WER or CER, % against ")}
    axes = {(front["xAxis"], front["yAxis"]) for front in fronts.values() if front.get("showMinYAxisLine")}
    assert axes == {(f"summary:{cost}", "summary:wer") for cost in ("disk_bytes", "memory_io_bytes", "bops")}


def test_the_run_table_shows_settings_and_headlines() -> None:
    feed = as_json(build_workspace("team", "project"))["spec"]["section"]["runSets"][0]["runFeed"]
    settings = composed().model_dump()
    shown = [column.partition(":")[::2] for column in feed["columnOrder"]]
    assert {name for kind, name in shown if kind == "summary"} == HEADLINES.keys()
    assert all(name.removesuffix(".value") in settings for kind, name in shown if kind == "config")


def test_layers_are_shown_by_their_table() -> None:
    spec = json.dumps(as_json(build_workspace("team", "project")))
    for table in ("quantize/layers", "evaluate/worst", "evaluate/members"):
        assert table in TABLES
        assert f'"{table}"' in spec


def test_the_command_needs_no_network_to_show_the_page() -> None:
    project = OmegaConf.load(ROOT / "conf" / "tracking" / "wandb.yaml").project
    shown = run("src.dashboard", "--entity", "team", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    page = json.loads(shown.stdout)
    assert (page["entity"], page["project"], page["displayName"]) == ("team", project, "Edge ASR")


def test_a_page_belongs_to_somebody() -> None:
    refused = run("src.dashboard")
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith("Add --entity NAME, or set WANDB_ENTITY.")


def test_every_figure_is_explained() -> None:
    listed = as_markdown()
    for name, meaning in {**HEADLINES, **METRICS, **TABLES}.items():
        assert meaning
        assert f"| `{name}` | {meaning} |" in listed
    assert {line.count("|") for line in listed.splitlines() if line} == {3}  # two cells, as Markdown reads them


def test_what_would_be_saved_is_asked_by_a_private_name() -> None:
    assert hasattr(build_workspace("team", "project"), "_to_model")
    with pytest.raises(UserError, match="does not tell what it would save"):
        as_json(SimpleNamespace())
