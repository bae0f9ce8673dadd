"""The options of `pointsman simulate` that say which calls are replayed."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

# Standard library only, as for `simulate_cli`.
from dispatcher_service.pacing_targets import Reference
from dispatcher_service.pricing import NANO_USD_PER_USD, Price
from training import ladder_cli
from training.errors import UsageError
from training.simulate_reading_cli import Reading

if TYPE_CHECKING:
    from training.strategy_rows import Scored
    from training.streams import Call


@dataclass(frozen=True, slots=True)
class Source:
    """Calls, what they are in a few words, and the answered prompts that they were drawn from, if they were."""

    calls: "list[Call]"
    about: str
    rows: "Scored | None" = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    source = parser.add_argument_group("calls").add_mutually_exclusive_group()
    source.add_argument(
        "--stream", default="iid", choices=["iid", "step", "ramp", "diurnal", "burst"], help="generated"
    )
    source.add_argument("--log", type=Path, help="decision log: JSON lines")
    parser.add_argument("--tenant", help="with --log: this tenant's calls only")
    parser.add_argument("--calls", type=int, default=20_000, help="with --stream: how many (default: 20000)")
    parser.add_argument("--days", type=float, default=10.0, help="with --stream: over how long (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="with --stream: of every random choice (default: 0)")
    drawn = parser.add_argument_group("with --stream: of calls drawn from quantiles of the artefacts")
    drawn.add_argument("--tokens", default="400,250", help="median input,output tokens of a call")
    drawn.add_argument("--strong-price", default="2.50,10.00", help="USD per million input,output tokens")
    drawn.add_argument("--weak-price", default="0.15,0.60", help="USD per million input,output tokens")
    answered = parser.add_argument_group("with --stream: in place of quantiles, of calls drawn from answered prompts")
    answered.add_argument(
        "--answers", type=Path, metavar="FILE", help="prompts with models' answers and their quality, as for calibrate"
    )
    ladder_cli.add_prices(answered)


def source(arguments: argparse.Namespace, reference: Reference, reading: Reading | None) -> Source:
    """The calls that were asked for.

    Raises:
        UsageError: options do not fit.
        StreamError, TrainingError, ArtifactError, OSError: a file cannot be used.
    """
    if arguments.log is not None:
        return _logged(arguments, reference)
    if arguments.tenant is not None:
        raise UsageError("--tenant goes with --log: a generated stream has no tenants")
    if arguments.calls < 1 or not arguments.days > 0:
        raise UsageError("--calls and --days must be positive")
    return _drawn(arguments, reading) if arguments.answers is not None else _generated(arguments, reference, reading)


def _logged(arguments: argparse.Namespace, reference: Reference) -> Source:
    from training import streams

    if arguments.answers is not None:
        raise UsageError("--answers goes with --stream: leave --log out")
    log = streams.read_log(arguments.log, tenant=arguments.tenant)
    about = f"{len(log.calls):,} calls of {arguments.log}"
    if log.unpriced:
        about += f", without {log.unpriced:,} that cost nothing"
    if any(version != reference.version for version in log.versions):
        about += "; scored by another artefact than --artifact: the first few thousand calls teach its distribution"
    return Source(log.calls, about)


def _generated(arguments: argparse.Namespace, reference: Reference, reading: Reading | None) -> Source:
    from training import streams

    tokens = _pair(arguments.tokens, "--tokens")
    if min(tokens) < 1:
        raise UsageError("--tokens: at least 1 of each")
    if reading is not None and reading.stages > 1:
        raise UsageError("--threshold: one, of the weak model: quantiles tell of two models, --answers of more")
    traffic = streams.Traffic(
        kind=arguments.stream,
        calls=arguments.calls,
        days=arguments.days,
        strong=_price(arguments.strong_price, "--strong-price"),
        weak=_price(arguments.weak_price, "--weak-price"),
        input_tokens=int(tokens[0]),
        output_tokens=int(tokens[1]),
        seed=arguments.seed,
    )
    calls = streams.generate(
        traffic,
        reference.quantiles,
        acceptances=() if reading is None else reading.acceptances,
        preferences=() if reading is None else reading.preferences,
    )
    return Source(calls, f"{arguments.calls:,} {arguments.stream} calls")


def _drawn(arguments: argparse.Namespace, reading: Reading | None) -> Source:
    from training import answered_calls

    try:
        usd = ladder_cli.prices(arguments)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if reading is not None and reading.stages not in {0, len(usd) - 1}:
        raise UsageError(f"--threshold: write {len(usd) - 1}, one for each of the models but the dearest")
    rows = _scored(arguments, usd)
    calls = answered_calls.draw(
        rows, kind=arguments.stream, calls=arguments.calls, days=arguments.days, seed=arguments.seed
    )
    about = f"{arguments.calls:,} {arguments.stream} calls, drawn from {len(rows.cost):,} prompts with answers of "
    return Source(calls, about + ", ".join(usd), rows)


def _scored(arguments: argparse.Namespace, usd: Mapping[str, float]) -> "Scored":
    """Answered prompts, and what the artefacts say of them that were given."""
    import numpy as np

    from scorer_service.judge import open_judge
    from scorer_service.scorer import open_scorer
    from training import strategy_rows
    from training.tables import MAX_BAD_SHARE

    found = strategy_rows.read_answered(arguments.answers, usd, max_bad_share=MAX_BAD_SHARE)
    predictor = open_scorer(arguments.artifact)
    manifests = [predictor.manifest]
    beaten = strategy_rows.compared(predictor, found.models, found.prompts)
    acceptances = preferences = np.empty((len(found.prompts), 0))
    if arguments.strategy == "cascade":
        judge = open_judge(arguments.answer_artifact)
        acceptances = strategy_rows.accepted(judge, found.prompts, found.answers)
        manifests.append(judge.manifest)
    if arguments.strategy == "ensemble":
        ranker = open_judge(arguments.ranker_artifact)
        preferences = strategy_rows.preferred(ranker, found.prompts, found.answers)
        manifests.append(ranker.manifest)
    for warning in strategy_rows.warnings(manifests, found.prompts):
        print(f"warning: {warning}", file=sys.stderr)
    return strategy_rows.Scored(found.quality, found.cost, beaten, acceptances, preferences)


def _price(text: str, option: str) -> Price:
    into, out = (int(usd * NANO_USD_PER_USD) for usd in _pair(text, option))
    return Price(input=into, cached_input=into, cache_write=into, output=out, reasoning=out)


def _pair(text: str, option: str) -> tuple[Decimal, Decimal]:
    try:
        first, second = (Decimal(part) for part in text.split(","))
    except (ValueError, InvalidOperation) as error:
        raise UsageError(f"{option}: write two numbers with a comma between them, such as 2.50,10.00") from error
    if not (first >= 0 and second >= 0):
        raise UsageError(f"{option}: write numbers of at least 0")
    return first, second
