"""Pacing with memory: each tenant's pace lives in the ledger as a document, and this process decides on a lease of it.

*Replicas*: a lease is merged into the document by compare-and-swap after `lease_calls` decisions or `REFRESH_SECONDS`,
whichever is sooner, and a decision waits for that. So R dispatchers hold a share within (1 + η)/η + R·L calls.

*Failure*: a document that cannot be read or written stops no decision. A decision waits `PATIENCE_SECONDS` at most;
then, and as long as the ledger is away, this process paces by itself, and adds what it did once the ledger is back. If
only the answer to a write was lost, that lease counts twice: off by L once.

*Restarts*: `close` merges what is left. A killed process loses one lease at most.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dispatcher_service import pace_document, pacing, pacing_state, tasks
from dispatcher_service.catalogue import TenantPolicy
from dispatcher_service.errors import LedgerUnavailable
from dispatcher_service.ledger.contract import Document
from dispatcher_service.pacing_state import Integrator, Lease, Pace
from dispatcher_service.pacing_targets import Estimate, PacingPolicy, Reference
from dispatcher_service.pricing import NanoUsd
from dispatcher_service.routing import Candidates, Decision
from pointsman.runtime.logs import fields

logger = logging.getLogger(__name__)

DOCUMENT = "pace"
REFRESH_SECONDS = 5.0
PATIENCE_SECONDS = 0.05
_PAUSE_SECONDS = 1.0
"""Between two tries while the ledger is away."""
_SWAP_TRIES = 16

Observe = Callable[[str, Mapping[str, Integrator]], None]
"""Called with a tenant and its integrators by their targets' kinds after each merge. Must not raise."""


class Called(Protocol):
    """See `ports.BudgetObserver.ledger_called`."""

    def __call__(self, step: str, seconds: float, *, failed: bool) -> None:
        """A merge ended."""


class Documents(Protocol):
    """The part of `ledger.contract.Ledger` that keeps documents."""

    async def get_document(self, tenant_id: str, name: str) -> Document | None:
        """See there."""

    async def put_document(
        self, tenant_id: str, name: str, body: bytes, *, expected: int, lifetime: float | None = None
    ) -> bool:
        """See there."""


@dataclass(slots=True)
class _Tenant:
    policy: PacingPolicy
    lease: Lease = field(default_factory=lambda: Lease(Pace()))
    loaded: bool = False
    merged_at: float = 0.0
    retry_at: float = 0.0
    merging: "asyncio.Task[None] | None" = None
    impatient_with: "asyncio.Task[None] | None" = None
    """A merge that was waited for long enough."""


