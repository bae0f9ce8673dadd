"""The options that say which models strategies choose among, and what they cost."""

import argparse
from collections.abc import Mapping
from typing import Any


def add_prices(parser: Any) -> None:
    """Add the options to a parser, or to a group of one."""
    parser.add_argument("--strong-usd", type=float, default=10.0, help="per million tokens (default: 10)")
    parser.add_argument("--weak-usd", type=float, default=0.6, help="per million tokens (default: 0.6)")
    parser.add_argument(
        "--usd",
        nargs="+",
        type=_priced,
        metavar="MODEL=USD",
        help="per million tokens, of two models or more, where the file names its models: strategies choose among "
        "these, in the order of their price, and the dearest is the strongest (in place of --strong-usd, --weak-usd)",
    )


def prices(arguments: argparse.Namespace) -> Mapping[str, float]:
    """What each model costs per million tokens, cheapest first.

    Raises:
        ValueError: fewer than two models, or one twice.
    """
    if arguments.usd is None:
        return {"weak": arguments.weak_usd, "strong": arguments.strong_usd}
    found = dict(sorted(arguments.usd, key=lambda priced: priced[1]))
    if len(found) < len(arguments.usd) or len(found) < 2:  # a choice is among two
        raise ValueError("--usd: name two models or more, each once, such as small=0.2 large=10")
    return found


def _priced(text: str) -> tuple[str, float]:
    """`MODEL=USD`."""
    model, equals, usd = text.rpartition("=")
    try:
        price = float(usd)
    except ValueError:
        price = -1.0
    if not model or not equals or not price >= 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no price of a model: write MODEL=USD, such as small=0.2")
    return model, price
