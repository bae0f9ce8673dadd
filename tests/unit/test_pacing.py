"""Pacing: the guarantee for any sequence of calls, the decision rule, forced calls, money, replicas, new versions."""

import math
import random
from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher_service import pacing, pacing_state, routing
from dispatcher_service.budget import Period
from dispatcher_service.pacing_state import Integrator, Lease, Pace
from dispatcher_service.pacing_targets import Estimate, PacingPolicy, Reference, ShareTarget, SpendTarget
from dispatcher_service.routing import NEVER_STRONG, Candidates, Objective, Tier

REFERENCE = Reference("v1", tuple(0.5 + 0.1 * step / 200 for step in range(201)))
ESTIMATE = Estimate((1_000, 31_000))
HOUR_START = 1_800_000_000 // 3600 * 3600


def _share(target: float, *, gain: float = 0.05, lease_calls: int = 32) -> PacingPolicy:
    return PacingPolicy(targets=(ShareTarget(target),), gain=gain, lease_calls=lease_calls)


def _widest_window(deviations: Sequence[float]) -> float:
    """max |Σ| over all windows of consecutive calls."""
    sums = list(accumulate(deviations, initial=0.0))
    return max(sums) - min(sums)


class Shared:
    """What the replicas of a tenant share."""

    def __init__(self) -> None:
        self.pace = Pace()


class Replica:
    """One dispatcher. Alone it is the only one that merges into its `Shared`."""

    def __init__(self, policy: PacingPolicy, shared: Shared | None = None) -> None:
        self.policy = policy
        self.shared = shared or Shared()
        self.lease = pacing_state.lease_of(self.shared.pace)

    @property
    def integrator(self) -> Integrator:
        return self.lease.pace.integrators[self.policy.targets[0].key]

    def merge(self, now: float = 0.0) -> None:
        self.shared.pace = pacing.merge(self.shared.pace, self.lease, self.policy, now=now)
        self.lease = pacing_state.lease_of(self.shared.pace)

    def decide(
        self,
        win_probability: float,
        *,
        now: float = 0.0,
        estimate: Estimate = ESTIMATE,
        reference: Reference = REFERENCE,
    ) -> bool:
        """A free decision; the decision rule is checked on each."""
        expected = pacing.effective_alpha(self.lease, self.policy, reference, now=now)
        pair = Candidates.pair(win_probability)
        decision, self.lease = pacing.decide(self.lease, self.policy, reference, pair, estimate, now=now)
        assert decision == routing.decide(win_probability, alpha=expected)
        if self.lease.exhausted(self.policy):
            self.merge(now)
        return decision.tier is Tier.STRONG

    def force(self, strong: bool, *, now: float = 0.0) -> float:
        """A forced decision; returns the calls' worth that saturation dropped, strong counted positive."""
        key = self.policy.targets[0].key
        before = self.lease.pace.integrators.get(key)
        self.lease = pacing.forced(self.lease, self.policy, rung=int(strong), estimate=ESTIMATE, now=now)
        after = self.lease.pace.integrators[key]
        dropped = after.dropped_strong - after.dropped_weak
        if before is not None:
            dropped -= before.dropped_strong - before.dropped_weak
        if self.lease.exhausted(self.policy):
            self.merge(now)
        return dropped


FREE = st.floats(0.0, 1.0)
CALLS = st.lists(st.one_of(FREE, FREE, st.booleans()), max_size=400)


