"""An evaluation for readers: a terminal table, `report.md`, `report.json`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from dispatcher_service.routing import NEVER_STRONG
from training import published, strategy_report
from training.calibrate import DialPoint
from training.evaluate import ArtifactResult, BenchmarkResult
from training.metrics import CPT_LEVELS, RANDOM_RUNS, SHARES, Interval
from training.published import PublishedRow
from training.rankings import Prices, Ranking
from training.strategies import StrategyResult

_HEADER = (
    "router",
    "APGR",
    *(f"CPT({level:.0%})" for level in CPT_LEVELS),
    *(f"saved at {level:.0%}" for level in CPT_LEVELS[1:]),
    "Brier skill",
    "ECE [chance]",
)
_NOTHING = "–"


@dataclass(frozen=True, slots=True)
class Report:
    """Results of one run of `pointsman evaluate`, with what is needed to repeat it."""

    results: tuple[BenchmarkResult, ...]
    prices: Prices
    draws: int
    seed: int
    strategies: tuple[StrategyResult, ...] = ()
    """Of the benchmarks that hold both models' answers, if they were asked for."""


def terminal(report: Report) -> Group:
    """Tables for a terminal: one per benchmark, and one of the paired differences."""
    parts: list[Any] = []
    for result in report.results:
        table = Table(title=_title(result), title_justify="left", header_style="bold", box=SIMPLE, pad_edge=False)
        for column, name in enumerate(_HEADER):
            table.add_column(
                name.replace(" at ", "\nat "), justify="left" if column == 0 else "right", no_wrap=column > 0
            )
        for row in _rows(result):
            # An interval goes under its value: side by side, the columns would need 200 characters.
            table.add_row(*(Text(cell.replace(" [", "\n[")) for cell in row))
        parts.append(table)
        parts += [Text(f"! {name} {warning}", style="yellow") for name, warning in _warnings(result)]
        parts += [Text(line) for line in _comparisons(result)]
    parts.append(Text(_legend(report), style="dim"))
    if report.strategies:
        parts.append(strategy_report.terminal(report.strategies))
    return Group(*parts)


def markdown(report: Report, plots: Mapping[str, Sequence[str]], strategy_plots: Sequence[str] = ()) -> str:
    """`report.md`.

    Args:
        report: to write.
        plots: benchmark -> names of the PNG files beside the report.
        strategy_plots: names of those of the strategies, one per result.
    """
    lines = ["# Evaluation", ""]
    for result in report.results:
        lines += [f"## {result.name}", "", _title(result), "", _markdown_row(_HEADER)]
        lines.append("|---|" + "---:|" * (len(_HEADER) - 1))
        lines += [*map(_markdown_row, _rows(result)), ""]
        lines += [f"> **{name}** {warning}.\n" for name, warning in _warnings(result)]
        lines += [f"- {line}" for line in _comparisons(result)]
        lines += ["", *(f"![]({plot})" for plot in plots.get(result.name, ())), ""]
    written = "\n".join([*lines, _legend(report), ""])
    if report.strategies:
        written += "\n" + strategy_report.markdown(report.strategies, strategy_plots)
    return written


