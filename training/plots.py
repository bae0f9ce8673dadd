"""The pictures of an evaluation: PGR against the strong-call share, reliability, and where the scores lie."""

import re
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # Before pyplot: a server has no display.

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluate import ORACLE, BenchmarkResult
from training.metrics import SHARES
from training.rankings import RANDOM, Ranking

_SIZE = (7.0, 5.0)


def draw(result: BenchmarkResult, folder: Path) -> list[str]:
    """Write the PNG files of one benchmark into `folder`. Returns their names."""
    written = []
    for name, paint in (("pgr", _pgr), ("reliability", _reliability), ("scores", _scores)):
        figure, axes = canvas()
        paint(axes, result)
        written.append(
            save(figure, axes, folder, f"{result.name}-{name}", f"{result.name}: {result.prompts:,} labelled prompts")
        )
    return written


def canvas() -> tuple[Figure, Axes]:
    """An empty picture."""
    return plt.subplots(figsize=_SIZE, dpi=120, layout="constrained")


def save(figure: Figure, axes: Axes, folder: Path, name: str, title: str) -> str:
    """Give a picture its title, write it as a PNG file and close it; returns the file's name."""
    axes.set_title(title)
    file = re.sub(r"[^\w.-]", "_", f"{name}.png")
    # No date and no version inside: the same numbers give the same bytes.
    figure.savefig(folder / file, metadata={"Software": None})
    plt.close(figure)
    return file


def _pgr(axes: Axes, result: BenchmarkResult) -> None:
    for artifact in result.artifacts:
        _curve(axes, artifact.ranking, band=True)
    for baseline in result.baselines:
        style = {RANDOM: ":", ORACLE: "--"}.get(baseline.name, "-.")
        _curve(axes, baseline, style=style, color="black" if baseline.name == RANDOM else "grey")
    axes.set_xlabel("share of strong calls")
    axes.set_ylabel("performance gap recovered")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0.0, *(value.low for a in result.artifacts for value in a.ranking.pgr)), 1.35)
    axes.legend(loc="lower right")


def _curve(axes: Axes, ranking: Ranking, *, style: str = "-", color: str | None = None, band: bool = False) -> None:
    label = f"{ranking.name} ({ranking.apgr.value:.3f})"
    (line,) = axes.plot(SHARES, [point.value for point in ranking.pgr], style, color=color, label=label)
    if band:
        low, high = [point.low for point in ranking.pgr], [point.high for point in ranking.pgr]
        axes.fill_between(SHARES, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _reliability(axes: Axes, result: BenchmarkResult) -> None:
    low, high = 1.0, 0.0
    for artifact in result.artifacts:
        plot = artifact.calibration.plot
        label = f"{artifact.ranking.name} (ECE {plot.error:.4f})"
        axes.plot(plot.predicted, plot.observed, "o-", label=label)
        low = min(low, plot.predicted.min(), plot.observed.min())
        high = max(high, plot.predicted.max(), plot.observed.max())
    axes.plot([low, high], [low, high], ":", color="black", label="calibrated")
    axes.set_xlabel("mean win probability of the bin")
    axes.set_ylabel("mean label of the bin (tie: one half)")
    axes.legend(loc="upper left")


def _scores(axes: Axes, result: BenchmarkResult) -> None:
    for artifact in result.artifacts:
        axes.hist(artifact.probabilities, bins=60, histtype="step", density=True, label=artifact.ranking.name)
    axes.set_xlabel("win probability")
    axes.set_ylabel("density of prompts")
    axes.legend(loc="upper right")