@settings(max_examples=150, deadline=None)
@given(CALLS, st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.9, 1.0]), st.sampled_from([0.005, 0.05, 0.3]))
def test_any_sequence_stays_within_the_bound_plus_what_forced_calls_dropped(
    calls: list[float | bool], share: float, gain: float
) -> None:
    replica = Replica(_share(share, gain=gain))
    deviations = []
    for call in calls:
        if isinstance(call, bool):
            deviations.append(call - share - replica.force(call))
        else:
            deviations.append(replica.decide(call) - share)
    assert _widest_window(deviations) <= (1 + gain) / gain + 1e-6


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Candidates, Estimate]:
    """What a request may bring of two to six models, with costs in any order; some of them may not fit it."""
    top = draw(st.integers(1, 5))
    estimate = Estimate(tuple(draw(st.lists(st.integers(0, 10_000), min_size=top + 1, max_size=top + 1))))
    fits = draw(st.one_of(st.none(), st.lists(st.integers(0, top), min_size=1, unique=True)))
    rungs = tuple(range(top + 1)) if fits is None else tuple(sorted(fits))
    objective = draw(st.sampled_from(Objective))
    return Candidates(
        rungs=rungs,
        beaten=tuple(0.5 if rung == top else draw(FREE) for rung in rungs),
        fractions=tuple(map(estimate.fraction, rungs)),
        top=top,
        objective=objective,
    ), estimate


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(ladders(), ladders(), st.integers(0, 2)), max_size=150),
    st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]),
    st.sampled_from([0.005, 0.05, 0.3]),
)
def test_of_many_models_the_integral_of_x_stays_within_the_bound_plus_what_saturation_dropped(
    calls: list[tuple[Candidates, Estimate] | int], share: float, gain: float
) -> None:
    """Ladders of any length in any mix, either objective, models that do not fit, and forced calls."""
    policy = _share(share, gain=gain, lease_calls=10_000)
    lease = Lease(Pace())
    key = policy.targets[0].key
    deviations, dropped = [], 0.0
    three = Estimate((1_000, 4_000, 31_000))
    for call in calls:
        if isinstance(call, int):
            lease = pacing.forced(lease, policy, rung=call, estimate=three, now=0.0)
            x = three.fraction(call)
        else:
            candidates, estimate = call
            decision, lease = pacing.decide(lease, policy, REFERENCE, candidates, estimate, now=0.0)
            x = estimate.fraction(decision.rung)
        assert 0.0 <= x <= 1.0
        integrator = lease.pace.integrators[key]
        assert -gain * share - 1e-9 <= integrator.level <= 1 + gain * (1 - share) + 1e-9
        cut = integrator.dropped_strong - integrator.dropped_weak
        if not isinstance(call, int) and candidates.reach_both_ends:
            assert cut == dropped, "a free decision is never cut off"
        deviations.append(x - share - (cut - dropped))
        dropped = cut
    assert _widest_window(deviations) <= (1 + gain) / gain + 1e-6


@pytest.mark.parametrize("objective", Objective)
def test_three_models_hold_a_share_of_the_way_from_cheapest_to_dearest(objective: Objective) -> None:
    rng = random.Random(9)
    policy = _share(0.3, gain=0.005)
    estimate = Estimate((1_000, 7_000, 31_000))  # the middle one stands at x = .2
    fractions = tuple(map(estimate.fraction, range(3)))
    pace, lease = Pace(), Lease(Pace())
    rungs = []
    for _ in range(4_000):
        need = rng.uniform(0.5, 0.7)
        candidates = Candidates(
            rungs=(0, 1, 2), beaten=(need, 0.5 + (need - 0.5) / 2, 0.5), fractions=fractions, top=2, objective=objective
        )
        decision, lease = pacing.decide(lease, policy, REFERENCE, candidates, estimate, now=0.0)
        rungs.append(decision.rung)
        if lease.exhausted(policy):
            pace = pacing.merge(pace, lease, policy, now=0.0)
            lease = pacing_state.lease_of(pace)
    settled = rungs[2_000:]
    assert sum(fractions[rung] for rung in settled) / 2_000 == pytest.approx(0.3, abs=0.02)
    assert set(settled) == {0, 1, 2}