def document(report: Report) -> str:
    """`report.json`: every number of the report, unrounded."""
    content = {
        "prices_usd_per_million_tokens": asdict(report.prices),
        "bootstrap": {"draws": report.draws, "seed": report.seed, "interval": 0.95},
        "benchmarks": [_benchmark(result) for result in report.results],
        **({"strategies": strategy_report.document(report.strategies)} if report.strategies else {}),
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def dial(points: Sequence[DialPoint]) -> Group:
    """A table of dial settings for a terminal."""
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("share", "α here", "gives", "artefact's α", "gives here", "expected PGR", "net loss to all-strong"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in points:
        cells = (
            f"{point.strong_call_share:.0%}",
            _alpha(point.alpha),
            f"{point.realised_share:.1%}",
            "above 1" if point.artifact_alpha == NEVER_STRONG else f"{point.artifact_alpha:.4f}",
            f"{point.artifact_share:.1%}",
            _percent(point.pgr) if np.isfinite(point.pgr.value) else "no gap expected",
            _percent(point.net_loss, digits=1),
        )
        table.add_row(*map(Text, cells))
    legend = (
        "95 % intervals over samples of such prompts, if the probabilities are calibrated for them. Expected PGR: part "
        "of the quality gap that is recovered. Net loss: prompts on which the strong answer would have been better "
        "less those on which it would have been worse, of all, where the weak one answers."
    )
    return Group(table, Text(legend, style="dim"))


def _rows(result: BenchmarkResult) -> Iterator[tuple[str, ...]]:
    for artifact in result.artifacts:
        yield _ranking(artifact.ranking, artifact)
    for baseline in result.baselines:
        yield _ranking(baseline)
    for row in published.rows(result.name):
        yield _published(row)


def _ranking(ranking: Ranking, artifact: ArtifactResult | None = None) -> tuple[str, ...]:
    calibration = (_NOTHING, _NOTHING)
    if artifact is not None:
        found = artifact.calibration
        calibration = (_signed(found.skill), f"{found.plot.error:.4f} [{found.error_by_chance:.4f}]")
    return (
        ranking.name + (" !" if artifact is not None and artifact.warnings else ""),
        _number(ranking.apgr),
        *map(_percent, ranking.cpt),
        *map(_percent, ranking.saved[1:]),
        *calibration,
    )


def _published(row: PublishedRow) -> tuple[str, ...]:
    name = f"paper: {row.router} [{row.labels}]"
    return name, f"{row.apgr:.3f}", _NOTHING, f"{row.cpt50:.1%}", f"{row.cpt80:.1%}", *[_NOTHING] * 4


def _title(result: BenchmarkResult) -> str:
    return (
        f"{result.name}: {result.prompts:,} labelled prompts; quality {result.strong_quality:.4g} strong, "
        f"{result.weak_quality:.4g} weak; strong better {result.wins:.1%}, equal {result.ties:.1%}, "
        f"weak better {result.losses:.1%}"
    )


def _warnings(result: BenchmarkResult) -> Iterator[tuple[str, str]]:
    for artifact in result.artifacts:
        for warning in artifact.warnings:
            yield artifact.ranking.name, warning


def _comparisons(result: BenchmarkResult) -> Iterator[str]:
    for comparison in result.comparisons:
        yield (
            f"{comparison.first} less {comparison.second}: APGR {_signed(comparison.apgr)}, "
            f"CPT(80%) {_signed(comparison.cpt80, percent=True)} (paired)"
        )


def _legend(report: Report) -> str:
    return (
        f"95 % intervals from {report.draws:,} bootstrap draws of the prompts (seed {report.seed}), those that begin "
        f"alike together; {RANDOM_RUNS} runs for random, whose intervals are where single runs fall. CPT(x): share of "
        "strong calls that recovers x of the gap. Saved: cost beside random routing of the same quality, at "
        f"${report.prices.strong:g} and ${report.prices.weak:g} per million tokens. Brier skill: above 0 beats these "
        "labels' own mean. ECE: equal-mass calibration error, and what a perfect predictor exceeds 1 time in 20. "
        f"Paper: {published.SOURCE}."
    )


def _number(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _percent(value: Interval, digits: int = 0) -> str:
    return f"{value.value:.1%} [{100 * value.low:.{digits}f}, {100 * value.high:.{digits}f}]"


def _alpha(value: Interval) -> str:
    if value.value == NEVER_STRONG:
        return "above 1"
    return f"{value.value:.4f} [{value.low:.4f}, {value.high:.4f}]"


def _signed(value: Interval, *, percent: bool = False) -> str:
    if percent:
        return f"{value.value:+.1%} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _benchmark(result: BenchmarkResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "prompts": result.prompts,
        "strong_quality": result.strong_quality,
        "weak_quality": result.weak_quality,
        "strong_better": result.wins,
        "equal": result.ties,
        "weak_better": result.losses,
        "artifacts": [
            {
                **_ranking_document(artifact.ranking),
                "kind": artifact.kind,
                "version": artifact.version,
                "warnings": artifact.warnings,
                "brier": artifact.calibration.brier,
                "brier_skill": artifact.calibration.skill,
                "calibration_error": artifact.calibration.plot.error,
                "calibration_error_by_chance_95": artifact.calibration.error_by_chance,
                "reliability": {
                    "predicted": artifact.calibration.plot.predicted.tolist(),
                    "observed": artifact.calibration.plot.observed.tolist(),
                    "prompts": artifact.calibration.plot.prompts.tolist(),
                },
            }
            for artifact in result.artifacts
        ],
        "baselines": [_ranking_document(baseline) for baseline in result.baselines],
        "comparisons": [asdict(comparison) for comparison in result.comparisons],
        "published": [asdict(row) for row in published.rows(result.name)],
    }


def _ranking_document(ranking: Ranking) -> dict[str, Any]:
    def by_level(values: Sequence[Interval]) -> dict[str, Interval]:
        return {f"{level:.1f}": value for level, value in zip(CPT_LEVELS, values, strict=True)}

    return {
        "name": ranking.name,
        "apgr": ranking.apgr,
        "cpt": by_level(ranking.cpt),
        "cost_saved": by_level(ranking.saved),
        "pgr": {f"{share:.1f}": value for share, value in zip(SHARES, ranking.pgr, strict=True)},
    }


def _plain(value: Any) -> Any:
    """For JSON, which has no NaN: an undefined number is null."""
    match value:
        case Interval():
            return _plain(asdict(value))
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if value != value:  # noqa: PLR0124 - NaN
            return None
    return value
