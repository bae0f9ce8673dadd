"""Streams of calls drawn from answered prompts: what scorers say of real text, and how good the answers were."""

from dataclasses import replace

import numpy as np
from scipy.stats import norm

from training import streams
from training.strategy_plans import candidates
from training.strategy_rows import Scored
from training.streams import Call

_NANO_USD = 1e9


def draw(rows: Scored, *, kind: str, calls: int, days: float, seed: int) -> list[Call]:
    """Calls whose prompts are drawn with replacement, harder or easier ones as the kind of stream has it.

    A call at percentile u of `streams.generate` is the prompt at percentile u of these by win probability.

    Args:
        rows: with acceptances where answers are scored, and preferences where they are ranked.
        kind: one of `streams.KINDS`.
        calls: how many.
        days: over how long.
        seed: of every random choice.
    """
    random = np.random.default_rng(seed)
    offsets, hardness = streams.arrivals(kind, calls, days * 86_400, random)
    percentiles = norm.cdf(random.standard_normal(calls) + hardness)
    hardest_last = np.argsort(rows.win_probability, kind="stable")
    places = np.minimum((percentiles * len(hardest_last)).astype(np.intp), len(hardest_last) - 1)
    prompts = [_call(rows, row) for row in range(len(hardest_last))]
    return [
        replace(prompts[row], at=streams.START + float(offset))
        for offset, row in zip(offsets, hardest_last[places], strict=True)
    ]


def _call(rows: Scored, row: int) -> Call:
    return Call(
        at=streams.START,
        costs=tuple(round(usd * _NANO_USD) for usd in rows.cost[row].tolist()),
        candidates=candidates(rows.beaten[row]),
        acceptances=tuple(rows.acceptances[row].tolist()),
        preferences=tuple(rows.preferences[row].tolist()),
        qualities=tuple(rows.quality[row].tolist()),
    )
