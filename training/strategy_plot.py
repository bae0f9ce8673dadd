"""The picture of a comparison of strategies: quality against the cost of all calls."""

from pathlib import Path

from training import plots
from training.strategies import ORACLE, StrategyResult
from training.strategy_report import CURVES


def draw(result: StrategyResult, folder: Path) -> str:
    """Write the picture of quality against cost into `folder`; returns its name."""
    figure, axes = plots.canvas()
    for name in CURVES:
        points = result.curves[name]
        costs, qualities = [point.cost.value for point in points], [point.quality.value for point in points]
        (line,) = axes.plot(costs, qualities, "--" if name == ORACLE else "-o", markersize=3, label=name)
        if name != ORACLE:
            bands = [point.quality.low for point in points], [point.quality.high for point in points]
            axes.fill_between(costs, *bands, color=line.get_color(), alpha=0.12, linewidth=0)
    for name, marker in zip(result.fixed, "vs*", strict=True):
        point = result.fixed[name]
        axes.plot(point.cost.value, point.quality.value, marker, color="black", label=name)
    axes.set_xlabel("cost of all calls, as a part of all-strong's")
    axes.set_ylabel("quality of the answers given")
    axes.legend(loc="lower right")
    return plots.save(figure, axes, folder, f"{result.name}-strategies", f"{result.name}: {result.prompts:,} prompts")
