"""The command that measures artefacts: `evaluate`."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import ladder_cli

if TYPE_CHECKING:
    from training.evaluate import Benchmark, Progress
    from training.strategies import StrategyResult

TABLE_WIDTH = 140
"""Of tables that go into a file or a pipe."""

FORMATS = ("arena", "battles", "grades", "pair", "matrix", "ratings", "decisions")


def add_commands(subparsers: Any, default_artifact: Path) -> None:
    """Add the commands to an argparse subparsers object; each sets `run`, from the arguments to an exit code."""
    parser = subparsers.add_parser("evaluate", help="measure artefacts on labelled prompts, beside the baselines")
    parser.add_argument(
        "--artifact", type=Path, nargs="+", default=[default_artifact], metavar="DIR", help="to measure"
    )
    parser.add_argument(
        "--benchmark", nargs="+", required=True, metavar="[NAME=]FILE", help="labelled prompts in any data format"
    )
    add_reading(parser)
    add_pair(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="for report.json, report.md and the plots")
    ladder_cli.add_prices(parser)
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    _add_strategies(parser)
    parser.set_defaults(run=evaluate)


def _add_strategies(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate` that compare strategies."""
    strategies = parser.add_argument_group("strategies, on benchmarks with every model's answers")
    strategies.add_argument(
        "--strategies",
        action="store_true",
        help="also compare route, cascade, hybrid and ensemble: quality against the cost of all calls, by "
        "cross-validation, which trains every scorer anew for each fold",
    )
    strategies.add_argument(
        "--router",
        default="kernel",
        choices=("kernel", "static", "mf", "sw"),
        help="kind that routes: kernel and static compare the cheapest and the dearest model, mf and sw all "
        "(default: kernel)",
    )
    strategies.add_argument("--folds", type=int, default=5, help="of the cross-validation (default: 5)")
    strategies.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("POINTSMAN_DATA") or None,
        help="folder with train/, from which the router learns beside the folds (default: $POINTSMAN_DATA)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """The options of every command that reads labelled data."""
    parser.add_argument("--format", choices=FORMATS, help="of the data (default: by its columns)")
    parser.add_argument(
        "--max-bad-share", type=float, default=0.01, help="of rows that may be left out as unreadable (default: 0.01)"
    )


def add_pair(parser: argparse.ArgumentParser) -> None:
    """The options that name a model pair."""
    parser.add_argument("--strong-model", help="where the data tells of many models")
    parser.add_argument("--weak-model", help="likewise")


def evaluate(arguments: argparse.Namespace) -> int:
    """Run `evaluate`. Returns the exit code; what goes wrong is one line on stderr."""
    from rich.console import Console

    from scorer_service.artifact import ArtifactError
    from training import evaluate as evaluation
    from training import report
    from training.errors import TrainingError
    from training.rankings import Prices
    from training.tables import DataError

    if arguments.strategies and (arguments.data is None or arguments.folds < 2):
        print("error: --strategies needs --data FOLDER (or POINTSMAN_DATA) and 2 folds or more", file=sys.stderr)
        return 2
    try:
        usd = ladder_cli.prices(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    weakest, *_, strongest = usd
    prices = Prices(usd[strongest], usd[weakest])
    if arguments.usd is not None:
        arguments.strong_model = arguments.strong_model or strongest
        arguments.weak_model = arguments.weak_model or weakest
    try:
        benchmarks = [_benchmark(argument, arguments) for argument in arguments.benchmark]
        names = [benchmark.name for benchmark in benchmarks]
        if len(set(names)) < len(names):
            raise DataError(f"two benchmarks have one name ({', '.join(names)}): give them as NAME=FILE")
        scorers = evaluation.named_artifacts(arguments.artifact)
        with progress_bars() as progress:
            results = tuple(
                evaluation.evaluate(
                    benchmark, scorers, prices, draws=arguments.draws, seed=arguments.seed, progress=progress
                )
                for benchmark in benchmarks
            )
            compared = _strategies(arguments, usd, progress) if arguments.strategies else ()
    except (ArtifactError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = report.Report(results, prices, arguments.draws, arguments.seed, compared)
    Console(highlight=False, width=None if sys.stdout.isatty() else TABLE_WIDTH).print(report.terminal(found))
    if arguments.out is not None:
        from training import plots, strategy_plot

        arguments.out.mkdir(parents=True, exist_ok=True)
        drawn = {result.name: plots.draw(result, arguments.out) for result in results}
        (arguments.out / "report.json").write_text(report.document(found), encoding="utf-8")
        pictures = [strategy_plot.draw(result, arguments.out) for result in compared]
        (arguments.out / "report.md").write_text(report.markdown(found, drawn, pictures), encoding="utf-8")
        count = sum(map(len, drawn.values())) + len(pictures)
        print(f"report.json, report.md and {count} plots are in {arguments.out}")
    return 0


def _strategies(
    arguments: argparse.Namespace, usd: Mapping[str, float], progress: "Progress"
) -> "tuple[StrategyResult, ...]":
    """Every strategy on every benchmark."""
    from training import strategies, strategy_rows

    results = []
    for argument in arguments.benchmark:
        name, _, file = argument.rpartition("=")
        path = Path(file)
        found = strategy_rows.read_answered(path, usd, max_bad_share=arguments.max_bad_share)
        scored, folds = strategies.cross_validated(
            found,
            path.stem,
            Path(arguments.data),
            router=arguments.router,
            folds=arguments.folds,
            seed=arguments.seed,
            progress=progress,
        )
        results.append(
            strategies.evaluate(
                name or path.stem,
                found.prompts,
                scored,
                folds,
                usd=usd,
                router=arguments.router,
                draws=arguments.draws,
                seed=arguments.seed,
            )
        )
    return tuple(results)


def _benchmark(argument: str, arguments: argparse.Namespace) -> "Benchmark":
    """`NAME=FILE`, or a file whose name is the benchmark's."""
    from training import data
    from training.evaluate import Benchmark

    name, _, file = argument.rpartition("=")
    path = Path(file)
    format_ = data.Format(arguments.format) if arguments.format else None
    dataset = data.read(path, format_, max_bad_share=arguments.max_bad_share)
    if dataset.bad_rows:
        print(f"warning: {dataset.bad_rows}: left out", file=sys.stderr)
    labelled = dataset.pair(arguments.strong_model, arguments.weak_model)
    return Benchmark(name or path.stem, labelled, dataset.source.sha256, arguments.strong_model, arguments.weak_model)


@contextmanager
def progress_bars() -> Iterator["Progress"]:
    """Bars on stderr, one for each thing that is told of; none where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield told
