"""What a benchmark came to: two sides measured in turn, their ratio, and the target that it is held to."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sides:
    """The same quantity of two sides, measured A B A B: values of one index were measured next to each other."""

    ours: Sequence[float]
    theirs: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, pair by pair."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]


def alternate(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Sides:
    """Measure both sides in turn, so that a machine that slows down slows both."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return Sides([pair[0] for pair in pairs], [pair[1] for pair in pairs])


_NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `met` is `None` where no target is set, or nothing was measured and `note` says why."""

    what: str
    against: str
    target: str
    ours: str = _NOT_MEASURED
    theirs: str = ""
    ratio: str = ""
    met: bool | None = None
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def is_measured(self) -> bool:
        """False where `note` says why there is no number."""
        return self.ours != _NOT_MEASURED


def compared(
    what: str,
    against: str,
    sides: Sides,
    *,
    unit: str,
    at_least: float | None = None,
    at_most: float | None = None,
    digits: int = 0,
    note: str = "",
) -> Row:
    """A row about a ratio, whose target is `at_least` or `at_most`; with neither, it has none."""
    ratios = sides.ratios
    ratio = statistics.median(ratios)
    target, met = "–", None
    if at_least is not None:
        target, met = f"≥ {at_least:g} ×", ratio >= at_least
    elif at_most is not None:
        target, met = f"≤ {at_most:g} ×", ratio <= at_most
    return Row(
        what=what,
        against=against,
        target=target,
        ours=f"{statistics.median(sides.ours):,.{digits}f} {unit}",
        theirs=f"{statistics.median(sides.theirs):,.{digits}f} {unit}",
        ratio=f"{ratio:.2f} × ({min(ratios):.2f}–{max(ratios):.2f})",
        met=met,
        note=note,
        raw={"unit": unit, "ours": list(sides.ours), "theirs": list(sides.theirs), "ratios": ratios},
    )


def bounded(
    what: str,
    against: str,
    values: Sequence[float],
    *,
    unit: str,
    at_most: float | None = None,
    at_least: float | None = None,
    digits: int = 0,
    theirs: str = "",
    note: str = "",
) -> Row:
    """A row whose target is a number of its own unit. Give one of `at_least` and `at_most`."""
    value = statistics.median(values)
    bound = at_least if at_least is not None else at_most
    assert bound is not None
    spread = f" ({min(values):,.{digits}f}–{max(values):,.{digits}f})" if len(values) > 1 else ""
    return Row(
        what=what,
        against=against,
        target=f"{'≥' if at_least is not None else '≤'} {bound:g} {unit}",
        ours=f"{value:,.{digits}f}{spread} {unit}",
        theirs=theirs,
        met=value >= bound if at_least is not None else value <= bound,
        note=note,
        raw={"unit": unit, "ours": list(values)},
    )


def render(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, aligned for a terminal."""
    header = ("what", "against", "reach", "ours", "theirs", "ratio (spread)", "met")
    words = {True: "yes", False: "**no**", None: "–"}
    lines = [header]
    for row in rows:
        ours = row.ours if row.is_measured else f"{row.ours}: {row.note}"
        lines.append((row.what, row.against, row.target, ours, row.theirs, row.ratio, words[row.met]))
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    table.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    notes = [f"- {row.what}: {row.note}" for row in rows if row.note and row.is_measured]
    return "\n".join([*table, "", *notes]).rstrip()
