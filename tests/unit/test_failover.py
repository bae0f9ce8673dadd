"""Which deployment comes next, and when: by hand, and by properties over every order of failures."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_service.catalogue import Deployment, Model, RetryPolicy
from dispatcher_service.chat import PartKind
from dispatcher_service.errors import (
    UpstreamError,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamSkipped,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.failover import Failure, Leg, Route, Step, next_step, route, weighted_order
from dispatcher_service.pricing import Price
from dispatcher_service.routing import Ladder

FREE = Price(input=0, cached_input=0, cache_write=0, output=0, reasoning=0)
LADDER = Ladder(("small", "big"))
POLICY = RetryPolicy(tries=2, max_attempts=6, backoff=0.1, max_backoff=5.0)


def deployment(name: str, model: str = "big", weight: float = 1.0) -> Deployment:
    return Deployment(name=name, model=model, base_url="http://unused", upstream_model=model, weight=weight)


A, B, C, D = deployment("a"), deployment("b"), deployment("c", "spare"), deployment("d", "small")
DEPLOYMENTS = {"big": (A, B), "spare": (C,), "small": (D,)}
MODELS = {
    "big": Model(name="big", prices=(FREE,), part_tokens={PartKind.IMAGE: 9}, fallbacks=("spare", "small")),
    "spare": Model(name="spare", prices=(FREE,), part_tokens={}),
    "small": Model(name="small", prices=(FREE,), part_tokens={PartKind.IMAGE: 9}),
}
ROUTE: Route = (Leg(1, "big", (A, B)), Leg(1, "spare", (C,)), Leg(0, "small", (D,)))


def broken(name: str) -> UpstreamError:
    return UpstreamUnavailable(name, "broke", may_be_billed=False)


def step(
    failures: list[Failure], *, now: float = 0.0, deadline: float | None = None, plan: Route = ROUTE
) -> Step | None:
    return next_step(plan, failures, now=now, deadline=deadline, policy=POLICY, draw=lambda: 1.0)


def models_of(**changes: object) -> list[str]:
    arguments = {"fallback_to_other_tier": False, "in_tool_loop": False, "fits": lambda _: True} | changes
    legs = route(
        rung=1,
        ladder=LADDER,
        fitting=(0, 1),
        models=MODELS,
        deployments=DEPLOYMENTS,
        draw=lambda: 0.5,
        **arguments,  # type: ignore[arg-type]
    )
    return [leg.model for leg in legs]


def test_the_route_is_the_model_its_fallbacks_and_then_the_other_tier_where_that_is_allowed() -> None:
    without = {name: MODELS[name] for name in MODELS} | {"big": Model(name="big", prices=(FREE,), part_tokens={})}
    assert models_of() == ["big", "spare", "small"]
    for allowed, expected in ((False, ["big"]), (True, ["big", "small"])):
        legs = route(
            rung=1,
            ladder=LADDER,
            fitting=(0, 1),
            models=without,
            deployments=DEPLOYMENTS,
            fallback_to_other_tier=allowed,
            in_tool_loop=False,
            fits=lambda _: True,
            draw=lambda: 0.5,
        )
        assert [leg.model for leg in legs] == expected
    assert legs[-1].rung == 0


def test_in_a_tool_loop_the_model_never_changes() -> None:
    assert models_of(in_tool_loop=True, fallback_to_other_tier=True) == ["big"]


def test_a_fallback_that_cannot_take_the_request_is_left_out() -> None:
    assert models_of(fits=lambda model: PartKind.IMAGE in model.part_tokens) == ["big", "small"]


def test_the_tenants_other_models_are_tried_the_next_stronger_first_and_then_the_next_cheaper() -> None:
    names = ("a", "b", "c", "d", "e")
    models = {name: Model(name=name, prices=(FREE,), part_tokens={}) for name in names}
    deployments = {name: (deployment(name, name),) for name in names}
    legs = route(
        rung=2,
        ladder=Ladder(names),
        fitting=(0, 1, 2, 4),
        models=models,
        deployments=deployments,
        fallback_to_other_tier=True,
        in_tool_loop=False,
        fits=lambda _: True,
        draw=lambda: 0.5,
    )
    assert [(leg.rung, leg.model) for leg in legs] == [(2, "c"), (4, "e"), (1, "b"), (0, "a")]


def test_deployments_are_drawn_by_weight_and_those_of_weight_0_stand_by() -> None:
    listed = [deployment("heavy", weight=3), deployment("light", weight=1), deployment("standby", weight=0)]
    draw = random.Random(1).random
    orders = [[d.name for d in weighted_order(listed, draw)] for _ in range(4000)]
    assert {order[-1] for order in orders} == {"standby"}
    # 3 of 4 draws: the standard deviation of the share is 0.0068.
    assert Counter(order[0] for order in orders)["heavy"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_every_deployment_of_a_model_is_tried_before_any_is_tried_again_and_then_the_next_model() -> None:
    failures: list[Failure] = []
    tried = []
    now = 0.0
    while (taken := step(failures, now=now)) is not None:
        now += taken.wait
        tried.append((taken.deployment.name, round(taken.wait, 3)))
        failures.append(Failure(taken.deployment.name, broken(taken.deployment.name), now))
    # With the jitter at its most a deployment is tried again 0.1 s after it failed; six attempts are the most.
    assert tried == [("a", 0.0), ("b", 0.0), ("a", 0.1), ("b", 0.0), ("c", 0.0), ("c", 0.1)]


def test_a_rate_limit_is_passed_over_while_another_model_is_left_and_waited_for_when_none_is() -> None:
    limited = [Failure(name, UpstreamRateLimited(name, 2.0), 0.0) for name in ("a", "b")]
    taken = step(limited)
    assert taken is not None
    assert (taken.deployment, taken.wait) == (C, 0.0)
    alone = step(limited, plan=ROUTE[:1])
    assert alone is not None
    assert (alone.deployment, alone.wait) == (A, 2.0)


def test_a_longer_wait_than_the_policy_or_the_caller_allows_is_not_begun() -> None:
    plan: Route = (Leg(1, "big", (A,)),)
    assert step([Failure("a", UpstreamRateLimited("a", 5.1), 0.0)], plan=plan) is None
    limited = [Failure("a", UpstreamRateLimited("a", 2.0), 0.0)]
    assert step(limited, plan=plan, deadline=1.9) is None
    assert step(limited, plan=plan, deadline=2.1) is not None


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRejected("a", "no such parameter"),
        UpstreamTimeout("a", "no answer in time", may_be_billed=True, out_of_time=True),
    ],
)
def test_what_no_other_deployment_would_answer_better_ends_the_request(error: UpstreamError) -> None:
    assert step([Failure("a", error, 0.0)]) is None


def test_a_deployment_that_refuses_our_key_is_not_tried_again_but_another_is() -> None:
    refused = UpstreamUnavailable("a", "answered HTTP 401", may_be_billed=False, retryable=False)
    taken = step([Failure("a", refused, 0.0), Failure("b", broken("b"), 0.0)])
    assert taken is not None
    assert taken.deployment is B


def test_a_deployment_that_was_not_called_is_no_attempt() -> None:
    policy = RetryPolicy(tries=2, max_attempts=1)
    skipped = [Failure("a", UpstreamSkipped("a", "left alone", asked_to_wait=8.0), 0.0)]
    taken = next_step(ROUTE, skipped, now=0.0, deadline=None, policy=policy, draw=lambda: 1.0)
    assert taken is not None
    assert taken.deployment is B


_ERRORS = st.sampled_from(["broken", "limited", "timeout", "refused", "skipped"])


def _error(kind: str, name: str, wait: float) -> UpstreamError:
    return {
        "broken": broken(name),
        "limited": UpstreamRateLimited(name, wait),
        "timeout": UpstreamTimeout(name, "no answer in time", may_be_billed=True),
        "refused": UpstreamUnavailable(name, "HTTP 401", may_be_billed=False, retryable=False),
        "skipped": UpstreamSkipped(name, "left alone", asked_to_wait=wait),
    }[kind]


@given(
    kinds=st.lists(st.tuples(_ERRORS, st.floats(0, 20), st.floats(0, 3)), min_size=30, max_size=30),
    policy=st.builds(
        RetryPolicy,
        tries=st.integers(1, 4),
        max_attempts=st.integers(1, 12),
        backoff=st.floats(0.01, 2),
        max_backoff=st.floats(0.1, 10),
    ),
    deadline=st.none() | st.floats(0.1, 60),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_whatever_fails_the_attempts_end_in_time_and_keep_their_bounds(
    kinds: list[tuple[str, float, float]], policy: RetryPolicy, deadline: float | None, jitter: float
) -> None:
    now, failures = 0.0, list[Failure]()
    for kind, wait, took in kinds:
        taken = next_step(ROUTE, failures, now=now, deadline=deadline, policy=policy, draw=lambda: jitter)
        if taken is None:
            break
        assert 0 <= taken.wait < policy.max_backoff
        now += taken.wait
        assert deadline is None or now < deadline
        name = taken.deployment.name
        last = [failure for failure in failures if failure.deployment == name][-1:]
        assert all(now >= failure.at + failure.error.asked_to_wait - 1e-9 for failure in last), (
            "Retry-After is honoured"
        )
        now += took
        failures.append(Failure(name, _error(kind, name, wait), now))
    else:
        pytest.fail("30 failures did not end it")
    counts = Counter(failure.deployment for failure in failures)
    assert all(count <= policy.tries for count in counts.values())
    assert sum(failure.error.called for failure in failures) <= policy.max_attempts
