"""`pointsman adapt` and `pointsman learning-curve`."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any, default: Path) -> None:
    """Add both; `default` is the artefact that they start from unless told otherwise."""
    parser = subparsers.add_parser("adapt", help="fit a static artefact to labels of one's own traffic")
    parser.add_argument("--artifact", type=Path, default=default, help="to start from (default: the shipped one)")
    parser.add_argument("--labels", required=True, type=Path, help="file of 100 to 10,000 labelled prompts")
    parser.add_argument("--unlabelled", type=Path, help="file of prompts of the same traffic: they set the dial")
    parser.add_argument("--out", required=True, type=Path, help="directory of the new artefact")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: 0)")
    parser.set_defaults(run=adapt)

    parser = subparsers.add_parser("learning-curve", help="what so many labels of a benchmark are worth to adapt")
    parser.add_argument("--artifact", type=Path, default=default, help="to start from (default: the shipped one)")
    parser.add_argument("--benchmark", required=True, type=Path, help="labelled prompts that it was not trained on")
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 300, 1000, 3000], help="sizes")
    parser.add_argument("--draws", type=int, default=10, help="random draws of each size (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw (default: 0)")
    parser.set_defaults(run=learning_curve)


def adapt(arguments: argparse.Namespace) -> int:
    """Run `adapt`. Returns the exit code; what goes wrong is one line on stderr."""
    from rich.console import Console

    from scorer_service.artifact import ArtifactError
    from training.adapt import adapt as run
    from training.errors import TrainingError

    try:
        adapted = run(arguments.artifact, arguments.labels, arguments.unlabelled, arguments.out, seed=arguments.seed)
    except (TrainingError, ArtifactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Console(highlight=False).print(_before_and_after(adapted.before, adapted.after))
    print(f"{arguments.out}: {adapted.artifact.version}")
    return 0


def learning_curve(arguments: argparse.Namespace) -> int:
    """Run `learning-curve`. Returns the exit code."""
    from rich.console import Console
    from rich.table import Table

    from scorer_service.artifact import ArtifactError
    from training.adapt import learning_curve as run
    from training.errors import TrainingError
    from training.progress import bars

    try:
        with bars() as progress:
            curve = run(
                arguments.artifact,
                arguments.benchmark,
                arguments.labels,
                arguments.draws,
                seed=arguments.seed,
                progress=lambda done, total: progress("adapting", done, total),
            )
    except (TrainingError, ArtifactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    table = Table("labels", "APGR before", "after", "sd over draws", "draws that gained")
    for point in curve:
        table.add_row(
            f"{point['labels']:,.0f}",
            f"{point['before']:.3f}",
            f"{point['after']:.3f}",
            f"{point['spread']:.3f}",
            f"{point['better']:.0%}",
        )
    Console(highlight=False).print(table)
    return 0


def _before_and_after(before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table(f"held out, {after['labels']:,} labels", "before", "after")
    for name, label in (("apgr", "APGR"), ("brier_skill", "Brier skill")):
        table.add_row(
            label, *(f"{n[name]['value']:.3f} ({n[name]['low']:.3f}–{n[name]['high']:.3f})" for n in (before, after))
        )
    for name, label in (("cpt50", "CPT(50 %)"), ("cpt80", "CPT(80 %)")):
        table.add_row(label, *(f"{n[name]:.1%}" for n in (before, after)))
    table.add_row("calibration error", *(f"{n['calibration_error']:.3f}" for n in (before, after)))
    table.add_row("… of a calibrated one, 95 %", *(f"{n['calibration_error_by_chance']:.3f}" for n in (before, after)))
    return table
