"""The thresholds of a cascade and of a hybrid for a budget, on one's own answered prompts, as a tenant takes them.

What the shipped scorers say is taken as it is: nothing is trained. The prompts must be others than those the scorers
were trained on, or the thresholds promise more than traffic will keep.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatcher_service.routing import NEVER_STRONG
from training import strategy_fits
from training.evaluate import alike
from training.metrics import Floats, Interval, Resampling, interval
from training.strategy_plans import Hybrid
from training.strategy_rows import Scored
from training.tables import DataError

FEWEST_PROMPTS = 50
"""Fewer say next to nothing about a quantile."""

_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Setting:
    """A plan for a budget and what it does on the prompts it was fitted to.

    Attributes:
        budget: as a part of all-strong's cost.
        plan: as fitted.
        cost: of all calls, as a part of all-strong's; 95 % over samples of such prompts.
        quality: of the answers given, likewise.
        accepted: of every model but the last, the share of its checked answers that is accepted; NaN where none is
            checked.
        gain: quality less that of plain routing at the same budget, paired.
    """

    budget: float
    plan: Hybrid
    cost: Interval
    quality: Interval
    accepted: tuple[float, ...]
    gain: Interval


def settings(
    rows: Scored, prompts: Sequence[str], budgets: Sequence[float], *, hybrid: bool, seed: int = 0
) -> list[Setting]:
    """Fit a plan to each budget.

    Args:
        rows: what served scorers say of the prompts.
        prompts: [prompts]; those that begin alike are drawn together.
        budgets: parts of all-strong's cost, positive.
        hybrid: also choose an easy and a hard alpha, where they pay.
        seed: of the bootstrap.

    Raises:
        DataError: too few prompts, or a budget below the cost of all-weak.
    """
    if len(prompts) < FEWEST_PROMPTS:
        raise DataError(f"{len(prompts)} answered prompts are too few for a threshold: give {FEWEST_PROMPTS} or more")
    full = rows.all_strong_cost
    least = float(rows.cost[:, 0].mean()) / full
    resampling = Resampling(len(prompts), _DRAWS, seed, alike(prompts))
    found = []
    for budget in budgets:
        if budget < least:
            raise DataError(
                f"a budget of {budget:.1%} is below what the cheapest model alone costs: give {least:.3f} or more"
            )
        fit = strategy_fits.fit_hybrid if hybrid else strategy_fits.fit_cascade
        plan = fit(rows, budget * full)
        outcome = plan.run(rows)
        routed = strategy_fits.fit_route(rows, budget * full).run(rows)
        found.append(
            Setting(
                budget,
                plan,
                _mean(outcome.cost / full, resampling),
                _mean(outcome.quality, resampling),
                tuple(_accepted(rows, plan)),
                _mean(outcome.quality - routed.quality, resampling),
            )
        )
    return found


def _accepted(rows: Scored, plan: Hybrid) -> Iterator[float]:
    """`Setting.accepted`, stage by stage."""
    checked = (rows.win_probability >= plan.easy_alpha) & (rows.win_probability < plan.hard_alpha)
    for acceptances, threshold in zip(rows.acceptances.T, plan.thresholds, strict=True):
        accepts = acceptances >= threshold
        yield float(accepts[checked].mean()) if checked.any() else float("nan")
        checked &= ~accepts


def toml(setting: Setting, tenant: str, models: Sequence[str] = ()) -> str:
    """The lines of the tenant's policy, with its models where they are named."""
    plan = setting.plan
    lines = [f"[tenants.{tenant}]"]
    if models:
        lines.append(f"models = {json.dumps(list(models), ensure_ascii=False)}")
    lines += ['strategy = "cascade"', "", f"[tenants.{tenant}.cascade]"]
    lines.append(f"thresholds = [{', '.join(map(_written, plan.thresholds))}]")
    if plan.easy_alpha > 0.0:
        lines.append(f"easy_alpha = {_written(plan.easy_alpha)}")
    if plan.hard_alpha < NEVER_STRONG:
        lines.append(f"hard_alpha = {_written(plan.hard_alpha)}")
    return "\n".join(lines) + "\n"


def _written(value: float) -> str:
    """Six decimal places, rounded down: what was at a threshold stays at or above it."""
    return f"{math.floor(value * 1e6) / 1e6:.6f}".rstrip("0").ljust(3, "0")


def _mean(values: Floats, resampling: Resampling) -> Interval:
    drawn = resampling.statistics(lambda counts: counts @ values / counts.sum(axis=1))
    return interval(float(values.mean()), drawn)
