"""A dispatcher over fakes whose tenant has three models and a strategy."""

import dataclasses
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

from dispatcher_service.answer import Choice, Completion, Delta, End, FinishReason
from dispatcher_service.booking import Book
from dispatcher_service.catalogue import Catalogue, Deployment, Model, OnScorerFailure, RetryPolicy, TenantPolicy
from dispatcher_service.chat import Chat, Message, Request, Role, Text, ToolCall
from dispatcher_service.dispatch import Dispatcher
from dispatcher_service.drains import Drains
from dispatcher_service.errors import UpstreamError
from dispatcher_service.gates import Gates
from dispatcher_service.identity import OPEN
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.outcome import Outcome
from dispatcher_service.pacer import LedgerPacer
from dispatcher_service.pricing import Price, Usage, UsageSource
from dispatcher_service.routing import Ladder
from dispatcher_service.scorer_targets import ScorerTarget
from tests.fakes import FakeJudge, FakeObserver, FakeScorer, Unobserved

MODELS = ("small", "medium", "large")
USAGE = Usage(input_tokens=1000, output_tokens=100, source=UsageSource.REPORTED)
COSTS = {"small": 1_200, "medium": 12_000, "large": 120_000}
"""Nano-USD of one call: 1,000 tokens in at 1, 10 or 100 and 100 out at 2, 20 or 200 nano-USD each."""


def _price(dollars: int) -> Price:
    return Price(input=dollars * 1_000_000, cached_input=0, cache_write=0, output=dollars * 2_000_000, reasoning=0)


PRICES = {"small": _price(1), "medium": _price(10), "large": _price(100)}


@dataclass
class Models:
    """An upstream whose models answer with their own name, or with what `answers` has for them.

    An answer is a text, the pieces of a text, or calls of tools; an error is raised, after the pieces before it where
    it stands among them. `seconds` is how long a model takes on the bench's clock.
    """

    answers: Mapping[str, object] = field(default_factory=dict)
    usage: Usage | None = USAGE
    asked: list[str] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    chats: list[Chat] = field(default_factory=list)
    after: Mapping[str, object] = field(default_factory=dict)
    """Functions that are called once a model has answered."""

    async def complete(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> Completion:
        pieces = [piece async for piece in self.stream(deployment, chat, max_tokens=max_tokens, timeout=timeout)]
        choices = []
        for index in range(chat.choices):
            own = [piece for piece in pieces if isinstance(piece, Delta) and piece.index == index]
            calls = tuple(ToolCall(call.id, call.name, call.arguments) for piece in own for call in piece.tool_calls)
            text = "".join(piece.content for piece in own)
            refusal = "".join(piece.refusal for piece in own)
            choices.append(
                Choice(index=index, content=text, refusal=refusal, tool_calls=calls, finish_reason=FinishReason.STOP)
            )
        return Completion(choices=tuple(choices), usage=self.usage)

    async def stream(
        self, deployment: Deployment, chat: Chat, *, max_tokens: int | None, timeout: float
    ) -> AsyncGenerator[Delta | End, None]:
        model = deployment.model
        self.asked.append(model)
        self.timeouts.append(timeout)
        self.chats.append(chat)
        answer = self.answers.get(model, f"I am {model}.")
        for piece in answer if isinstance(answer, list) else [answer]:
            if isinstance(piece, UpstreamError):
                raise piece
            yield piece if isinstance(piece, Delta) else Delta(content=str(piece))
        after = self.after.get(model)
        if callable(after):
            after()
        yield End(finish_reasons=(FinishReason.STOP,) * chat.choices, usage=self.usage)


class Bench:
    """A dispatcher whose tenant `t` has the models above, with what it recorded."""

    def __init__(
        self,
        *,
        upstream: Models | None = None,
        judge: FakeJudge | None = None,
        win_probability: float | None = 0.5,
        models: Mapping[str, Mapping[str, object]] | None = None,
        **changes: object,
    ) -> None:
        """`models` changes models, `changes` the tenant's policy."""
        self.upstream = upstream or Models()
        self.judge = judge or FakeJudge()
        self.scorer = FakeScorer(win_probability)
        self.outcomes: list[Outcome] = []
        self.drains = Drains(observe=lambda _: None)
        self.now = 0.0
        self.ledger = MemoryLedger(lambda: 1e9)
        self.book = Book(self.ledger, observe=FakeObserver(), clock=lambda: self.now, wall_clock=lambda: 1e9, drain=1)
        base = TenantPolicy(
            tenant_id="t",
            ladder=Ladder(MODELS),
            dial=None,
            on_scorer_failure=OnScorerFailure.WEAK,
            allow_alpha_override=True,
            extra_body_keys=frozenset(),
            scorer="",
        )
        more = models or {}
        self.catalogue = Catalogue(
            scorer=ScorerTarget(address="unused", timeout=0.2, answer_timeout=0.5),
            models={
                name: dataclasses.replace(
                    Model(name=name, prices=(PRICES[name],), max_output_tokens=1000, part_tokens={}),
                    **more.get(name, {}),  # type: ignore[arg-type]
                )
                for name in MODELS
            },
            deployments={
                name: (Deployment(name=f"{name}-1", model=name, base_url="http://unused", upstream_model=name),)
                for name in MODELS
            },
            tenants={"t": dataclasses.replace(base, **changes)},  # type: ignore[arg-type]
            auth=OPEN,
            retries=RetryPolicy(tries=1),
        )
        self.dispatcher = Dispatcher(
            catalogue=lambda: self.catalogue,
            scorer=self.scorer,
            judge=self.judge,
            upstream=self.upstream,
            book=self.book,
            pacer=LedgerPacer(self.ledger, clock=lambda: self.now, wall_clock=lambda: 1e9, observe=lambda *_: None),
            gates=Gates(clock=lambda: self.now, observe=Unobserved()),
            drains=self.drains,
            record=self.outcomes.append,
            clock=lambda: self.now,
            wall_clock=lambda: 1e9,
            sleep=self._sleep,
            draw=lambda: 0.5,
        )

    async def spent(self) -> int:
        """What the ledger says that the tenant has spent this hour, with nothing left aside."""
        hour = (await self.ledger.balances("t"))[0]
        assert hour.reserved == 0
        return hour.spent

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds


def question(text: str = "hi", **changes: object) -> Request:
    """A request of the tenant."""
    chat = Chat(messages=(Message(Role.USER, (Text(text),)),), text_bytes=len(text))
    base = Request(tenant_id="t", chat=chat, request_id="r", timeout=60.0)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]