def test_money_of_many_models_is_spent_at_the_rate_of_the_limit() -> None:
    # One call a second: all cheapest is 3.6e6 an hour, all dearest 111.6e6.
    policy = _spend(30_000_000)
    estimate = Estimate((1_000, 7_000, 31_000))
    rng = random.Random(12)
    pace, lease, spent = Pace(), Lease(Pace()), 0
    for call in range(5_000):
        need = rng.uniform(0.5, 0.7)
        candidates = Candidates(rungs=(0, 1, 2), beaten=(need, 0.5 + (need - 0.5) / 2, 0.5), top=2)
        decision, lease = pacing.decide(lease, policy, REFERENCE, candidates, estimate, now=HOUR_START + call)
        spent += estimate.costs[decision.rung] if call >= 1_400 else 0
        if lease.exhausted(policy):
            pace = pacing.merge(pace, lease, policy, now=HOUR_START + call)
            lease = pacing_state.lease_of(pace)
    assert spent == pytest.approx(30_000_000, rel=0.03)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_an_adversary_who_sees_alpha_cannot_leave_the_bound(share: float) -> None:
    """Sends what goes strong as long as anything does, then what goes weak as long as anything does, and again."""
    gain = 0.02
    replica = Replica(_share(share, gain=gain))
    phases = [1.0 if phase % 2 == 0 else 0.0 for phase in range(6) for _ in range(700)]
    deviations = [replica.decide(win_probability) - share for win_probability in phases]
    widest = _widest_window(deviations)
    assert widest <= (1 + gain) / gain + 1e-6
    assert widest >= 0.9 / gain, "the adversary is a real one: it gets close to the bound"


@settings(max_examples=100, deadline=None)
@given(st.floats(-0.2, 1.3), st.lists(FREE, min_size=2, max_size=20).map(sorted), FREE)
def test_alpha_is_the_smallest_score_whose_percentile_reaches_the_level(
    level: float, quantiles: list[float], win_probability: float
) -> None:
    policy = _share(0.3)
    pace = Pace(integrators={"share:0.3": Integrator(level=level)})
    reference = Reference("v", quantiles)
    alpha = pacing.effective_alpha(pacing_state.lease_of(pace), policy, reference, now=0.0)
    if level <= 0:
        assert alpha == 0.0
    elif level > 1:
        assert alpha == NEVER_STRONG
    else:
        assert 0.0 <= alpha <= 1.0


def test_a_share_of_0_is_never_strong_and_a_share_of_1_always() -> None:
    assert not any(Replica(_share(0.0)).decide(1.0) for _ in range(100))
    assert all(Replica(_share(1.0)).decide(0.0) for _ in range(100))


def test_the_first_alpha_is_the_one_that_the_quantiles_give() -> None:
    alpha = pacing.effective_alpha(Lease(Pace()), _share(0.3), REFERENCE, now=0.0)
    assert alpha == pytest.approx(routing.alpha_for_share(REFERENCE.quantiles, 0.3), abs=1e-3)


def test_a_long_run_of_forced_strong_calls_is_not_paid_back_beyond_the_range() -> None:
    """Unsaturated, 2,000 forced-strong calls at η = .005, ρ = .3 made the next 4,528 calls weak."""
    replica = Replica(_share(0.3, gain=0.005, lease_calls=10_000))
    dropped = sum(replica.force(True) for _ in range(2_000))
    assert replica.integrator.level == pytest.approx(1 + 0.005 * 0.7)
    assert dropped == pytest.approx(2_000 * 0.7 - (0.3035 / 0.005))
    assert replica.integrator.dropped_strong == pytest.approx(dropped)
    rng = random.Random(5)
    weak_run = 0
    while not replica.decide(rng.uniform(0.5, 0.6)):
        weak_run += 1
    assert weak_run < 60


def test_looking_at_alpha_moves_nothing() -> None:
    replica = Replica(_share(0.3))
    replica.decide(0.55)
    before = replica.lease
    pacing.effective_alpha(replica.lease, replica.policy, Reference("v2", (0.0, 1.0)), now=5.0)
    assert replica.lease is before


def test_a_new_scorer_version_does_not_make_the_share_jump() -> None:
    """A tenant of hard prompts: both versions rank alike, on other scales, and the tenant is not like the reference."""
    rng = random.Random(11)
    replica = Replica(_share(0.3, gain=0.005))
    second = Reference("v2", tuple(0.2 + 0.7 * (step / 200) ** 2 for step in range(201)))
    windows = []
    for window in range(12):
        strong = 0
        for _ in range(500):
            level = rng.betavariate(5, 2)
            if window < 6:
                strong += replica.decide(0.5 + 0.1 * level)
            else:
                strong += replica.decide(0.2 + 0.7 * level**2, reference=second)
        windows.append(strong / 500)
    assert windows[2:] == pytest.approx([0.3] * 10, abs=0.04)
    assert abs(windows[6] - windows[5]) < 0.03
    assert list(replica.shared.pace.distributions) == ["v1", "v2"]


