"""The use case: which model, at what price, and what is recorded when things end early."""

import dataclasses
from collections.abc import Sequence

import pytest

from dispatcher_service.answer import Delta
from dispatcher_service.booking import Book
from dispatcher_service.catalogue import (
    Catalogue,
    Deployment,
    FixedAlpha,
    Model,
    OnScorerFailure,
    StrongCallShare,
    TenantPolicy,
)
from dispatcher_service.chat import Audio, Chat, Image, Message, PartKind, Request, Role, Text
from dispatcher_service.dispatch import Broken, Dispatcher, Finished, Started
from dispatcher_service.drains import Drains
from dispatcher_service.errors import (
    Forbidden,
    InvalidRequest,
    ScorerUnavailable,
    Unauthenticated,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dispatcher_service.gates import Gates
from dispatcher_service.identity import OPEN
from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.outcome import Outcome
from dispatcher_service.pacer import LedgerPacer
from dispatcher_service.pricing import Price, UsageSource
from dispatcher_service.routing import AlphaSource, Ladder, LeftOut, Reason, Tier
from dispatcher_service.scorer_targets import ScorerTarget
from tests.fakes import FakeJudge, FakeObserver, FakeScorer, FakeUpstream, Unobserved

STRONG_PRICE = Price(input=10_000_000, cached_input=0, cache_write=0, output=20_000_000, reasoning=0)
WEAK_PRICE = Price(input=1_000_000, cached_input=0, cache_write=0, output=2_000_000, reasoning=0)
# FakeUpstream reports 1000 input and 100 output tokens.
STRONG_COST, WEAK_COST = 1000 * 10 + 100 * 20, 1000 * 1 + 100 * 2


def policy(**changes: object) -> TenantPolicy:
    base = TenantPolicy(
        tenant_id="t",
        ladder=Ladder(("small", "big")),
        dial=FixedAlpha(0.5),
        on_scorer_failure=OnScorerFailure.WEAK,
        allow_alpha_override=True,
        extra_body_keys=frozenset({"top_k"}),
        scorer="",
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


class Bench:
    """A dispatcher over fakes, with what it recorded."""

    def __init__(
        self,
        scorer: FakeScorer | None = None,
        upstream: FakeUpstream | None = None,
        small_part_tokens: dict[PartKind, int] | None = None,
        **changes: object,
    ) -> None:
        self.scorer = scorer or FakeScorer()
        self.upstream = upstream or FakeUpstream()
        self.judge = FakeJudge()
        self.outcomes: list[Outcome] = []
        self.observer = FakeObserver()
        self.now = 0.0
        self.wall = 1e9
        more: Sequence[Model] = changes.pop("more", ())  # type: ignore[assignment]
        self.ledger: Ledger = changes.pop("ledger", None) or MemoryLedger(lambda: self.wall)  # type: ignore[assignment]
        self.book = Book(
            self.ledger, observe=self.observer, clock=lambda: self.now, wall_clock=lambda: self.wall, drain=1
        )
        deployments = {
            model: (
                Deployment(
                    name=f"{model}-1",
                    model=model,
                    base_url="http://unused",
                    upstream_model=model,
                    max_tokens_parameter="max_tokens",
                    timeout=60,
                    connect_timeout=1,
                ),
            )
            for model in ("big", "small", *(model.name for model in more))
        }
        self.catalogue = Catalogue(
            scorer=ScorerTarget(address="unused", timeout=0.2),
            models={
                "big": Model(
                    name="big", prices=(STRONG_PRICE,), max_output_tokens=1000, part_tokens={PartKind.IMAGE: 1000}
                ),
                "small": Model(
                    name="small", prices=(WEAK_PRICE,), max_output_tokens=1000, part_tokens=small_part_tokens or {}
                ),
                **{model.name: model for model in more},
            },
            deployments=deployments,
            tenants={"t": policy(**changes)},
            auth=OPEN,
        )
        self.dispatcher = self.rebuilt()

    def rebuilt(self) -> Dispatcher:
        """A dispatcher over the catalogue as it is now."""
        return Dispatcher(
            catalogue=lambda: self.catalogue,
            scorer=self.scorer,
            judge=self.judge,
            upstream=self.upstream,
            book=self.book,
            pacer=LedgerPacer(
                self.ledger, clock=lambda: self.now, wall_clock=lambda: self.wall, observe=lambda *_: None
            ),
            record=self.outcomes.append,
            gates=Gates(clock=lambda: self.now, observe=Unobserved()),
            drains=Drains(observe=lambda _: None),
            clock=lambda: self.now,
            wall_clock=lambda: self.wall,
            sleep=self._sleep,
            draw=lambda: 0.5,
        )

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


def request(**changes: object) -> Request:
    chat = Chat(messages=(Message(Role.USER, (Text("What is 2 + 2?"),)),), text_bytes=14)
    return dataclasses.replace(Request(tenant_id="t", chat=chat, request_id="r"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("win_probability", "model", "reason"),
    [
        (0.49, "small", Reason.BELOW_ALPHA),
        (0.50, "big", Reason.AT_OR_ABOVE_ALPHA),
        (0.51, "big", Reason.AT_OR_ABOVE_ALPHA),
    ],
)
async def test_the_win_probability_against_alpha_picks_the_model(
    win_probability: float, model: str, reason: Reason
) -> None:
    bench = Bench(FakeScorer(win_probability))
    answer = await bench.dispatcher.complete(request())
    assert (answer.choice.model, answer.choice.decision.reason) == (model, reason)
    assert bench.upstream.models == [model]


async def test_cost_is_shown_beside_the_other_tiers_and_the_all_strong_cost() -> None:
    weak = (await Bench(FakeScorer(0.1)).dispatcher.complete(request())).bill
    strong = (await Bench(FakeScorer(0.9)).dispatcher.complete(request())).bill
    assert (weak.cost, weak.other_tier_cost, weak.all_strong_cost) == (WEAK_COST, STRONG_COST, STRONG_COST)
    assert (strong.cost, strong.other_tier_cost, strong.all_strong_cost) == (STRONG_COST, WEAK_COST, STRONG_COST)


async def test_a_share_becomes_the_alpha_of_the_scorers_quantiles() -> None:
    # The fake's scores are uniform: a share of .3 is an alpha of .7.
    choice = await Bench(FakeScorer(0.7), dial=StrongCallShare(0.3)).dispatcher.route(request())
    assert choice.decision.alpha == pytest.approx(0.7)
    assert (choice.decision.tier, choice.alpha_source) == (Tier.STRONG, AlphaSource.SHARE)


async def test_the_callers_alpha_wins_where_the_policy_allows_it() -> None:
    choice = await Bench(FakeScorer(0.4)).dispatcher.route(request(alpha=0.4))
    assert (choice.decision.tier, choice.alpha_source) == (Tier.STRONG, AlphaSource.OVERRIDE)


async def test_the_callers_alpha_is_refused_where_the_policy_forbids_it() -> None:
    bench = Bench(allow_alpha_override=False)
    with pytest.raises(Forbidden, match="alpha"):
        await bench.dispatcher.complete(request(alpha=0.4))
    assert bench.scorer.calls == []


@pytest.mark.parametrize(("on_failure", "model"), [(OnScorerFailure.WEAK, "small"), (OnScorerFailure.STRONG, "big")])
async def test_without_a_prediction_the_policy_picks_the_model_and_the_reason_says_so(
    on_failure: OnScorerFailure, model: str
) -> None:
    answer = await Bench(FakeScorer(None), on_scorer_failure=on_failure).dispatcher.complete(request())
    assert answer.choice.model == model
    assert answer.choice.decision.reason is Reason.SCORER_UNAVAILABLE
    assert (answer.choice.decision.alpha, answer.choice.decision.win_probability) == (None, None)


async def test_without_a_prediction_a_policy_of_reject_calls_no_model() -> None:
    bench = Bench(FakeScorer(None), on_scorer_failure=OnScorerFailure.REJECT)
    with pytest.raises(ScorerUnavailable):
        await bench.dispatcher.complete(request())
    assert bench.upstream.models == []
    assert bench.outcomes[0].error_reason == "SCORER_UNAVAILABLE"


async def test_an_unknown_tenant_is_not_told_that_it_is_unknown() -> None:
    with pytest.raises(Unauthenticated, match=r"^no valid tenant credential$"):
        await Bench().dispatcher.complete(request(tenant_id="nobody"))


async def test_route_decides_like_complete_and_leaves_no_trace() -> None:
    for win_probability in (0.2, 0.5, 0.8):
        bench = Bench(FakeScorer(win_probability))
        routed = await bench.dispatcher.route(request())
        assert (bench.upstream.models, bench.outcomes) == ([], [])
        assert routed == (await bench.dispatcher.complete(request())).choice


async def test_a_stream_starts_with_the_choice_and_ends_with_the_bill() -> None:
    bench = Bench(FakeScorer(0.9))
    events = [event async for event in bench.dispatcher.stream(request())]
    assert isinstance(events[0], Started)
    assert events[1:-1] == [Delta(content="Hello"), Delta(content=" world")]
    assert isinstance(events[-1], Finished)
    assert events[-1].bill.cost == STRONG_COST
    assert [outcome.status for outcome in bench.outcomes] == ["OK"]


async def test_missing_usage_is_billed_at_the_estimate_and_marked() -> None:
    answer = await Bench(FakeScorer(0.9), FakeUpstream(usage=None)).dispatcher.complete(request())
    # "What is 2 + 2?" has 14 bytes, "Hello world" 11: 4 and 3 tokens.
    assert answer.bill.usage.source is UsageSource.ESTIMATED
    assert answer.bill.cost == 4 * 10 + 3 * 20


async def test_a_caller_who_goes_away_is_billed_for_what_came_and_the_upstream_is_closed() -> None:
    bench = Bench(FakeScorer(0.9))
    events = bench.dispatcher.stream(request())
    await anext(events)
    assert await anext(events) == Delta(content="Hello")
    await events.aclose()
    outcome = bench.outcomes[0]
    assert bench.upstream.closed == 1
    assert (outcome.status, outcome.finish_reasons) == ("CANCELLED", ())
    assert outcome.bill is not None
    assert outcome.bill.cost == 4 * 10 + 2 * 20


async def test_a_caller_who_goes_away_before_the_call_is_billed_nothing() -> None:
    bench = Bench(FakeScorer(0.9))
    events = bench.dispatcher.stream(request())
    await events.aclose()
    assert (bench.upstream.models, bench.outcomes) == ([], [])


async def test_a_stream_that_breaks_is_billed_for_what_came() -> None:
    broken = UpstreamUnavailable("big-1", "the stream ended early", may_be_billed=True)
    bench = Bench(FakeScorer(0.9), FakeUpstream(error=broken, error_after=1))
    events: list[object] = []

    async def read() -> None:
        async for event in bench.dispatcher.stream(request()):
            events.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(UpstreamUnavailable) as caught:
        await read()
    outcome = bench.outcomes[0]
    assert outcome.choice is not None
    assert outcome.bill is not None
    assert events[1:] == [Delta(content="Hello"), Broken(choice=outcome.choice, error=broken, bill=outcome.bill)]
    assert (outcome.error, caught.value.cost) == (broken, outcome.bill.cost)
    assert outcome.bill.usage.source is UsageSource.ESTIMATED
    assert outcome.bill.cost == 4 * 10 + 2 * 20


async def test_a_refused_call_costs_nothing() -> None:
    bench = Bench(upstream=FakeUpstream(error=UpstreamRejected("big-1", "no such parameter")))
    with pytest.raises(UpstreamRejected):
        await bench.dispatcher.complete(request())
    assert (bench.outcomes[0].bill, bench.outcomes[0].error_reason) == (None, "UPSTREAM_REJECTED")


async def test_a_deadline_that_has_passed_calls_no_model() -> None:
    bench = Bench()
    with pytest.raises(UpstreamTimeout):
        await bench.dispatcher.complete(request(timeout=0.0))
    assert bench.upstream.models == []
    assert bench.outcomes[0].bill is None


async def test_every_request_is_recorded_exactly_once() -> None:
    bench = Bench()
    await bench.dispatcher.complete(request())
    _ = [event async for event in bench.dispatcher.stream(request())]
    with pytest.raises(Unauthenticated):
        await bench.dispatcher.complete(request(tenant_id="nobody"))
    assert [(outcome.method, outcome.status) for outcome in bench.outcomes] == [
        ("Complete", "OK"),
        ("StreamComplete", "OK"),
        ("Complete", "UNAUTHENTICATED"),
    ]


async def test_a_model_that_does_not_take_a_part_is_left_out_and_where_none_does_the_part_is_refused_by_its_path() -> (
    None
):
    chat = dataclasses.replace(
        request().chat, messages=(Message(Role.USER, (Text("What is this?"), Image("https://example.com/a.png"))),)
    )
    bench = Bench(FakeScorer(0.1))
    choice = (await bench.dispatcher.complete(request(chat=chat))).choice
    assert (choice.model, choice.decision.reason, choice.left_out) == ("big", Reason.ONLY_FIT, {0: LeftOut.MODALITY})
    assert bench.scorer.calls == []
    both = Bench(FakeScorer(0.1), small_part_tokens={PartKind.IMAGE: 500})
    assert (await both.dispatcher.complete(request(chat=chat))).choice.model == "small"
    sound = dataclasses.replace(request().chat, messages=(Message(Role.USER, (Text("Hear"), Audio("aa", "wav"))),))
    with pytest.raises(
        InvalidRequest, match=r"chat\.messages\[0\]\.content\[1\]: model small has no part_tokens\.audio"
    ):
        await both.dispatcher.complete(request(chat=sound))


async def test_extra_members_pass_only_if_the_tenants_policy_lists_them() -> None:
    allowed = dataclasses.replace(request().chat, extra_body={"top_k": 5})
    await Bench().dispatcher.complete(request(chat=allowed))
    with pytest.raises(InvalidRequest, match="do not list 'best_of'"):
        await Bench().dispatcher.complete(request(chat=dataclasses.replace(allowed, extra_body={"best_of": 2})))
