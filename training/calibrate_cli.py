"""The command that sets thresholds on one's own prompts: `calibrate`."""

import argparse
import sys
from pathlib import Path
from typing import Any

from training import ladder_cli
from training.evaluate_cli import TABLE_WIDTH, progress_bars


def add_commands(subparsers: Any, default_artifact: Path) -> None:
    """See `training.cli.add_commands`."""
    parser = subparsers.add_parser(
        "calibrate", help="the alpha of a share of strong calls, or the thresholds of a cascade, on your own prompts"
    )
    parser.add_argument(
        "--strategy",
        choices=("route", "cascade", "hybrid"),
        default="route",
        help="what is set (default: route); cascade and hybrid print what a tenant's policy takes",
    )
    parser.add_argument(
        "--artifact", type=Path, default=default_artifact, metavar="DIR", help="that routes (default: the shipped one)"
    )
    route = parser.add_argument_group("route")
    route.add_argument("--strong-call-share", type=float, nargs="+", metavar="SHARE", help="in [0, 1]; one or more")
    route.add_argument("--prompts", type=Path, metavar="FILE", help=".txt, .jsonl, .csv or .parquet; needs no labels")
    cascade = parser.add_argument_group("cascade and hybrid")
    cascade.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="prompts with strong_response, weak_response and a quality of both, as 'pointsman label' writes them; or "
        "prompt, model, answer and its quality; or response/MODEL and correct/MODEL",
    )
    cascade.add_argument("--answer-artifact", type=Path, metavar="DIR", help="of kind answer, that judges the answers")
    cascade.add_argument(
        "--budget",
        type=float,
        nargs="+",
        default=[0.5],
        metavar="PART",
        help="mean cost of all calls, as a part of what all-strong costs; one or more (default: 0.5)",
    )
    ladder_cli.add_prices(cascade)
    cascade.add_argument("--tenant", default="NAME", help="in the lines for the configuration file")
    cascade.add_argument("--out", type=Path, metavar="FILE", help="write those lines of the last budget there")
    parser.set_defaults(run=calibrate)


def calibrate(arguments: argparse.Namespace) -> int:
    """Run `calibrate`. Returns the exit code; what goes wrong is one line on stderr."""
    needed = ("strong_call_share", "prompts") if arguments.strategy == "route" else ("answers", "answer_artifact")
    missing = [f"--{name.replace('_', '-')}" for name in needed if getattr(arguments, name) is None]
    if missing:
        print(f"error: --strategy {arguments.strategy} needs {' and '.join(missing)}", file=sys.stderr)
        return 2
    return _route(arguments) if arguments.strategy == "route" else _cascade(arguments)


def _route(arguments: argparse.Namespace) -> int:
    """Set the dial of plain routing."""
    from rich.console import Console

    from scorer_service.artifact import ArtifactError
    from scorer_service.scorer import open_scorer
    from training import calibrate as calibration
    from training import data, evaluate, report
    from training.tables import DataError

    if not all(0.0 <= share <= 1.0 for share in arguments.strong_call_share):
        print("error: --strong-call-share must be in [0, 1]: 0.3 sends 30 % of calls strong", file=sys.stderr)
        return 2
    try:
        prompts = data.read_prompts(arguments.prompts)
        scorer = open_scorer(arguments.artifact)
        with progress_bars() as progress:
            probabilities = evaluate.win_probabilities(
                scorer, prompts, progress=lambda done, total: progress("prompts", done, total)
            )
        points = calibration.dial_points(probabilities, scorer.manifest.score_quantiles, arguments.strong_call_share)
    except (ArtifactError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.prompts}: {len(prompts):,} prompts, {scorer.manifest.router_kind} {scorer.artifact.version}")
    Console(highlight=False, width=None if sys.stdout.isatty() else TABLE_WIDTH).print(report.dial(points))
    return 0


def _cascade(arguments: argparse.Namespace) -> int:
    """Set the thresholds of a cascade, and of a hybrid its two α's."""
    import numpy as np
    from rich.console import Console

    from scorer_service.artifact import ArtifactError, Task
    from scorer_service.judge import open_judge
    from scorer_service.scorer import open_scorer
    from training import cascade_calibrate, cascade_report, strategy_rows
    from training.errors import TrainingError
    from training.tables import MAX_BAD_SHARE, DataError

    try:
        usd = ladder_cli.prices(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        found = strategy_rows.read_answered(arguments.answers, usd, max_bad_share=MAX_BAD_SHARE)
        predictor, judge = open_scorer(arguments.artifact), open_judge(arguments.answer_artifact)
        if judge.manifest.task is not Task.SCORE_ANSWER:
            raise DataError(f"{arguments.answer_artifact} is to {judge.manifest.task.value}: give one of kind 'answer'")
        scored = strategy_rows.Scored(
            found.quality,
            found.cost,
            strategy_rows.compared(predictor, found.models, found.prompts),
            strategy_rows.accepted(judge, found.prompts, found.answers),
            np.empty((len(found.prompts), 0)),
        )
        settings = cascade_calibrate.settings(
            scored, found.prompts, arguments.budget, hybrid=arguments.strategy == "hybrid"
        )
    except (ArtifactError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for warning in strategy_rows.warnings((predictor.manifest, judge.manifest), found.prompts):
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{arguments.answers}: {len(found.prompts):,} prompts answered by {', '.join(found.models)}; answers judged by "
        f"{judge.artifact.version}"
    )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(cascade_report.table(settings))
    models = found.models if arguments.usd is not None else ()
    lines = [cascade_calibrate.toml(setting, arguments.tenant, models) for setting in settings]
    for setting, text in zip(settings, lines, strict=True):
        print(f"# budget {setting.budget:.0%} of all-strong's cost\n{text}")
    if arguments.out is not None:
        arguments.out.write_text(lines[-1], encoding="utf-8")
    return 0
