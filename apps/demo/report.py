"""What the demo shows of the decisions: a table, and one line that sums it up. Money stays integer until it is text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from pointsman.client import Decision, Tier

_NANO_PER_MICRO = 1_000
_OTHER_COLUMNS = 60
"""Characters beside the prompt: tenant 8, win probability 11, alpha 5, model 14, cost 9, and 13 between them."""


@dataclass(frozen=True, slots=True)
class Routed:
    """One prompt, who asked, and what became of it. The decision has its costs."""

    tenant: str
    prompt: str
    decision: Decision


def table(rows: Sequence[Routed], *, width: int) -> Table:
    """One line per prompt, `width` characters wide where that leaves room for some of the prompt."""
    shown = Table(header_style="bold", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    shown.add_column("tenant", no_wrap=True)
    shown.add_column("prompt", overflow="ellipsis", no_wrap=True, width=max(width - _OTHER_COLUMNS, 16))
    shown.add_column("win\nprobability", justify="right", no_wrap=True)
    shown.add_column("α", justify="right", no_wrap=True, min_width=5)
    shown.add_column("model", no_wrap=True)
    shown.add_column("cost", justify="right", no_wrap=True, min_width=9)
    for row in rows:
        decision = row.decision
        shown.add_row(
            row.tenant,
            # One line, and a Text: brackets in a prompt are not markup.
            Text(" ".join(row.prompt.split())),
            _probability(decision.win_probability),
            _probability(decision.alpha),
            Text(decision.model, style="bold magenta" if decision.tier is Tier.STRONG else ""),
            usd(decision.cost_nano_usd),
        )
    return shown


def shares(rows: Sequence[Routed], wanted: Mapping[str, float]) -> list[str]:
    """Per tenant of `wanted`: the share of strong calls that it asked for, and what these prompts gave."""
    lines = []
    for tenant, share in wanted.items():
        tiers = [row.decision.tier for row in rows if row.tenant == tenant]
        strong = tiers.count(Tier.STRONG)
        lines.append(
            f"{tenant}: wants {share:.0%} strong, got {strong} of {len(tiers)} ({_percent(strong, len(tiers))})"
        )
    return lines


def summary(rows: Sequence[Routed], *, caveat: str) -> str:
    """`routed N prompts: S strong (P%), cost $X, saved $Y (Z%) vs all-strong`, and the caveat where there is one.

    All-strong is the strong model's price for the same token counts, an estimate where the weak model answered.
    """
    strong = sum(row.decision.tier is Tier.STRONG for row in rows)
    cost = sum(row.decision.cost_nano_usd for row in rows)
    all_strong = sum(row.decision.all_strong_cost_nano_usd for row in rows)
    saved = all_strong - cost
    line = (
        f"routed {len(rows)} prompts: {strong} strong ({_percent(strong, len(rows))}), cost {usd(cost)}, "
        f"saved {usd(saved)} ({_percent(saved, all_strong)}) vs all-strong"
    )
    return f"{line} ({caveat})" if caveat else line


def usd(nano_usd: int) -> str:
    """Nano-USD as dollars, rounded half up to a millionth: the calls here cost less than a cent."""
    sign = "-" if nano_usd < 0 else ""
    micro = (abs(nano_usd) + _NANO_PER_MICRO // 2) // _NANO_PER_MICRO
    return f"{sign}${micro // 1_000_000}.{micro % 1_000_000:06d}"


def _percent(part: int, whole: int) -> str:
    """Rounded to a whole percent; nothing of nothing is 0%."""
    return f"{round(100 * part / whole) if whole else 0}%"


def _probability(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"
