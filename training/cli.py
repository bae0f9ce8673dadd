"""The training commands. `pointsman` adds them to its own; `python -m training` offers them alone."""

import argparse
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from training import adapt_cli, calibrate_cli, evaluate_cli, label_cli, log_cli, protocol_cli
from training.kinds import KINDS

DATA_VARIABLE = "POINTSMAN_DATA"
DEFAULT_ARTIFACT = Path(__file__).resolve().parents[1] / "scorer_service" / "artifacts" / "default"


def add_commands(subparsers: Any) -> None:
    """Add the commands to an argparse subparsers object; each sets `run`, from the arguments to an exit code."""
    parser = subparsers.add_parser("train", help="train a router and write its artefact")
    kinds = "; ".join(f"{kind}: {summary}" for kind, summary in KINDS.items())
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--router", choices=list(KINDS), metavar="KIND", help=kinds)
    log_cli.add_arguments(parser, what, DEFAULT_ARTIFACT)
    parser.add_argument("--out", required=True, type=Path, help="directory of the artefact, made or overwritten")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get(DATA_VARIABLE) or None,
        help=f"folder with train/ and eval/ (default: ${DATA_VARIABLE})",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: 0)")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a setting of the kind; a wrong name lists them",
    )
    parser.set_defaults(run=train)

    parser = subparsers.add_parser(
        "split", help="divide labelled prompts into rows to learn from and rows to measure on"
    )
    parser.add_argument(
        "--benchmark", required=True, type=Path, help=".csv, .parquet or .jsonl file of labelled prompts"
    )
    parser.add_argument("--labels", required=True, type=int, help="rows to learn from")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    parser.add_argument("--out", required=True, type=Path, help="folder; gets labels/FILE and rest/FILE")
    parser.set_defaults(run=split)

    parser = subparsers.add_parser("dial", help="show the alpha and the cost of each share of strong calls")
    parser.add_argument("--artifact", type=Path, default=DEFAULT_ARTIFACT, help="directory (default: the shipped one)")
    parser.add_argument("--strong-usd", type=Decimal, default=Decimal(10), help="per million tokens (default: 10)")
    parser.add_argument("--weak-usd", type=Decimal, default=Decimal("0.6"), help="per million tokens (default: 0.6)")
    parser.set_defaults(run=dial)

    evaluate_cli.add_commands(subparsers, DEFAULT_ARTIFACT)
    calibrate_cli.add_commands(subparsers, DEFAULT_ARTIFACT)
    label_cli.add_commands(subparsers)
    adapt_cli.add_commands(subparsers, DEFAULT_ARTIFACT)
    protocol_cli.add_commands(subparsers)


def train(arguments: argparse.Namespace) -> int:
    """Run `train`. Returns the exit code; what goes wrong is one line on stderr."""
    if arguments.from_log is not None:
        return log_cli.train(arguments)
    # Imported here: `pointsman --help` should not wait for numpy and onnx, nor need them.
    from training import train as training
    from training.errors import TrainingError
    from training.progress import bars

    if arguments.data is None:
        print(f"no data: give --data FOLDER or set {DATA_VARIABLE}", file=sys.stderr)
        return 2
    try:
        with bars() as progress:
            written = training.train(
                arguments.router,
                Path(arguments.data),
                arguments.out,
                arguments.settings,
                seed=arguments.seed,
                progress=progress,
            )
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{written.directory}: {written.manifest.router_kind} {written.version}")
    for name, metrics in written.manifest.metrics.items():
        print(f"  {name}: {metrics}")
    return 0


def split(arguments: argparse.Namespace) -> int:
    """Run `split`. Returns the exit code; what goes wrong is one line on stderr."""
    from training.errors import TrainingError
    from training.split import split as divide

    try:
        divided = divide(arguments.benchmark, labels=arguments.labels, seed=arguments.seed, out=arguments.out)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{divided.labels}: {divided.labelled_rows} rows")
    print(f"{divided.rest}: {divided.rest_rows} rows")
    return 0


def dial(arguments: argparse.Namespace) -> int:
    """Run `dial`. Returns the exit code; what goes wrong is one line on stderr."""
    from rich.console import Console

    from scorer_service.artifact import ArtifactError
    from training.dial import show

    try:
        table = show(arguments.artifact, strong_usd=arguments.strong_usd, weak_usd=arguments.weak_usd)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Console(highlight=False).print(table)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line of `python -m training`."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train scorer artefacts.")
    add_commands(parser.add_subparsers(required=True, metavar="COMMAND"))
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code
