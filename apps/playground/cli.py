"""The command `playground`."""

import argparse
import os
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any) -> None:
    """Add the command to an argparse subparsers object; it sets `run`, from the arguments to an exit code."""
    parser = subparsers.add_parser(
        "playground",
        help="a web page to play with: prompt, dial, decision, both answers, costs",
        description="A web page to play with. Starts scorer, dispatcher and a local model behind it, or shows a "
        "dispatcher that runs already (--dispatcher); a credential for that one is read from $POINTSMAN_CREDENTIAL.",
    )
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: 127.0.0.1:8501, or a free port if it is taken")
    parser.add_argument("--dispatcher", metavar="TARGET", help="gRPC target of a running dispatcher (default: our own)")
    parser.add_argument("--tenant", default="", help="whom to call as, at a dispatcher without authentication")
    parser.add_argument("--ca", type=Path, help="PEM file to trust that dispatcher by; default: in the clear")
    parser.set_defaults(run=_playground)


def _playground(arguments: argparse.Namespace) -> int:
    # Imported here: `pointsman --help` needs neither gRPC nor Starlette.
    from apps.demo.cli import until_signal
    from apps.playground.serving import Wanted, playground

    wanted = Wanted(listen=arguments.listen, dispatcher=arguments.dispatcher, tenant=arguments.tenant, ca=arguments.ca)
    # Being stopped is how it ends.
    return until_signal(lambda: playground(wanted, os.environ), interrupted=0)
