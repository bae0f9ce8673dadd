"""Panels as this project draws them: one datasource variable, a unit and a description on each, legends that add up."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        title, description: what it shows, and what to make of it.
        unit: a Grafana unit id: `percentunit`, `currencyUSD`, `s`, `short`, `reqps`, …
        queries: PromQL and legend of each series.
        kind: `series`, `stacked`, `stat` or `bars`.
        span: columns of the 24.
        thresholds: values from which green turns yellow and red.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: str = "series"
    span: int = 8
    thresholds: tuple[float, float] | None = None
    maximum: float | None = None


def dashboard(
    *, uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]], tenant: str = ""
) -> models.Dashboard:
    """A dashboard of rows of panels.

    Args:
        uid: stable: links and bookmarks hold it.
        tenant: `one` or `many`: whether `$tenant` is a variable, and how many it takes; empty: no variable.
    """
    board = (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["pointsman"])
        .timezone("utc")
        .refresh("1m")
        .time("now-6h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            builders.DashboardLink("Pointsman")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["pointsman"])
            .icon("external link")
            .tooltip("The other dashboards of Pointsman")
            .as_dropdown(False)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(
            builders.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .multi(False)
            .include_all(False)
        )
    )
    if tenant:
        board = board.with_variable(
            builders.QueryVariable("tenant")
            .label("Tenant")
            .datasource(DATASOURCE)
            .query("label_values(pointsman_dispatcher_decisions_total, tenant)")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(tenant == "many")
            .include_all(tenant == "many")
            .all_value(".*" if tenant == "many" else "")
        )
    number = 0
    for row, panels in rows:
        board = board.with_row(builders.Row(row))
        for panel in panels:
            number += 1
            board = board.with_panel(_built(panel, number))
    return board.build()


def _built(panel: Panel, number: int) -> timeseries.Panel | stat.Panel | bargauge.Panel:
    builder = {
        "series": timeseries.Panel,
        "stacked": timeseries.Panel,
        "stat": stat.Panel,
        "bars": bargauge.Panel,
    }[panel.kind]()
    built = (
        builder.id(number)
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(DATASOURCE)
        .height(HEIGHT if panel.kind != "stat" else HEIGHT // 2)
        .span(panel.span)
        .no_value("no data")
    )
    if panel.maximum is not None:
        built = built.min(0).max(panel.maximum)
    elif panel.unit != "currencyUSD":  # savings may be negative
        built = built.min(0)
    low, high = panel.thresholds or (None, None)
    steps = [models.Threshold(color="green", value=None)]
    if low is not None:
        steps += [models.Threshold(color="yellow", value=low), models.Threshold(color="red", value=high)]
    built = built.thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.kind in ("series", "stacked"):
        built = (
            built.legend(
                common.VizLegendOptions()
                .display_mode(LegendDisplayMode.TABLE)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs(["lastNotNull", "max"])
            )
            .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
            .fill_opacity(60 if panel.kind == "stacked" else 8)
            .line_width(1)
        )
        if panel.kind == "stacked":
            built = built.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    else:
        built = built.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    if panel.kind == "stat":
        built = built.color_mode(BigValueColorMode.VALUE if panel.thresholds else BigValueColorMode.NONE)
    for index, (expression, legend) in enumerate(panel.queries):
        built = built.with_target(
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + index))
            .datasource(DATASOURCE)
            .expr(expression)
            .legend_format(legend)
        )
    return built
