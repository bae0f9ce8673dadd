"""What pacing costs in quality: its gain beside that of the best threshold of each window, on real scores and labels.

    python -m benchmarks.pacing_quality [--data DIR] [--artifact DIR] [--share 0.3] [--orders 20]

The prompts of the evaluation files under DIR are scored by the shipped artefact through the scorer's own code, and sent
past `pacing` in many orders: shuffled (iid); swinging between the half of the subjects with the lower and the one with
the higher scores, gradually (diurnal) or at once (step); or subject after subject, each in one block of some 130 calls
(blocks), which is over before any pacing has followed it.

A window's gain is the sum of strong minus weak over the calls that went strong. The best threshold knows the whole
window beforehand and sends the same number of calls strong: what is left of its gain is what pacing keeps. It is a
measure of pacing alone: how good the scores are does not matter.
"""

import argparse
import math
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dispatcher_service import pacing, pacing_state
from dispatcher_service.pacing_state import Pace
from dispatcher_service.pacing_targets import DEFAULT_WINDOW_CALLS, Estimate, PacingPolicy, Reference, pacing_policy
from dispatcher_service.routing import Candidates, Tier
from scorer_service.preprocess import Role, Turn
from scorer_service.scorer import open_scorer

_ARTIFACT = Path(__file__).parents[1] / "scorer_service" / "artifacts" / "default"
_BATCH = 64
_ROUNDS = 4
"""How often a stream goes through all prompts, in another order each time."""
_PERIOD = 5_000
"""Calls in a day of the streams that swing."""
_COST = Estimate((1, 2))


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt's score, how much better strong did on it (-1, 0 or 1), and what it is about."""

    win_probability: float
    gain: float
    subject: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Over all full windows of a stream: gains by labels and by the scores, and the widest miss of the share."""

    by_label: float
    best_by_label: float
    by_score: float
    best_by_score: float
    worst_share_error: float


def read_rows(data: Path, artifact: Path) -> tuple[list[Row], Reference]:
    """The evaluation prompts with their served scores, and the scorer's reference."""
    mmlu = pl.read_parquet(data / "eval" / "mmlu_dev.parquet").select(
        "prompt", "subject", gain=pl.col("strong_correct").cast(pl.Float64) - pl.col("weak_correct")
    )
    gsm8k = pl.read_parquet(data / "eval" / "gsm8k_dev.parquet").select(
        "prompt", subject=pl.lit("gsm8k"), gain=pl.col("strong_correct").cast(pl.Float64) - pl.col("weak_correct")
    )
    rows = pl.concat([mmlu, gsm8k]).drop_nulls()
    scorer = open_scorer(artifact)
    prompts = rows["prompt"].to_list()
    scores: list[float] = []
    for start in range(0, len(prompts), _BATCH):
        turns = [[Turn(Role.USER, prompt)] for prompt in prompts[start : start + _BATCH]]
        passages = [scorer.preprocessor.passage(turn) for turn in turns]
        scores += [float(score) for score in scorer.score(passages).scores.win_probability]
    reference = Reference("shipped", scorer.manifest.score_quantiles)
    return [Row(*row) for row in zip(scores, rows["gain"], rows["subject"], strict=True)], reference


def iid(rows: Sequence[Row], random_: random.Random) -> list[Row]:
    """All prompts, shuffled, several times over."""
    return [row for _ in range(_ROUNDS) for row in random_.sample(rows, len(rows))]


def diurnal(rows: Sequence[Row], random_: random.Random) -> list[Row]:
    """The share of the higher half follows a sine of `_PERIOD` calls."""
    return _mixed(rows, random_, lambda at: 0.5 + 0.5 * math.sin(2 * math.pi * at / _PERIOD))


def step(rows: Sequence[Row], random_: random.Random) -> list[Row]:
    """The halves take turns, half a period each."""
    return _mixed(rows, random_, lambda at: float(at % _PERIOD >= _PERIOD / 2))