def test_a_target_that_moves_is_followed_within_a_few_windows() -> None:
    rng = random.Random(2)
    replica = Replica(_share(0.2, gain=0.005))
    for _ in range(1_000):
        replica.decide(rng.uniform(0.5, 0.6))
    replica.policy = _share(0.5, gain=0.005)
    replica_shares = [sum(replica.decide(rng.uniform(0.5, 0.6)) for _ in range(500)) / 500 for _ in range(4)]
    assert replica_shares[-1] == pytest.approx(0.5, abs=0.03)


SCHEDULE = st.lists(st.tuples(st.integers(0, 3), FREE), max_size=600)


@settings(max_examples=60, deadline=None)
@given(SCHEDULE, st.sampled_from([0.1, 0.3, 0.8]), st.sampled_from([1, 8, 32]))
def test_replicas_that_merge_once_per_lease_stay_within_the_bound(
    schedule: list[tuple[int, float]], share: float, lease_calls: int
) -> None:
    gain = 0.02
    shared = Shared()
    policy = _share(share, gain=gain, lease_calls=lease_calls)
    replicas = [Replica(policy, shared) for _ in range(4)]
    deviations = [replicas[index].decide(win_probability) - share for index, win_probability in schedule]
    assert _widest_window(deviations) <= (1 + gain) / gain + 4 * lease_calls + 1e-6


def replica_extreme(*, replicas: int, lease_calls: int, gain: float, share: float, seed: int) -> float:
    """The widest window an adversary finds who sees every alpha and chooses who is called."""
    rng = random.Random(seed)
    shared = Shared()
    policy = _share(share, gain=gain, lease_calls=lease_calls)
    pool = [Replica(policy, shared) for _ in range(replicas)]
    deviations = []
    for phase in range(6):
        wanted = phase % 2 == 0
        for _ in range(600):
            # Those whose stale view still lets the wanted side through come first.
            alphas = [pacing.effective_alpha(one.lease, policy, REFERENCE, now=0.0) for one in pool]
            order = [i for i, alpha in enumerate(alphas) if (alpha <= 1.0) == wanted] or list(range(replicas))
            chosen = pool[rng.choice(order)]
            deviations.append(chosen.decide(1.0 if wanted else 0.0) - share)
    return _widest_window(deviations)


def test_four_replicas_with_leases_of_32_stay_within_the_bound_against_an_adversary() -> None:
    gain = 0.02
    worst = max(
        replica_extreme(replicas=4, lease_calls=32, gain=gain, share=share, seed=seed)
        for share in (0.3, 0.7)
        for seed in range(2)
    )
    assert worst <= (1 + gain) / gain + 4 * 32
    assert worst > (1 + gain) / gain, "staleness costs something: the adversary is a real one"


def _spend(limit: int, *, period: Period = Period.HOUR, **more: object) -> PacingPolicy:
    profile = more.get("profile")
    assert profile is None or isinstance(profile, tuple)
    return PacingPolicy(targets=(SpendTarget(limit, period, profile),), gain=0.01)


def _spent(replica: Replica, rng: random.Random, *, start: float, calls: int, every: float) -> int:
    spent = 0
    for call in range(calls):
        strong = replica.decide(rng.uniform(0.5, 0.6), now=start + call * every)
        spent += ESTIMATE.strong if strong else ESTIMATE.weak
    return spent


def test_money_is_spent_at_the_rate_of_the_limit() -> None:
    # One call a second: all weak is 3.6e6 an hour, all strong 111.6e6. A limit of 40e6 lies between.
    replica = Replica(_spend(40_000_000))
    rng = random.Random(3)
    _spent(replica, rng, start=HOUR_START, calls=1_000, every=1.0)
    spent = _spent(replica, rng, start=HOUR_START + 1_000, calls=3_600, every=1.0)
    assert spent == pytest.approx(40_000_000, rel=0.03)
    assert not replica.lease.pace.integrators["spend_hour"].infeasible


