"""What a simulation shows: a table of plans, a table or CSV of windows, a plot."""

import csv
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from dispatcher_service.budget import Period
from dispatcher_service.pricing import NANO_USD_PER_USD
from training.simulate_plans import Replay, guarantee, share_of, spend_of
from training.simulate_windows import WindowSummary, by_calls, by_period, total

_MAX_ROWS = 24

Windows = Mapping[str, Sequence[WindowSummary]]
"""By the plan's name."""


def windows_of(replays: Sequence[Replay], *, calls: int, period: Period | None) -> Windows:
    """Windows of every plan, of so many calls, or of a period where one is given."""
    return {
        replay.plan.name: by_calls(replay, calls) if period is None else by_period(replay, period) for replay in replays
    }


def plans_table(replays: Sequence[Replay], windows: Windows) -> Table:
    """One row per plan: what it came to over the whole stream, and in its worst window."""
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    table.add_column("plan", no_wrap=True)
    for column in ("α", "share", "worst\nwindow", "cost", "of all-\nstrong", "gain\nkept", "degraded", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    known = any(window.quality is not None for own in windows.values() for window in own)
    if known:
        table.add_column("quality", justify="right", no_wrap=True)
    for replay in replays:
        own = windows[replay.plan.name]
        whole = total(own)
        all_strong = sum(result.call.costs[-1] for result in replay.results)
        whole_cost = sum(result.cost for result in replay.results)
        table.add_row(
            replay.plan.name,
            _range(whole.alpha),
            f"{whole.share:.1%}",
            worst_window(replay, own),
            f"${whole_cost / NANO_USD_PER_USD:,.2f}",
            f"{whole_cost / all_strong:.0%}",
            f"{kept(whole):.1%}" if kept(whole) is not None else "",
            f"{whole.degraded:,}",
            f"{whole.refused:,}",
            *([f"{whole.mean_quality:.3f}" if whole.mean_quality is not None else ""] if known else []),
        )
    return table


def worst_window(replay: Replay, windows: Sequence[WindowSummary]) -> str:
    """For a rate of spending the window that cost most beside the limit, else the share that is farthest off."""
    spend, share = spend_of(replay.plan), share_of(replay.plan)
    if spend is not None:
        return f"{max(window.cost for window in windows) / spend.amount:.0%} of limit"
    if share is None:
        low, high = (pick(window.share for window in windows) for pick in (min, max))
        return f"{low:.1%} to {high:.1%}"
    farthest = max((window.share - share for window in windows), key=abs)
    return f"{100 * farthest:+.1f} points"


def kept(window: WindowSummary) -> float | None:
    """The gain beside the best threshold's of each window with the same number of strong calls; `None` without one."""
    return window.gain / window.best_gain if window.best_gain > 0 else None


def windows_table(windows: Windows) -> Table:
    """One row per window, share and cost of every plan; at most 24 rows, evenly spread over the stream."""
    names = list(windows)
    first = windows[names[0]]
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("from (UTC)", "calls", *(f"{name}\n{what}" for name in names for what in ("share", "cost"))):
        table.add_column(column, justify="right", no_wrap=True)
    step = -(-len(first) // _MAX_ROWS)
    for index in range(0, len(first), step):
        cells = [f"{_time(first[index].start):%m-%d %H:%M}", f"{first[index].calls:,}"]
        for name in names:
            window = windows[name][index]
            cells += [f"{window.share:.1%}", f"${window.cost / NANO_USD_PER_USD:,.2f}"]
        table.add_row(*cells)
    return table


def bound_note(replay: Replay, window: int) -> str | None:
    """The sentence on the guarantee, for a plan that holds a share over windows of so many calls."""
    share, policy = share_of(replay.plan), replay.plan.pacing
    if share is None or policy is None:
        return None
    points = 100 * min(guarantee(policy) / window, 1.0)
    return (
        f"guaranteed for any calls: within ±{points:.1f} points of {share:.0%} in every window of {window:,} free "
        f"calls (gain {policy.gain:g})"
    )


def write_csv(path: Path, windows: Windows) -> None:
    """Every window of every plan. Costs are integer nano-USD."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["plan", "window", "start", "calls", "strong", "share", "cost_nano_usd", "degraded", "refused",
             "alpha_low", "alpha_high", "gain", "best_gain", "quality"]
        )  # fmt: skip
        for name, own in windows.items():
            for index, window in enumerate(own):
                low, high = window.alpha or ("", "")
                writer.writerow(
                    [name, index, _time(window.start).isoformat(), window.calls, window.strong,
                     f"{window.share:.6f}", window.cost, window.degraded, window.refused, low, high,
                     f"{window.gain:.6f}", f"{window.best_gain:.6f}",
                     "" if window.mean_quality is None else f"{window.mean_quality:.6f}"]
                )  # fmt: skip


def write_plot(path: Path, replays: Sequence[Replay], windows: Windows, *, title: str) -> None:
    """Share and cost per window over time, one line per plan, with the targets dashed. PNG, or what the suffix says."""
    import matplotlib as mpl  # noqa: PLC0415  # slow to import, and needed only here

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, (upper, middle, lower) = pyplot.subplots(3, 1, figsize=(9, 8), sharex=True, layout="constrained")
    for replay in replays:
        own = windows[replay.plan.name]
        times = [_time(window.start) for window in own]
        (line,) = upper.step(times, [100 * window.share for window in own], where="post", label=replay.plan.name)
        colour = line.get_color()
        costs = [window.cost / NANO_USD_PER_USD for window in own]
        middle.step(times, costs, where="post", color=colour)
        points = [result for result in replay.results if result.alpha is not None]
        points = points[:: max(len(points) // 2000, 1)]
        alphas = [min(result.alpha, 1.0) for result in points if result.alpha is not None]
        lower.plot([_time(result.call.at) for result in points], alphas, color=colour, linewidth=0.8)
        share, spend = share_of(replay.plan), spend_of(replay.plan)
        if share is not None:
            upper.axhline(100 * share, color=colour, linestyle="--", linewidth=0.8)
        if spend is not None:
            middle.axhline(spend.amount / NANO_USD_PER_USD, color=colour, linestyle="--", linewidth=0.8)
    upper.set(title=title, ylabel="strong calls per window, %", ylim=(0, 100))
    middle.set(ylabel="cost per window, USD")
    middle.set_ylim(bottom=0)
    lower.set(ylabel="α")
    upper.legend()
    figure.autofmt_xdate()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _range(alpha: tuple[float, float] | None) -> str:
    if alpha is None:
        return ""
    low, high = (f"{end:.3f}" if end <= 1 else "above 1" for end in alpha)
    return low if low == high else f"{low} to {high}"


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
