"""Pacing over a ledger's documents: replicas, restarts, and a store that fails."""

import asyncio
import random
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import pytest

from dispatcher_service import pace_document, pacing, pacing_state, routing
from dispatcher_service.budget import Limit, Period
from dispatcher_service.catalogue import StrongCallShare, TenantPolicy
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.contract import Document, Ledger
from dispatcher_service.ledger.memory import MemoryLedger
from dispatcher_service.ledger.sqlite import SqliteLedger
from dispatcher_service.pacer import DOCUMENT, PATIENCE_SECONDS, REFRESH_SECONDS, Documents, LedgerPacer
from dispatcher_service.pacing_state import Integrator, Pace
from dispatcher_service.pacing_targets import Estimate, Reference, pacing_policy
from dispatcher_service.routing import Candidates, Tier
from tests.unit.test_dispatch import policy

REFERENCE = Reference("v1", tuple(step / 200 for step in range(201)))
ESTIMATE = Estimate((1_000, 31_000))
NOW = 1_800_000_000.0


def share(target: float, *, window_calls: int = 100, lease_calls: int = 32) -> TenantPolicy:
    paced = pacing_policy(share=target, alpha=None, limits=(), window_calls=window_calls, lease_calls=lease_calls)
    return policy(dial=StrongCallShare(target), pacing=paced)


class Bench:
    """A pacer on a clock that tests turn."""

    def __init__(self, documents: Documents) -> None:
        self.now = 0.0
        self.seen: list[tuple[str, Mapping[str, Integrator]]] = []
        self.pacer = LedgerPacer(
            documents,
            clock=lambda: self.now,
            wall_clock=lambda: NOW + self.now,
            observe=lambda tenant, integrators: self.seen.append((tenant, integrators)),
        )

    async def strong(self, held: TenantPolicy, win_probability: float, reference: Reference = REFERENCE) -> bool:
        return (
            await self.pacer.decide(held, reference, Candidates.pair(win_probability), ESTIMATE)
        ).tier is Tier.STRONG


