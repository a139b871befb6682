"""The project's page in Weights & Biases as code: which panels it has and what each shows.

Panels name figures of :mod:`src.tracking.keys` and settings of ``conf/`` only. What a page of W&B can draw is all that
is drawn: the front is the running minimum of the error rate, and tables of several runs are shown below each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from src.errors import UserError
from src.metrics import COSTS, WER
from src.tracking.keys import HEADLINES, METRICS, TABLES, require_known

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import PanelTypes
    from wandb_workspaces.workspaces import Section, Workspace

NAME = "Edge ASR"
_COLUMNS = ("wbits", "abits", "kvbits", "group_size")  # settings shown in the run table, before the headlines
_BY_METHOD = "method.name"  # in a run's configuration
_RATE = "WER or CER, %"  # evaluate/metric tells which: CER where the words of a language have no spaces between
_RUNS_SHOWN = 200  # W&B draws the first ten of a page's runs unless told otherwise


def build_workspace(entity: str, project: str, name: str = NAME) -> Workspace:
    """The page, not yet saved; needs neither network nor key.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces.workspaces import RunsetSettings, Workspace, WorkspaceSettings
    except ImportError:
        remedy = "Run pip install -e '.[dashboard]'"
        raise UserError("dashboard", "the package wandb-workspaces is not installed", remedy) from None

    columns = [*(f"config:{key}.value" for key in _COLUMNS), *(f"summary:{key}" for key in HEADLINES), "run:tags"]
    return Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[_error_rates(), _fronts(), _layers(), _runs()],
        settings=WorkspaceSettings(max_runs=_RUNS_SHOWN),
        runset_settings=RunsetSettings(pinned_columns=columns),
    )


def as_json(workspace: Workspace) -> dict[str, Any]:
    """What saving it would send: wandb-workspaces, which tells nobody else, is asked by a private name, here alone.

    Raises:
        UserError: it has no such name.
    """
    if not hasattr(workspace, "_to_model"):
        remedy = "Use the version of pyproject.toml, or save the page without --dry-run"
        raise UserError("dashboard", "this wandb-workspaces does not tell what it would save", remedy)
    view: dict[str, Any] = workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return view


def _error_rates() -> Section:
    from wandb_workspaces.reports.v2.interface import BarPlot, Config, LinePlot
    from wandb_workspaces.workspaces import Section

    wer, wbits = _figure("evaluate/wer"), _figure("evaluate/wbits")
    against_bits = LinePlot(
        title="Error rate against weight bits, by method",
        x=wbits,
        y=[wer],
        title_x="weight bits",
        title_y=_RATE,
        groupby=Config(_BY_METHOD),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=_RUNS_SHOWN,
    )
    by_method = BarPlot(
        title="Error rate minus full precision's, by method",
        metrics=[_figure("evaluate/versus_fp_difference")],
        title_x="percentage points, mean",
        groupby=Config(_BY_METHOD),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        max_runs_to_show=_RUNS_SHOWN,
    )
    return Section(name=f"Error rate: {_RATE}", panels=[against_bits, by_method], is_open=True)


def _fronts() -> Section:
    from wandb_workspaces.workspaces import Section

    panels = [_front(cost.name, cost.label.partition(",")[0]) for cost in COSTS if cost.heading]
    return Section(name="Error rate against cost (Pareto front)", panels=panels, is_open=True)


def _front(cost: str, title: str) -> PanelTypes:
    from wandb_workspaces.reports.v2.interface import Config, ScatterPlot, SummaryMetric

    return ScatterPlot(
        title=f"{_RATE} against {title}",
        x=SummaryMetric(cost),
        y=SummaryMetric(WER.name),
        z=Config("wbits"),  # the points' colour
        running_ymin=True,
    )


def _layers() -> Section:
    from wandb_workspaces.reports.v2.interface import BarPlot, Config, CustomChart, WeavePanelSummaryTable
    from wandb_workspaces.workspaces import Section

    layers = _table("quantize/layers")
    by_method = BarPlot(
        title="Mean output error of the layers, by method",
        metrics=[_figure("quantize/mean_output_error")],
        groupby=Config(_BY_METHOD),
        groupby_aggfunc="mean",
        max_runs_to_show=_RUNS_SHOWN,
    )
    each = CustomChart(
        query={"summaryTable": {"tableKey": layers}},
        chart_name="wandb/bar/v0",
        chart_fields={"label": "linear", "value": "output_error"},
        chart_strings={"title": "Output error of each layer"},
    )
    return Section(
        name="Error by layer", panels=[by_method, each, WeavePanelSummaryTable(table_name=layers)], is_open=True
    )


def _runs() -> Section:
    from wandb_workspaces.reports.v2.interface import RunComparer, WeavePanelSummaryTable
    from wandb_workspaces.workspaces import Section

    tables = [WeavePanelSummaryTable(table_name=_table(name)) for name in ("evaluate/worst", "evaluate/members")]
    return Section(name="Runs", panels=[RunComparer(diff_only="split"), *tables], is_open=True)


def _figure(name: str) -> str:
    require_known([name], METRICS)
    return name


def _table(name: str) -> str:
    require_known([name], TABLES)
    return name
