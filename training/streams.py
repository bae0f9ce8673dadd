"""Streams of calls for the simulation: generated ones that drift in known ways, and those of a decision log."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from dispatcher_service import pricing
from dispatcher_service.pacing_targets import Estimate
from dispatcher_service.pricing import Price, Usage, UsageSource
from dispatcher_service.routing import Candidates

START = 1_767_225_600
"""When generated streams begin: 2026-01-01 00:00 UTC, the start of an hour, a day and a month."""

KINDS = ("iid", "step", "ramp", "diurnal", "burst")

_STEP = 1.5
_SWING = 1.0
_BURSTS_PER_DAY = 4
_BURST_SECONDS = 1200.0
_BURST_RATE = 10.0
_INPUT_SPREAD, _OUTPUT_SPREAD = 1.0, 0.8

Floats = NDArray[np.float64]


class StreamError(Exception):
    """A decision log cannot be used. The message names the file, the line and the mend."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the simulation sees it.

    Attributes:
        at: seconds since the epoch.
        costs: what it costs at each model of the ladder, cheapest first, in nano-USD.
        candidates: what a threshold decides among; `None` where none may: the model is then `forced`.
        forced: rung of the model that something else decided on.
        acceptances: what a scorer of answers says of each model's answer but the last one's; empty where that is not
            simulated.
        preferences: P(the cheaper model's answer is better), as a ranker says, of every two models in the order of
            `itertools.combinations`; empty where that is not simulated.
        qualities: of each model's answer; empty where that is not known.
    """

    at: float
    costs: tuple[int, ...]
    candidates: Candidates | None = None
    forced: int = 0
    acceptances: tuple[float, ...] = ()
    preferences: tuple[float, ...] = ()
    qualities: tuple[float, ...] = ()

    @property
    def top(self) -> int:
        """Rung of the strongest model."""
        return len(self.costs) - 1

    def x(self, rung: int) -> float:
        """The part of the way from the cheapest cost to the strongest's, see `pacing`."""
        return Estimate(self.costs).fraction(rung)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What a generated stream looks like.

    Attributes:
        kind: one of `KINDS`.
        calls: how many.
        days: over how long.
        strong, weak: prices of the two models.
        input_tokens, output_tokens: medians of log-normal counts, with a spread (σ of the logarithm) of 1.0 and 0.8.
        seed: of every random choice.
    """

    kind: str
    calls: int
    days: float
    strong: Price
    weak: Price
    input_tokens: int = 400
    output_tokens: int = 250
    seed: int = 0


def generate(
    traffic: Traffic,
    quantiles: Sequence[float],
    *,
    acceptances: Sequence[float] = (),
    preferences: Sequence[float] = (),
) -> list[Call]:
    """Calls whose win probabilities come from an artefact's quantiles, harder or easier as the kind of stream has it.

    Hardness moves the percentile: a prompt at percentile u stands at Φ(Φ⁻¹(u) + h).

    `iid`: h = 0, evenly busy. `step`: h = 1.5 from half-way on, so that a fixed alpha for 30 % strong then sends 84 %.
    `ramp`: h grows from 0 to 1.5. `diurnal`: h and the rate follow the hour, hardest and busiest at 18:00 UTC.
    `burst`: four times a day, for 20 minutes, ten times the traffic at h = 1.5.

    With `acceptances`, quantiles of an artefact that scores answers, each call also has what it says of the weak
    answer: at Φ(Φ⁻¹(v) − h), with v independent of u. Harder traffic is answered worse; beyond that, what a prompt and
    what an answer tell are taken to be different things.

    With `preferences`, quantiles of an artefact that ranks answers, each call also has how often it says that the weak
    answer is better: at Φ(Φ⁻¹(w) − Φ⁻¹(p)), with p the call's win probability and w independent of it. Rankers tell
    as much for one answer as against the other, so that the strong answer is preferred with probability p.
    """
    random = np.random.default_rng(traffic.seed)
    length = traffic.days * 86_400
    offsets, hardness = arrivals(traffic.kind, traffic.calls, length, random)
    percentiles: Floats = norm.cdf(random.standard_normal(traffic.calls) + hardness)
    win_probabilities = _at(quantiles, percentiles)
    inputs = _counts(random, traffic.input_tokens, _INPUT_SPREAD, traffic.calls)
    outputs = _counts(random, traffic.output_tokens, _OUTPUT_SPREAD, traffic.calls)
    accepted: list[tuple[float, ...]] = [()] * traffic.calls
    if acceptances:
        places = norm.cdf(random.standard_normal(traffic.calls) - hardness)
        accepted = [(float(acceptance),) for acceptance in _at(acceptances, places)]
    preferred: list[tuple[float, ...]] = [()] * traffic.calls
    if preferences:
        places = norm.cdf(random.standard_normal(traffic.calls) - norm.ppf(win_probabilities))
        preferred = [(float(preference),) for preference in _at(preferences, places)]
    calls = []
    for offset, probability, tokens_in, tokens_out, acceptance, preference in zip(
        offsets, win_probabilities, inputs, outputs, accepted, preferred, strict=True
    ):
        usage = Usage(input_tokens=int(tokens_in), output_tokens=int(tokens_out), source=UsageSource.ESTIMATED)
        costs = pricing.cost(traffic.weak, usage), pricing.cost(traffic.strong, usage)
        pair = Candidates.pair(float(probability))
        calls.append(Call(START + float(offset), costs, pair, acceptances=acceptance, preferences=preference))
    return calls


def _at(quantiles: Sequence[float], percentiles: Floats) -> Floats:
    """What stands at these percentiles, linear between evenly spaced quantiles."""
    return np.asarray(np.interp(percentiles, np.linspace(0.0, 1.0, len(quantiles)), np.asarray(quantiles)))


def arrivals(kind: str, calls: int, length: float, random: np.random.Generator) -> tuple[Floats, Floats]:
    """When calls come, in seconds from the start and ascending, and how hard they are: h of `generate`."""
    even = np.sort(random.uniform(0.0, length, calls))
    if kind == "iid":
        return even, np.zeros(calls)
    if kind == "step":
        return even, np.where(even < length / 2, 0.0, _STEP)
    if kind == "ramp":
        return even, _STEP * even / length
    if kind == "diurnal":
        offsets = _thinned(lambda at: 0.55 + 0.45 * _wave(at), calls, length, random)
        return offsets, _SWING * _wave(offsets)
    if kind == "burst":
        offsets = _thinned(lambda at: np.where(_in_burst(at), 1.0, 1 / _BURST_RATE), calls, length, random)
        return offsets, np.where(_in_burst(offsets), _STEP, 0.0)
    raise ValueError(f"no such kind of stream: {kind}")


def _wave(at: Floats) -> Floats:
    """A sine over the day, from its lowest at 06:00 to its highest at 18:00."""
    return np.asarray(np.sin(2 * math.pi * (at / 86_400 - 0.5)))


def _in_burst(at: Floats) -> NDArray[np.bool_]:
    """Bursts stand in the middle of their part of the day, away from the borders of windows."""
    every = 86_400 / _BURSTS_PER_DAY
    return np.asarray(np.abs(at % every - every / 2) < _BURST_SECONDS / 2)


def _thinned(rate: Callable[[Floats], Floats], calls: int, length: float, random: np.random.Generator) -> Floats:
    """Ascending times with a density in proportion to `rate(times)`, which lies in [0, 1]."""
    kept: list[Floats] = []
    missing = calls
    while missing > 0:
        drawn = random.uniform(0.0, length, 4 * missing)
        drawn = drawn[random.uniform(size=len(drawn)) < rate(drawn)][:missing]
        kept.append(drawn)
        missing -= len(drawn)
    return np.sort(np.concatenate(kept))


def _counts(random: np.random.Generator, median: int, spread: float, calls: int) -> Floats:
    return np.maximum(1.0, np.round(median * np.exp(spread * random.standard_normal(calls))))


@dataclass(frozen=True, slots=True)
class Log:
    """A decision log's calls in the order of their arrival, the scorer versions in it, and how many records cost
    nothing and so say nothing of either tier's cost."""

    calls: list[Call]
    versions: tuple[str, ...]
    unpriced: int


# What a budget degraded, a threshold had decided before.
_FREE_REASONS = ("REASON_AT_OR_ABOVE_ALPHA", "REASON_BELOW_ALPHA", "REASON_BUDGET_DEGRADED")


def read_log(path: Path, *, tenant: str | None) -> Log:
    """The calls of one tenant, or of all, from a file of DecisionRecord JSON lines.

    A decision that no threshold made (a sticky conversation, an override, no scorer) stays as it was.

    Raises:
        StreamError: the file cannot be read, a line is no record, or no record is left.
    """
    calls: list[Call] = []
    versions: dict[str, None] = {}
    unpriced = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, record in _records(path, lines):
                if record.get("kind") == "RECORD_KIND_FEEDBACK":
                    continue
                if tenant is not None and record.get("tenant_id") != tenant:
                    continue
                try:
                    call = _call(record)
                except (KeyError, ValueError, TypeError, AttributeError) as error:
                    raise StreamError(
                        f"{path}:{number}: not a DecisionRecord ({error!r}): give the file that DISPATCHER_DECISION_LOG"
                        " names"
                    ) from error
                if call is None:
                    unpriced += 1
                    continue
                calls.append(call)
                versions.setdefault(record["decision"].get("scorer_version", ""))
    except (OSError, UnicodeDecodeError) as error:
        raise StreamError(f"{path}: cannot be read: {error}") from error
    if not calls:
        of_whom = "" if tenant is None else f" of tenant {tenant!r}"
        raise StreamError(f"{path}: no record{of_whom} with a decision and its costs")
    versions.pop("", None)
    return Log(sorted(calls, key=lambda call: call.at), tuple(versions), unpriced)


_PAIR = 2


def _records(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise StreamError(f"{path}:{number}: not JSON ({error}): one DecisionRecord per line") from error
        if not isinstance(record, dict):
            raise StreamError(f"{path}:{number}: not a JSON object: one DecisionRecord per line")
        yield number, record


def _call(record: dict[str, Any]) -> Call | None:
    """`None` if the record has no decision or no cost. Fields that are 0 or empty are left out of proto3 JSON."""
    decision = record.get("decision")
    if decision is None or decision.get("cost_source", "COST_SOURCE_PENDING") == "COST_SOURCE_PENDING":
        return None
    cost, other = int(decision.get("cost_nano_usd", 0)), int(decision.get("other_tier_cost_nano_usd", 0))
    if len(decision.get("candidates", ())) > _PAIR:
        raise StreamError(
            f"tenant {record.get('tenant_id')!r} has more than two models, and what a call costs at each is not in the "
            "log: name a tenant of two models"
        )
    strong = decision["tier"] == "TIER_STRONG"
    free = decision.get("reason") in _FREE_REASONS and decision.get("alpha_source") != "ALPHA_SOURCE_OVERRIDE"
    return Call(
        at=datetime.fromisoformat(record["received_at"]).timestamp(),
        costs=(other, cost) if strong else (cost, other),
        candidates=Candidates.pair(float(decision["win_probability"])) if free else None,
        forced=int(strong),
    )