class LedgerPacer:
    """Implements `ports.Pacer` over a ledger's documents."""

    def __init__(
        self,
        documents: Documents,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        observe: Observe,
        called: Called = lambda _step, _seconds, *, failed: None,
    ) -> None:
        """`clock` gives monotonic seconds, `wall_clock` seconds since the epoch."""
        self._documents = documents
        self._clock = clock
        self._wall_clock = wall_clock
        self._observe = observe
        self._called = called
        self._away = False
        self._tenants: dict[str, _Tenant] = {}

    async def alpha(self, policy: TenantPolicy, reference: Reference) -> float:
        tenant = await self._ready(policy)
        return pacing.effective_alpha(tenant.lease, tenant.policy, reference, now=self._wall_clock())

    async def decide(
        self, policy: TenantPolicy, reference: Reference, candidates: Candidates, estimate: Estimate
    ) -> Decision:
        tenant = await self._ready(policy)
        decision, tenant.lease = pacing.decide(
            tenant.lease, tenant.policy, reference, candidates, estimate, now=self._wall_clock()
        )
        return decision

    async def forced(self, policy: TenantPolicy, *, rung: int, estimate: Estimate) -> None:
        tenant = await self._ready(policy)
        tenant.lease = pacing.forced(tenant.lease, tenant.policy, rung=rung, estimate=estimate, now=self._wall_clock())

    def rerouted(self, policy: TenantPolicy, *, by: float) -> None:
        tenant = self._tenant(policy)
        tenant.lease = pacing.rerouted(tenant.lease, tenant.policy, by=by)

    def refused(self, policy: TenantPolicy, *, until: float) -> None:
        tenant = self._tenant(policy)
        tenant.lease = pacing.refused(tenant.lease, tenant.policy, until=until)

    def settled(self, policy: TenantPolicy, *, estimated: NanoUsd, actual: NanoUsd) -> None:
        tenant = self._tenant(policy)
        tenant.lease = pacing.settled(tenant.lease, tenant.policy, estimated=estimated, actual=actual)

    async def flush(self) -> None:
        """Merge what every tenant did since its last merge, as far as the ledger lets us."""
        for tenant_id, tenant in list(self._tenants.items()):
            if not _is_idle(tenant.lease) and tenant.merging is None:
                await asyncio.wait([self._merge(tenant_id, tenant)])

    async def run(self, interval: float = REFRESH_SECONDS) -> None:
        """Flush now and then, for tenants that fell silent. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.flush()

    async def close(self, timeout: float) -> None:
        """The last flush."""
        flushing = asyncio.ensure_future(self.flush())
        await asyncio.wait([flushing], timeout=timeout)
        left = [flushing, *(tenant.merging for tenant in self._tenants.values() if tenant.merging is not None)]
        await tasks.end(left)

    def _tenant(self, policy: TenantPolicy) -> _Tenant:
        assert policy.pacing is not None
        tenant = self._tenants.get(policy.tenant_id)
        if tenant is None:
            tenant = self._tenants[policy.tenant_id] = _Tenant(policy.pacing)
        tenant.policy = policy.pacing  # It may have been changed since the last call.
        return tenant

    async def _ready(self, policy: TenantPolicy) -> _Tenant:
        """The tenant with a lease that is fit for one decision, which is to be made before anything is awaited."""
        tenant = self._tenant(policy)
        while tenant.merging is not None or self._is_due(tenant):
            merging = tenant.merging or self._merge(policy.tenant_id, tenant)
            if merging is tenant.impatient_with:
                break
            done, _ = await asyncio.wait([merging], timeout=PATIENCE_SECONDS)
            if not done:
                tenant.impatient_with = merging
        return tenant

    def _is_due(self, tenant: _Tenant) -> bool:
        now = self._clock()
        if now < tenant.retry_at:
            return False
        stale = not tenant.loaded or now - tenant.merged_at >= REFRESH_SECONDS
        return stale or tenant.lease.exhausted(tenant.policy)

    def _merge(self, tenant_id: str, tenant: _Tenant) -> "asyncio.Task[None]":
        async def run() -> None:
            taken, tenant.lease = tenant.lease, pacing_state.lease_of(tenant.lease.pace)
            started, failed = self._clock(), True
            try:
                pace = await self._merged(tenant_id, taken, tenant.policy)
            except BaseException as error:
                # Nothing is lost: what was taken goes before what came meanwhile.
                tenant.lease = pacing_state.joined(taken, tenant.lease)
                tenant.retry_at = self._clock() + _PAUSE_SECONDS
                if not isinstance(error, Exception):
                    raise
                expected = isinstance(error, LedgerUnavailable)
                if not self._away or not expected:
                    logger.warning(
                        "pace cannot be shared: this process paces by itself until the ledger is back",
                        exc_info=None if expected else error,
                        extra=fields(tenant=tenant_id, error=str(error)),
                    )
                self._away = True
            else:
                failed = self._away = False
                tenant.lease = pacing_state.rebased(tenant.lease, pace, now=self._wall_clock())
                tenant.loaded, tenant.merged_at = True, self._clock()
                self._observe(
                    tenant_id,
                    {
                        target.kind: pace.integrators[target.key]
                        for target in tenant.policy.targets
                        if target.key in pace.integrators
                    },
                )
            finally:
                tenant.merging = None
                self._called("pace", self._clock() - started, failed=failed)

        tenant.merging = asyncio.get_running_loop().create_task(run())
        return tenant.merging

    async def _merged(self, tenant_id: str, lease: Lease, policy: PacingPolicy) -> Pace:
        """The shared pace with a lease in it, as it is stored now.

        Raises:
            LedgerUnavailable: it cannot be read or written.
        """
        for attempt in range(_SWAP_TRIES):
            document = await self._documents.get_document(tenant_id, DOCUMENT)
            shared = Pace() if document is None else _decoded(tenant_id, document)
            if _is_idle(lease):
                return shared
            pace = pacing.merge(shared, lease, policy, now=self._wall_clock())
            expected = 0 if document is None else document.version
            body = pace_document.encode(pace)
            if await self._documents.put_document(tenant_id, DOCUMENT, body, expected=expected):
                return pace
            await asyncio.sleep(0.001 * attempt)  # Another replica was quicker.
        raise LedgerUnavailable(f"{_SWAP_TRIES} others were quicker to write the pace")


def _decoded(tenant_id: str, document: Document) -> Pace:
    try:
        return pace_document.decode(document.body)
    except pace_document.UnreadableError as error:
        logger.error(
            "a tenant's stored pace cannot be read: pacing begins anew",
            extra=fields(tenant=tenant_id, error=str(error)),
        )
        return Pace()


def _is_idle(lease: Lease) -> bool:
    """Whether there is nothing to merge."""
    return lease.calls == 0 and all(integrator.moved == 0 for integrator in lease.pace.integrators.values())
