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
from dispatcher_service.pricing import NANO_USD_PER_USD
from training import simulate_calls_cli, simulate_reading_cli
from training.errors import UsageError
from training.simulate_calls_cli import Source
from training.simulate_reading_cli import Reading

if TYPE_CHECKING:
    from training.simulate_plans import Plan

_ABOUT = """Replays calls through the dispatcher's own pacing, as a tenant with a target and beside it one with a fixed
alpha, and shows share and cost per window. Calls are generated (--stream), also from answered prompts (--answers), or
those of a decision log (--log)."""

_PIPED_WIDTH = 120


def add_commands(subparsers: Any) -> None:
    """See `training.cli.add_commands`."""
    parser = subparsers.add_parser(
        "simulate", help="show what a target would do to a stream of calls", description=_ABOUT
    )
    simulate_calls_cli.add_arguments(parser)
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
    parser.add_argument("--artifact", type=Path, help="that routes: its quantiles are used (default: the shipped one)")
    parser.add_argument("--window", type=int, default=1000, help="calls per window of the report (default: 1000)")
    parser.add_argument("--csv", type=Path, help="write every window there")
    parser.add_argument("--plot", type=Path, help="write a plot there, for example simulation.png")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run `simulate`. Returns the exit code; what goes wrong is one line on stderr."""
    from scorer_service.artifact import ArtifactError
    from training.errors import TrainingError
    from training.streams import StreamError

    try:
        return _run(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StreamError, TrainingError, ArtifactError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from scorer_service import artifact
    from training import simulate, simulate_plans, simulate_report
    from training.cli import DEFAULT_ARTIFACT

    if arguments.window < 1:
        raise UsageError("--window must be positive")
    if arguments.artifact is None:
        arguments.artifact = DEFAULT_ARTIFACT
    loaded = artifact.load(arguments.artifact)
    reference = Reference(loaded.version, loaded.manifest.score_quantiles)
    reading = simulate_reading_cli.reading(arguments)
    source = simulate_calls_cli.source(arguments, reference, reading)
    plans = _plans(arguments, reference) if reading is None else _reading_plans(arguments, reference, reading, source)
    replays = [simulate.replay(source.calls, plan, reference) for plan in plans]
    spend = simulate_plans.spend_of(plans[0])
    period = None if spend is None or arguments.share is not None else spend.period
    windows = simulate_report.windows_of(replays, calls=arguments.window, period=period)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    console.print(source.about)
    console.print(simulate_report.windows_table(windows))
    console.print(simulate_report.plans_table(replays, windows))
    note = simulate_report.bound_note(replays[0], arguments.window)
    if note is not None:
        console.print(note)
    if arguments.csv is not None:
        simulate_report.write_csv(arguments.csv, windows)
        console.print(f"windows: {arguments.csv}")
    if arguments.plot is not None:
        simulate_report.write_plot(arguments.plot, replays, windows, title=source.about)
        console.print(f"plot: {arguments.plot}")
    return 0


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


def _reading_plans(
    arguments: argparse.Namespace, reference: Reference, reading: Reading, source: Source
) -> "list[Plan]":
    """The strategy, and beside it a fixed alpha under the same hard limits: one that costs as much on the answered
    prompts, or makes about as many strong calls."""
    from training import strategy_fits
    from training.simulate_plans import Plan

    limits, on_exhausted = _limits(arguments), OnExhausted(arguments.on_exhausted)
    alpha = arguments.alpha
    if alpha is None and source.rows is not None:
        alpha = strategy_fits.fit_route(source.rows, simulate_reading_cli.cost(reading.policy, source.rows)).alpha
    elif alpha is None:
        alpha = routing.alpha_for_share(reference.quantiles, reading.strong_call_share)
    return [
        Plan(name=reading.name, limits=limits, on_exhausted=on_exhausted, reading=reading.policy),
        Plan(name=f"fixed α {alpha:.3f}", alpha=alpha, limits=limits, on_exhausted=on_exhausted),
    ]


def _limits(arguments: argparse.Namespace) -> tuple[Limit, ...]:
    amounts = {period: getattr(arguments, f"usd_per_{period.value}") for period in Period}
    try:
        return tuple(Limit(period, int(usd * NANO_USD_PER_USD)) for period, usd in amounts.items() if usd is not None)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _usd(text: str) -> Decimal:
    try:
        usd = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount: write USD, such as 50 or 12.50") from None
    if not usd >= 0:
        raise argparse.ArgumentTypeError("write an amount of at least 0")
    return usd
