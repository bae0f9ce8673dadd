"""Two models are a special case of any number: decided and paced, to the last bit, as before it was one."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher_service import pacing, pacing_state, routing
from dispatcher_service.budget import Period
from dispatcher_service.pacing_state import Lease, Pace
from dispatcher_service.pacing_targets import Estimate, PacingPolicy, Reference, ShareTarget, SpendTarget, Target
from dispatcher_service.routing import NEVER_STRONG, Candidates, Objective, Tier
from tests import two_models

CALLS = 100
START = 1_800_000_000.0
REFERENCES = (
    Reference("v1", tuple(0.5 + 0.1 * step / 200 for step in range(201))),
    Reference("v2", tuple((step / 200) ** 2 for step in range(201))),
)
TARGETS = st.lists(
    st.one_of(
        st.one_of(st.just(0.0), st.just(1.0), st.floats(0.0, 1.0)).map(ShareTarget),
        st.builds(SpendTarget, st.integers(0, 100_000_000), st.sampled_from(Period)),
    ),
    min_size=1,
    unique_by=lambda target: target.kind,
)


@settings(max_examples=100, deadline=None)
@given(
    targets=TARGETS,
    floor=st.sampled_from([0.0, 0.0, 0.55]),
    gain=st.sampled_from([0.005, 0.05, 0.3]),
    lease_calls=st.sampled_from([1, 32]),
    seed=st.integers(0, 2**32),
)
def test_ten_thousand_calls_of_a_pair_are_decided_and_paced_as_before(
    targets: list[Target], floor: float, gain: float, lease_calls: int, seed: int
) -> None:
    policy = PacingPolicy(targets=tuple(targets), alpha=floor, gain=gain, lease_calls=lease_calls)
    draw = random.Random(seed)
    now, lease, before, shared = START, Lease(Pace()), Lease(Pace()), Pace()
    for _ in range(CALLS):
        now += draw.choice([0.0, 0.1, 1.0, 60.0])
        weak, strong = draw.randrange(5_000), draw.randrange(50_000)
        estimate, old = Estimate((weak, strong)), two_models.Estimate(weak, strong)
        kind = draw.random()
        if kind < 0.7:
            win_probability = draw.choice([draw.random(), 0.5 + draw.random() / 10, 0.0, 0.5, 1.0])
            reference = draw.choice(REFERENCES)
            decision, lease = pacing.decide(
                lease, policy, reference, Candidates.pair(win_probability), estimate, now=now
            )
            decided, before = two_models.decide(before, policy, reference, win_probability, old, now=now)
            assert decision.tier is (Tier.STRONG if decided.strong else Tier.WEAK)
            assert (decision.alpha, decision.win_probability) == (decided.alpha, decided.win_probability)
        elif kind < 0.8:
            went_strong = draw.random() < 0.5
            lease = pacing.forced(lease, policy, rung=int(went_strong), estimate=estimate, now=now)
            before = two_models.forced(before, policy, strong=went_strong, estimate=old, now=now)
        elif kind < 0.87:
            went_strong = draw.random() < 0.5
            lease = pacing.rerouted(lease, policy, by=1.0 if went_strong else -1.0)
            before = two_models.rerouted(before, policy, strong=went_strong)
        elif kind < 0.97:
            actual = draw.randrange(60_000)
            lease = pacing.settled(lease, policy, estimated=strong, actual=actual)
            before = two_models.settled(before, policy, estimated=strong, actual=actual)
        else:
            lease = pacing.refused(lease, policy, until=now + 1_000)
            before = two_models.refused(before, policy, until=now + 1_000)
        assert lease == before
        if lease.exhausted(policy):
            shared = pacing.merge(shared, lease, policy, now=now)
            lease = before = pacing_state.lease_of(shared)


@settings(max_examples=300, deadline=None)
@given(
    st.floats(0.0, 1.0),
    st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0, NEVER_STRONG])),
)
def test_a_pair_goes_strong_exactly_where_its_win_probability_reaches_alpha(
    win_probability: float, alpha: float
) -> None:
    expected = two_models.choose(win_probability, alpha=alpha).strong
    assert (routing.decide(win_probability, alpha=alpha).tier is Tier.STRONG) == expected
    if 0.25 <= alpha <= 0.75 or alpha > 1 or alpha == 0.0:
        by_utility = routing.decide_among(Candidates.pair(win_probability, Objective.UTILITY), alpha=alpha)
        assert (by_utility.tier is Tier.STRONG) == expected