def blocks(rows: Sequence[Row], random_: random.Random) -> list[Row]:
    """Subject after subject in a random order, several times over."""
    by_subject = _by_subject(rows)
    return [
        row
        for _ in range(_ROUNDS)
        for subject in random_.sample(list(by_subject), len(by_subject))
        for row in random_.sample(by_subject[subject], len(by_subject[subject]))
    ]


STREAMS = (iid, diurnal, step, blocks)


def _mixed(rows: Sequence[Row], random_: random.Random, higher_share: Callable[[int], float]) -> list[Row]:
    subjects = sorted(_by_subject(rows).values(), key=lambda own: sum(row.win_probability for row in own) / len(own))
    half = len(subjects) // 2
    low, high = ([row for own in side for row in own] for side in (subjects[:half], subjects[half:]))
    return [random_.choice(high if random_.random() < higher_share(at) else low) for at in range(_ROUNDS * len(rows))]


def _by_subject(rows: Sequence[Row]) -> dict[str, list[Row]]:
    by_subject: dict[str, list[Row]] = {}
    for row in rows:
        by_subject.setdefault(row.subject, []).append(row)
    return by_subject


def measure(stream: Sequence[Row], policy: PacingPolicy, reference: Reference, share: float) -> Kept:
    """Send a stream past pacing."""
    pace, lease, strong = Pace(), pacing_state.lease_of(Pace()), []
    for row in stream:
        decision, lease = pacing.decide(lease, policy, reference, Candidates.pair(row.win_probability), _COST, now=0.0)
        strong.append(decision.tier is Tier.STRONG)
        if lease.exhausted(policy):
            pace = pacing.merge(pace, lease, policy, now=0.0)
            lease = pacing_state.lease_of(pace)
    by_label = best_by_label = by_score = best_by_score = worst = 0.0
    for start in range(0, len(stream) - DEFAULT_WINDOW_CALLS + 1, DEFAULT_WINDOW_CALLS):
        window = stream[start : start + DEFAULT_WINDOW_CALLS]
        went = [row for row, is_strong in zip(window, strong[start:], strict=False) if is_strong]
        best = sorted(window, key=lambda row: row.win_probability, reverse=True)[: len(went)]
        by_label += sum(row.gain for row in went)
        best_by_label += sum(row.gain for row in best)
        # A win probability of p is an expected gain of 2p - 1 between -1 and 1.
        by_score += sum(2 * row.win_probability - 1 for row in went)
        best_by_score += sum(2 * row.win_probability - 1 for row in best)
        worst = max(worst, abs(len(went) / len(window) - share))
    return Kept(by_label, best_by_label, by_score, best_by_score, worst)


def main(argv: list[str]) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("POINTSMAN_DATA") or None)
    parser.add_argument("--artifact", type=Path, default=_ARTIFACT)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--orders", type=int, default=20)
    options = parser.parse_args(argv)
    if options.data is None:
        print("error: name the data's folder with --data or POINTSMAN_DATA", file=sys.stderr)
        return 2
    rows, reference = read_rows(options.data, options.artifact)
    policy = pacing_policy(share=options.share, alpha=None, limits=())
    assert policy is not None
    print(
        f"{len(rows)} prompts, {options.orders} orders of {_ROUNDS} rounds, windows of {DEFAULT_WINDOW_CALLS} calls, "
        f"share {options.share:.0%}, gain η = {policy.gain:g}"
    )
    print(f"{'stream':8}{'kept, by labels':>18}{'kept, by scores':>18}{'worst window off by':>22}")
    for order in STREAMS:
        kept = [
            measure(order(rows, random.Random(seed)), policy, reference, options.share)
            for seed in range(options.orders)
        ]
        by_label = sum(each.by_label for each in kept) / sum(each.best_by_label for each in kept)
        by_score = sum(each.by_score for each in kept) / sum(each.best_by_score for each in kept)
        worst = max(each.worst_share_error for each in kept)
        print(f"{order.__name__:8}{by_label:>18.1%}{by_score:>18.1%}{worst:>17.1%} share")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
