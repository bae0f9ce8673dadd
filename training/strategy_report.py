"""The strategies of an evaluation for readers: a terminal table, a section of `report.md`, and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from training.metrics import Interval
from training.strategies import CASCADE, ENSEMBLE, HYBRID, ORACLE, ROUTE, Point, StrategyResult
from training.strategy_fits import LEVELS

CURVES = (ROUTE, CASCADE, HYBRID, ORACLE)
_HEADER = ("budget", *CURVES, f"{CASCADE} − {ROUTE}", f"{HYBRID} − better")


def terminal(results: Sequence[StrategyResult]) -> Group:
    """Tables for a terminal, one per benchmark."""
    parts: list[Any] = []
    for result in results:
        table = Table(title=_title(result), title_justify="left", header_style="bold", box=SIMPLE, pad_edge=False)
        for column in _HEADER:
            table.add_column(column, justify="right", no_wrap=True)
        for row in _rows(result):
            table.add_row(*(Text(cell.replace(" [", "\n[").replace(" at ", "\nat ")) for cell in row))
        parts += [table, *map(Text, _fixed(result))]
    return Group(*parts, Text(_legend(results[0]), style="dim"))


def markdown(results: Sequence[StrategyResult], plots: Sequence[str]) -> str:
    """The section of `report.md`; `plots` are names of PNG files beside it, one per benchmark."""
    lines = ["## Strategies", ""]
    for result, plot in zip(results, plots, strict=True):
        lines += [f"### {result.name}", "", _title(result), "", "| " + " | ".join(_HEADER) + " |"]
        lines += ["|---:|" + "---:|" * (len(_HEADER) - 1), *("| " + " | ".join(row) + " |" for row in _rows(result))]
        lines += ["", *(f"- {line}" for line in _fixed(result)), "", f"![]({plot})", ""]
    return "\n".join([*lines, _legend(results[0]), ""])


def document(results: Sequence[StrategyResult]) -> list[dict[str, Any]]:
    """For `report.json`: every number, unrounded."""

    def point(found: Point) -> dict[str, Any]:
        return {
            "quality": asdict(found.quality),
            "cost": asdict(found.cost),
            "strong_call_share": found.strong_call_share,
        }

    return [
        {
            "name": result.name,
            "prompts": result.prompts,
            "usd_per_million_tokens": dict(result.usd),
            "folds": result.folds,
            "router": result.router,
            "budgets": list(LEVELS),
            "curves": {name: [point(each) for each in points] for name, points in result.curves.items()},
            "fixed": {name: point(each) for name, each in result.fixed.items()},
            "gains": {
                f"{first} - {second}": [asdict(each) for each in gains]
                for (first, second), gains in result.gains.items()
            },
        }
        for result in results
    ]


def _rows(result: StrategyResult) -> Iterator[tuple[str, ...]]:
    for place, level in enumerate(LEVELS):
        points = {name: result.curves[name][place] for name in CURVES}
        better = max((ROUTE, CASCADE), key=lambda name: points[name].quality.value)
        yield (
            f"{level:.0%}",
            *(f"{_value(point.quality)} at {point.cost.value:.0%}" for point in points.values()),
            _signed(result.gains[CASCADE, ROUTE][place]),
            _signed(result.gains[HYBRID, better][place]),
        )


def _fixed(result: StrategyResult) -> Iterator[str]:
    for name, point in result.fixed.items():
        note = ": every model called, the ranker's best answer" if name == ENSEMBLE else ""
        yield f"{name}: quality {_value(point.quality)} at {point.cost.value:.1%}{note}"


def _title(result: StrategyResult) -> str:
    return (
        f"{result.name}: {result.prompts:,} prompts with {len(result.usd)} answers; every scorer (router "
        f"{result.router!r}) and "
        f"threshold fitted to the other {result.folds - 1} of {result.folds} folds"
    )


def _legend(result: StrategyResult) -> str:
    prices = ", ".join(f"${usd:g} ({model})" for model, usd in result.usd.items())
    return (
        "Budget: mean cost of all calls as a part of all-strong's, for which thresholds are fitted; after 'at', what "
        f"it came to. Costs: tokens of prompt and answer at {prices} per million. Brackets: 95 % by bootstrap over "
        f"prompts; differences are paired. 'better' is the better one of {ROUTE} and {CASCADE} at that budget. The "
        f"{ORACLE} knows which answers are right."
    )


def _value(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _signed(value: Interval) -> str:
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
