"""`pointsman protocol`: the paper's gold-label protocols, kernel and static beside the plain ridge."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser("protocol", help="train on few labels of a benchmark, measure on its rest")
    parser.add_argument("protocol", choices=["mmlu-1500", "gsm8k-200", "gsm8k-500"])
    parser.add_argument("--data", type=Path, default=os.environ.get("POINTSMAN_DATA") or None, help="data folder")
    parser.add_argument("--part", choices=["tune", "report"], default="report", help="rows (default: report)")
    parser.add_argument("--draws", type=int, default=10, help="random draws of the labels (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.set_defaults(run=protocol)


def protocol(arguments: argparse.Namespace) -> int:
    """Run `protocol`. Returns the exit code; what goes wrong is one line on stderr."""
    from rich.console import Console
    from rich.table import Table

    from training import protocols
    from training.errors import TrainingError
    from training.progress import bars

    if arguments.data is None:
        print("no data: give --data FOLDER or set POINTSMAN_DATA", file=sys.stderr)
        return 2
    try:
        with bars() as progress:
            result = protocols.run(
                Path(arguments.data),
                arguments.protocol,
                part=arguments.part,
                draws=arguments.draws,
                seed=arguments.seed,
                progress=progress,
            )
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    title = f"{result.labels:,} labels, {result.rows:,.0f} rows, {arguments.draws} draws"
    table = Table("method", "APGR", "over the ridge (95 %)", "CPT50", "CPT80", title=title)
    for method, numbers in result.methods.items():
        gain = result.gains.get(method)
        over = "" if gain is None else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        cells = f"{numbers['apgr']:.3f}", over, f"{numbers['cpt50']:.0%}", f"{numbers['cpt80']:.0%}"
        table.add_row(method, *cells)
    table.add_row("random", "0.500", "", "50%", "80%")
    Console(highlight=False).print(table)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result.document(), indent=1) + "\n", encoding="utf-8")
    return 0
