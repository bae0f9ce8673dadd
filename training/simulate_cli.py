"""`pointsman simulate`: what a target would do, before it is turned on."""

import argparse
import sys
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The dispatcher's pure modules need the standard library only; numpy and the like are imported when the command runs.
from dispatcher_service import routing
from dispatcher_service.budget import Limit, OnExhausted, Period
from dispatcher_service.pacing_targets import Reference, pacing_policy
from dispatcher_service.pricing import NANO_USD_PER_USD, Price
from training import simulate_reading_cli
from training.simulate_reading_cli import Reading, UsageError

if TYPE_CHECKING:
    from training.simulate_plans import Plan
    from training.streams import Call

_ABOUT = """Replays calls through the dispatcher's own pacing, as a tenant with a target and beside it one with a fixed
alpha, and shows share and cost per window. Calls are generated (--stream) or those of a decision log (--log)."""

_PIPED_WIDTH = 120


def add_commands(subparsers: Any) -> None:
    """See `training.cli.add_commands`."""
    parser = subparsers.add_parser(
        "simulate", help="show what a target would do to a stream of calls", description=_ABOUT
    )
    source = parser.add_argument_group("calls").add_mutually_exclusive_group()
    source.add_argument(
        "--stream", default="iid", choices=["iid", "step", "ramp", "diurnal", "burst"], help="generated"
    )
    source.add_argument("--log", type=Path, help="decision log: JSON lines")
    parser.add_argument("--tenant", help="with --log: this tenant's calls only")
    parser.add_argument("--calls", type=int, default=20_000, help="with --stream: how many (default: 20000)")
    parser.add_argument("--days", type=float, default=10.0, help="with --stream: over how long (default: 10)")
    parser.add_argument("--tokens", default="400,250", help="with --stream: median input,output tokens of a call")
    parser.add_argument("--seed", type=int, default=0, help="with --stream: of every random choice (default: 0)")
    parser.add_argument(
        "--strong-price", default="2.50,10.00", help="with --stream: USD per million input,output tokens"
    )
    parser.add_argument("--weak-price", default="0.15,0.60", help="with --stream: USD per million input,output tokens")
    target = parser.add_argument_group("target: a share, limits, or both")
    target.add_argument("--share", type=float, help="strong_call_share, in [0, 1]")
    for period in ("hour", "day", "month"):
        target.add_argument(f"--usd-per-{period}", type=_usd, help="limit; also paced unless --no-pace")
    target.add_argument("--no-pace", action="store_true", help="limits are hard caps only")
    target.add_argument("--on-exhausted", default="degrade", choices=["degrade", "reject"], help="(default: degrade)")
    target.add_argument(
        "--alpha", type=float, help="of the fixed plan beside it (default: what the share's quantile is)"
    )
    target.add_argument("--gain", type=float, help="of the integrator (default: the dispatcher's)")
    simulate_reading_cli.add_arguments(parser)
    parser.add_argument("--artifact", type=Path, help="directory whose quantiles are used (default: the shipped one)")
    parser.add_argument("--window", type=int, default=1000, help="calls per window of the report (default: 1000)")
    parser.add_argument("--csv", type=Path, help="write every window there")
    parser.add_argument("--plot", type=Path, help="write a plot there, for example simulation.png")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `simulate`. Returns the exit code; what goes wrong is one line on stderr."""
    from scorer_service.artifact import ArtifactError
    from training.streams import StreamError

    try:
        return _run(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StreamError, ArtifactError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from scorer_service import artifact
    from training import simulate, simulate_plans, simulate_report
    from training.cli import DEFAULT_ARTIFACT

    if arguments.window < 1 or arguments.calls < 1 or not arguments.days > 0:
        raise UsageError("--window, --calls and --days must be positive")
    loaded = artifact.load(arguments.artifact or DEFAULT_ARTIFACT)
    reference = Reference(loaded.version, loaded.manifest.score_quantiles)
    reading = simulate_reading_cli.reading(arguments)
    calls, about = _calls(arguments, reference, reading)
    plans = _plans(arguments, reference) if reading is None else _reading_plans(arguments, reference, reading)
    replays = [simulate.replay(calls, plan, reference) for plan in plans]
    spend = simulate_plans.spend_of(plans[0])
    period = None if spend is None or arguments.share is not None else spend.period
    windows = simulate_report.windows_of(replays, calls=arguments.window, period=period)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    console.print(about)
    console.print(simulate_report.windows_table(windows))
    console.print(simulate_report.plans_table(replays, windows))
    note = simulate_report.bound_note(replays[0], arguments.window)
    if note is not None:
        console.print(note)
    if arguments.csv is not None:
        simulate_report.write_csv(arguments.csv, windows)
        console.print(f"windows: {arguments.csv}")
    if arguments.plot is not None:
        simulate_report.write_plot(arguments.plot, replays, windows, title=about)
        console.print(f"plot: {arguments.plot}")
    return 0


def _calls(arguments: argparse.Namespace, reference: Reference, reading: Reading | None) -> "tuple[list[Call], str]":
    from training import streams

    if arguments.log is not None:
        log = streams.read_log(arguments.log, tenant=arguments.tenant)
        about = f"{len(log.calls):,} calls of {arguments.log}"
        if log.unpriced:
            about += f", without {log.unpriced:,} that cost nothing"
        if any(version != reference.version for version in log.versions):
            about += "; scored by another artefact than --artifact: the first few thousand calls teach its distribution"
        return log.calls, about
    if arguments.tenant is not None:
        raise UsageError("--tenant goes with --log: a generated stream has no tenants")
    tokens = _pair(arguments.tokens, "--tokens")
    if min(tokens) < 1:
        raise UsageError("--tokens: at least 1 of each")
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
    return calls, f"{arguments.calls:,} {arguments.stream} calls"


def _plans(arguments: argparse.Namespace, reference: Reference) -> "list[Plan]":
    """The plan that was asked for, and a fixed alpha under the same hard limits."""
    from training.simulate_plans import Plan

    limits = _limits(arguments)
    if arguments.share is None and not limits:
        raise UsageError("no target: give --share, or a limit such as --usd-per-day")
    for name in ("share", "alpha"):
        value = getattr(arguments, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"--{name}: write a number in [0, 1]")
    if arguments.gain is not None and not 0 < arguments.gain <= 1:
        raise UsageError("--gain: write a number in (0, 1]")
    names = [] if arguments.share is None else [f"share {arguments.share:g}"]
    names += [f"${limit.amount / NANO_USD_PER_USD:g} per {limit.period.value}" for limit in limits]
    alpha = arguments.alpha
    if alpha is None:
        share = 0.5 if arguments.share is None else arguments.share
        alpha = routing.alpha_for_share(reference.quantiles, share)
    policy = pacing_policy(share=arguments.share, alpha=None, limits=() if arguments.no_pace else limits)
    if policy is not None and arguments.gain is not None:
        policy = replace(policy, gain=arguments.gain)
    on_exhausted = OnExhausted(arguments.on_exhausted)
    wanted = Plan(name=", ".join(names), pacing=policy, alpha=alpha, limits=limits, on_exhausted=on_exhausted)
    fixed = Plan(name=f"fixed α {alpha:.3f}", alpha=alpha, limits=limits, on_exhausted=on_exhausted)
    return [wanted, fixed]


def _reading_plans(arguments: argparse.Namespace, reference: Reference, reading: Reading) -> "list[Plan]":
    """The strategy, and beside it a fixed alpha that makes about as many strong calls, under the same hard limits."""
    from training.simulate_plans import Plan

    limits, on_exhausted = _limits(arguments), OnExhausted(arguments.on_exhausted)
    alpha = arguments.alpha
    if alpha is None:
        alpha = routing.alpha_for_share(reference.quantiles, reading.strong_call_share)
    return [
        Plan(name=reading.name, limits=limits, on_exhausted=on_exhausted, reading=reading.policy),
        Plan(name=f"fixed α {alpha:.3f}", alpha=alpha, limits=limits, on_exhausted=on_exhausted),
    ]


def _limits(arguments: argparse.Namespace) -> tuple[Limit, ...]:
    amounts = {period: getattr(arguments, f"usd_per_{period.value}") for period in Period}
    try:
        return tuple(Limit(period, _nano(usd)) for period, usd in amounts.items() if usd is not None)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _price(text: str, option: str) -> Price:
    into, out = (_nano(usd) for usd in _pair(text, option))
    return Price(input=into, cached_input=into, cache_write=into, output=out, reasoning=out)


def _nano(usd: Decimal) -> int:
    return int(usd * NANO_USD_PER_USD)


def _pair(text: str, option: str) -> tuple[Decimal, Decimal]:
    try:
        first, second = (Decimal(part) for part in text.split(","))
    except (ValueError, InvalidOperation) as error:
        raise UsageError(f"{option}: write two numbers with a comma between them, such as 2.50,10.00") from error
    if not (first >= 0 and second >= 0):
        raise UsageError(f"{option}: write numbers of at least 0")
    return first, second


def _usd(text: str) -> Decimal:
    try:
        usd = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount: write USD, such as 50 or 12.50") from None
    if not usd >= 0:
        raise argparse.ArgumentTypeError("write an amount of at least 0")
    return usd