@pytest.fixture(params=["memory", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    if request.param == "memory":
        return MemoryLedger(lambda: NOW)
    return SqliteLedger(tmp_path / "ledger.sqlite", clock=lambda: NOW)


async def test_four_replicas_that_lease_32_calls_hold_a_share_within_the_bound(ledger: Ledger) -> None:
    """An adversary sends what goes strong as long as anything does, then what goes weak, to whichever replica."""
    held, gain, random_ = share(0.3), 5 / 100, random.Random(7)
    replicas = [Bench(ledger) for _ in range(4)]
    deviations: list[float] = []
    for phase in range(6):
        win_probability = 1.0 if phase % 2 == 0 else 0.0
        for _ in range(60):
            batch = [
                replicas[random_.randrange(4)].strong(held, win_probability) for _ in range(random_.randrange(1, 16))
            ]
            deviations += [strong - 0.3 for strong in await asyncio.gather(*batch)]
    sums = list(accumulate(deviations, initial=0.0))
    widest = max(sums) - min(sums)
    assert widest <= (1 + gain) / gain + 4 * 32
    assert widest >= 0.9 / gain, "the adversary is a real one"
    await ledger.close()


async def test_alpha_is_the_one_of_the_next_decision_and_moves_nothing(ledger: Ledger) -> None:
    bench, held, random_ = Bench(ledger), share(0.3, lease_calls=5), random.Random(3)
    for _ in range(60):
        first = await bench.pacer.alpha(held, REFERENCE)
        assert await bench.pacer.alpha(held, REFERENCE) == first
        decision = await bench.pacer.decide(held, REFERENCE, Candidates.pair(random_.random()), ESTIMATE)
        assert decision.alpha == first
    await ledger.close()


async def test_a_restart_goes_on_where_it_ended(ledger: Ledger) -> None:
    held, first = share(0.3), Bench(ledger)
    for _ in range(50):
        await first.strong(held, 0.9)
    alpha = await first.pacer.alpha(held, REFERENCE)
    await first.pacer.close(1.0)
    again = Bench(ledger)
    # Closing merges the last scores, so that F is a little newer than it was.
    assert await again.pacer.alpha(held, REFERENCE) == pytest.approx(alpha, abs=0.03)
    document = await ledger.get_document("t", DOCUMENT)
    assert document is not None
    pace = pace_document.decode(document.body)
    fresh = routing.alpha_for_share(REFERENCE.quantiles, 0.3)
    assert pace.integrators["share:0.3"].level > 0.7
    assert alpha > fresh
    await ledger.close()


async def test_another_share_takes_effect_with_the_next_call(ledger: Ledger) -> None:
    bench = Bench(ledger)
    for _ in range(100):
        await bench.strong(share(0.1), 0.5)
    assert await bench.pacer.alpha(share(0.9), REFERENCE) < 0.5 < await bench.pacer.alpha(share(0.1), REFERENCE)
    await ledger.close()


async def test_a_new_scorer_version_makes_no_jump_in_the_share(ledger: Ledger) -> None:
    """The new version's scores are squeezed into [.5, .6]: the same prompts stand at the same percentiles."""
    bench, held, random_ = Bench(ledger), share(0.3, window_calls=1000), random.Random(11)
    squeezed = Reference("v2", tuple(0.5 + 0.1 * level for level in REFERENCE.quantiles))
    before = [await bench.strong(held, random_.random() ** 2) for _ in range(3000)]
    after = [await bench.strong(held, 0.5 + 0.1 * random_.random() ** 2, squeezed) for _ in range(500)]
    assert sum(before[-500:]) / 500 == pytest.approx(0.3, abs=0.05)
    assert sum(after) / 500 == pytest.approx(0.3, abs=0.05)
    await ledger.close()


async def test_an_idle_replica_learns_what_others_did_after_a_while(ledger: Ledger) -> None:
    held, busy, idle = share(0.3), Bench(ledger), Bench(ledger)
    before = await idle.pacer.alpha(held, REFERENCE)
    for _ in range(64):
        await busy.strong(held, 1.0)
    await busy.pacer.flush()
    assert await idle.pacer.alpha(held, REFERENCE) == before
    idle.now += REFRESH_SECONDS
    assert await idle.pacer.alpha(held, REFERENCE) > before
    await ledger.close()


class Broken:
    """Documents that fail or hang as long as they are told to."""

    def __init__(self) -> None:
        self.inner = MemoryLedger(lambda: NOW)
        self.fails, self.hangs, self.calls = False, False, 0

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        self.calls += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.fails:
            raise LedgerUnavailable("gone")
        return await self.inner.get_document(tenant_id, name)

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        return await self.inner.put_document(tenant_id, name, body, expected=expected, lifetime=lifetime)


async def test_a_store_that_fails_stops_no_decision_and_gets_everything_once_it_is_back() -> None:
    store, held = Broken(), share(0.3)
    store.fails = True
    bench = Bench(store)
    strong = [await bench.strong(held, 1.0) for _ in range(300)]
    assert store.calls == 1, "asked again only after a pause"
    assert sum(strong) < 120, "it paces by itself meanwhile"
    store.fails = False
    bench.now += 2.0
    await bench.strong(held, 1.0)
    await bench.pacer.flush()
    document = await store.get_document("t", DOCUMENT)
    assert document is not None
    mine = bench.pacer._tenants["t"].lease.pace
    assert pace_document.decode(document.body).integrators["share:0.3"].level == pytest.approx(
        mine.integrators["share:0.3"].level
    )


async def test_a_store_that_hangs_costs_one_decision_its_patience_and_the_next_ones_nothing() -> None:
    store = Broken()
    store.hangs = True
    bench, loop = Bench(store), asyncio.get_running_loop()
    started = loop.time()
    for _ in range(100):
        await bench.strong(share(0.3), 0.5)
    assert loop.time() - started < 20 * PATIENCE_SECONDS
    await bench.pacer.close(0.01)


async def test_metrics_are_told_of_targets_by_kind() -> None:
    held = policy(pacing=pacing_policy(share=0.3, alpha=None, limits=(Limit(Period.DAY, 10**9),)))
    bench = Bench(MemoryLedger(lambda: NOW))
    await bench.strong(held, 0.5)
    await bench.pacer.flush()
    tenant, integrators = bench.seen[-1]
    assert (tenant, set(integrators)) == ("t", {"share", "spend_day"})


def test_two_leases_after_each_other_are_one() -> None:
    held = share(0.3).pacing
    assert held is not None

    def decide(lease: pacing_state.Lease, scores: list[float]) -> pacing_state.Lease:
        for score in scores:
            _, lease = pacing.decide(lease, held, REFERENCE, Candidates.pair(score), ESTIMATE, now=NOW)
        return lease

    scores = [0.1, 0.9, 0.8, 0.95, 0.2]
    whole = decide(pacing_state.lease_of(Pace()), scores)
    first = decide(pacing_state.lease_of(Pace()), scores[:2])
    second = decide(pacing_state.lease_of(first.pace), scores[2:])
    joined = pacing_state.joined(first, second)
    assert (joined.scores, joined.calls) == (whole.scores, whole.calls)
    assert joined.pace.integrators["share:0.3"].moved == pytest.approx(whole.pace.integrators["share:0.3"].moved)
    # And a lease that went on while the first was merged lands on the merged pace as if it had waited.
    merged = pacing.merge(Pace(), first, held, now=NOW)
    rebased = pacing_state.rebased(second, merged, now=NOW)
    assert rebased.pace.integrators["share:0.3"].level == pytest.approx(whole.pace.integrators["share:0.3"].level)
    assert rebased.scores == second.scores


def test_a_pace_survives_its_document_and_a_newer_or_damaged_one_is_refused() -> None:
    held = share(0.3).pacing
    assert held is not None
    _, lease = pacing.decide(pacing_state.lease_of(Pace()), held, REFERENCE, Candidates.pair(0.5), ESTIMATE, now=NOW)
    pace = pacing.merge(Pace(), lease, held, now=NOW)
    body = pace_document.encode(pace)
    assert len(body) < 8_000
    read = pace_document.decode(body)
    assert read.integrators == pace.integrators
    assert read.references == pace.references
    assert read.distributions["v1"].weights == pytest.approx(pace.distributions["v1"].weights, rel=1e-6)
    newer = body.replace(b'"level":', b'"of_a_newer_version":1,"level":')
    assert pace_document.decode(newer).integrators == pace.integrators
    for damaged in (b"", b"{}", body[:-20], body.replace(b'"format":1', b'"format":2')):
        with pytest.raises(pace_document.UnreadableError):
            pace_document.decode(damaged)