def test_replicas_share_one_rate() -> None:
    shared = Shared()
    policy = _spend(40_000_000)
    replicas = [Replica(policy, shared) for _ in range(4)]
    rng = random.Random(4)
    spent = 0
    for call in range(6_000):
        strong = replicas[call % 4].decide(rng.uniform(0.5, 0.6), now=HOUR_START + call)
        spent += (ESTIMATE.strong if strong else ESTIMATE.weak) if call >= 2_400 else 0
    assert spent == pytest.approx(40_000_000, rel=0.04)


def test_idle_time_is_not_saved_up() -> None:
    replica = Replica(_spend(40_000_000))
    rng = random.Random(3)
    _spent(replica, rng, start=HOUR_START, calls=2_000, every=1.0)
    # After an hour of silence everything may go strong for as long as it takes to cross [0, 1], and no longer.
    after = HOUR_START + 2_000 + 3_600
    spent = _spent(replica, rng, start=after, calls=1_800, every=1.0)
    crossing = 30_000 * (1 + 0.01) / 0.01
    assert spent <= 20_000_000 + crossing
    assert replica.lease.pace.integrators["spend_hour"].level > 0.3


def test_where_even_all_weak_is_too_much_all_go_weak_and_the_target_says_infeasible() -> None:
    replica = Replica(_spend(2_000_000))
    rng = random.Random(6)
    _spent(replica, rng, start=HOUR_START, calls=2_000, every=1.0)
    spent = _spent(replica, rng, start=HOUR_START + 2_000, calls=500, every=1.0)
    assert spent == 500 * ESTIMATE.weak
    integrator = replica.shared.pace.integrators["spend_hour"]
    assert integrator.infeasible
    assert integrator.dropped_strong > 0


def test_settle_adds_only_the_difference() -> None:
    replica = Replica(_spend(40_000_000))
    replica.decide(0.55, now=HOUR_START)
    level = replica.lease.pace.integrators["spend_hour"].level
    same = pacing.settled(replica.lease, replica.policy, estimated=31_000, actual=31_000)
    dearer = pacing.settled(replica.lease, replica.policy, estimated=31_000, actual=61_000)
    assert same.pace.integrators["spend_hour"].level == level
    assert dearer.pace.integrators["spend_hour"].level == pytest.approx(level + 0.01)


def test_a_profile_moves_the_money_to_the_hours_that_need_it() -> None:
    busy = tuple(2.0 if 8 <= hour < 20 else 0.0 for hour in range(24))
    target = SpendTarget(86_400_000, Period.DAY, busy)
    midnight = HOUR_START // 86_400 * 86_400
    assert target.allowed(midnight, midnight + 8 * 3600) == 0.0
    assert target.allowed(midnight, midnight + 14 * 3600) == pytest.approx(43_200_000)
    assert target.allowed(midnight, midnight + 86_400 - 1) == pytest.approx(86_400_000)


def test_the_higher_alpha_of_two_targets_decides_and_the_other_does_not_wind_up() -> None:
    """Money for a share of about .1 beside a target of .3: the share integrator is held at its range, not beyond."""
    policy = PacingPolicy(targets=(ShareTarget(0.3), SpendTarget(14_400_000, Period.HOUR)), gain=0.01)
    replica = Replica(policy)
    rng = random.Random(8)
    _spent(replica, rng, start=HOUR_START, calls=3_000, every=1.0)
    strong = sum(replica.decide(rng.uniform(0.5, 0.6), now=HOUR_START + 3_000 + call) for call in range(1_000))
    assert strong / 1_000 == pytest.approx(0.1, abs=0.02)
    assert replica.integrator.level >= -0.01 * 0.3 - 1e-9


def test_a_fixed_alpha_stays_the_floor_of_what_goes_strong() -> None:
    policy = PacingPolicy(targets=(SpendTarget(10**12, Period.HOUR),), alpha=0.57)
    replica = Replica(policy)
    assert not any(replica.decide(0.569, now=HOUR_START + call) for call in range(2_000))
    assert replica.decide(0.571, now=HOUR_START + 2_000)


def test_only_the_latest_versions_are_kept() -> None:
    replica = Replica(_share(0.3, lease_calls=1))
    for version in range(7):
        replica.decide(0.55, reference=Reference(f"v{version}", REFERENCE.quantiles))
    assert list(replica.shared.pace.distributions) == ["v3", "v4", "v5", "v6"]
    assert math.isfinite(replica.integrator.level)
