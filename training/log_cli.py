"""`pointsman train --from-log`: from what the dispatcher logged to an artefact and a canary plan."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.from_log import Trained
    from training.metrics import Interval

PLAN = "canary.toml"
"""The plan's file, beside the artefact's own."""

_WIDTH = 110
"""Of a table that goes into a file or a pipe."""

WORSE = 3
"""Exit code where the new artefact ranks worse than the running one, and there is no plan."""


def add_arguments(parser: argparse.ArgumentParser, what: Any, default: Path) -> None:
    """Add `--from-log` to the group `what` of alternatives, and what belongs to it."""
    what.add_argument(
        "--from-log", type=Path, metavar="PATH", help="learn from exports of the decision log, a file or a folder"
    )
    group = parser.add_argument_group("with --from-log")
    group.add_argument("--artifact", type=Path, default=default, help="that runs (default: the shipped one)")
    group.add_argument(
        "--base",
        type=Path,
        metavar="DIR",
        help="artefact to adapt, from which the running one came (default: that one)",
    )
    group.add_argument(
        "--held-out", type=_share, default=0.2, metavar="SHARE", help="of the opinions, the latest (default: 0.2)"
    )
    group.add_argument(
        "--canary-address",
        default="dns:///scorer-canary:50051",
        metavar="ADDRESS",
        help="where the new artefact will be served, for the plan; `embedded` for the dispatcher's own process",
    )


def train(arguments: argparse.Namespace) -> int:
    """Run it. Returns the exit code; what goes wrong is one line on stderr."""
    from rich.console import Console

    from scorer_service.artifact import ArtifactError
    from training import canary_plan, from_log
    from training.errors import TrainingError

    try:
        trained = from_log.train(
            arguments.from_log,
            arguments.artifact,
            arguments.out,
            base=arguments.base,
            held_out=arguments.held_out,
            seed=arguments.seed,
        )
    except (TrainingError, ArtifactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _show(trained, Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH))
    plan: Path = arguments.out / PLAN
    if trained.compared.worse:
        plan.unlink(missing_ok=True)
        print(f"{arguments.out}: {trained.artifact.version}, which ranks worse than what runs: no canary plan")
        return WORSE
    plan.write_text(canary_plan.write(trained, arguments.canary_address), encoding="utf-8")
    print(f"{arguments.out}: {trained.artifact.version}\n{plan}: weights, and when to stop")
    return 0


def _show(trained: "Trained", console: Any) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    learnt, compared = trained.learnt, trained.compared
    left_out = [
        f"{count:,} {why}"
        for count, why in (
            (learnt.one_sided, "ratings where one model answered everything alike"),
            (learnt.not_by_chance, "ratings where an earlier turn or a failure chose the model"),
            (trained.passed_over, "records without text, or that neither model answered"),
        )
        if count
    ]
    print(f"learnt from {len(learnt.rows):,} opinions on {trained.records:,} answers, worth {learnt.effective:,.0f}")
    if left_out:
        print(f"left out: {'; '.join(left_out)}")
    title = f"on {compared.labels:,} later opinions, worth {compared.effective:,.0f}"
    table = Table("", "running", "new", "new less running (95 %)", title=title, box=SIMPLE)
    table.add_row("APGR", *map(_interval, (compared.apgr_running, compared.apgr_new, compared.apgr_gain)))
    table.add_row("squared error", "", "", _interval(compared.brier_gain))
    console.print(table)


def _interval(value: "Interval") -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _share(text: str) -> float:
    share = float(text)
    if not 0.0 < share < 1.0:
        raise argparse.ArgumentTypeError("write a share between 0 and 1, such as 0.2")
    return share
