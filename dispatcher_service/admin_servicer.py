"""The gRPC face of budgets and policies. Admins see and change all of them; a tenant sees its own."""

from collections.abc import Callable
from typing import Any

from dispatcher_service import budget_translation as translation
from dispatcher_service import overlay
from dispatcher_service.auth import Authenticator
from dispatcher_service.edge import Edge
from dispatcher_service.errors import Forbidden, InvalidRequest, NotFound
from dispatcher_service.identity import Principal
from dispatcher_service.ledger.contract import Ledger
from dispatcher_service.metrics import Metrics
from dispatcher_service.overlay import EVERYONE, Change, Overlay
from dispatcher_service.policies import Policies
from dispatcher_service.tracing import Tracing
from pointsman.dispatcher.v1 import budget_pb2, budget_pb2_grpc

SERVICE = budget_pb2.DESCRIPTOR.services_by_name["BudgetService"].full_name

_PAGE, _MAX_PAGE = 50, 200
_HISTORY, _MAX_HISTORY = 20, 500


class BudgetServicer(budget_pb2_grpc.BudgetServiceServicer):
    """Implements `pointsman.dispatcher.v1.BudgetService`."""

    def __init__(
        self,
        *,
        policies: Policies,
        ledger: Ledger,
        auth: Authenticator,
        metrics: Metrics,
        tracing: Tracing,
        wall_clock: Callable[[], float],
    ) -> None:
        """`wall_clock` gives seconds since the epoch."""
        self._policies = policies
        self._ledger = ledger
        self._auth = auth
        self._wall_clock = wall_clock
        self._edge = Edge(SERVICE, metrics=metrics, tracing=tracing)

    async def GetBudget(self, request: budget_pb2.GetBudgetRequest, context: Any) -> budget_pb2.GetBudgetResponse:
        """See the proto."""
        return await self._edge.run("GetBudget", context, self._get_budget(request, context))

    async def ListBudgets(self, request: budget_pb2.ListBudgetsRequest, context: Any) -> budget_pb2.ListBudgetsResponse:
        """See the proto."""
        return await self._edge.run("ListBudgets", context, self._list_budgets(request, context))

    async def GetPolicy(self, request: budget_pb2.GetPolicyRequest, context: Any) -> budget_pb2.GetPolicyResponse:
        """See the proto."""
        return await self._edge.run("GetPolicy", context, self._get_policy(request, context))

    async def SetPolicy(self, request: budget_pb2.SetPolicyRequest, context: Any) -> budget_pb2.SetPolicyResponse:
        """See the proto."""
        return await self._edge.run("SetPolicy", context, self._set_policy(request, context))

    async def SetOverride(self, request: budget_pb2.SetOverrideRequest, context: Any) -> budget_pb2.SetOverrideResponse:
        """See the proto."""
        return await self._edge.run("SetOverride", context, self._set_override(request, context))

    async def _get_budget(self, proto: budget_pb2.GetBudgetRequest, context: Any) -> budget_pb2.GetBudgetResponse:
        tenant_id = await self._own_or_any(proto.tenant_id, context)
        return budget_pb2.GetBudgetResponse(budget=await self._budget(tenant_id))

    async def _list_budgets(self, proto: budget_pb2.ListBudgetsRequest, context: Any) -> budget_pb2.ListBudgetsResponse:
        await self._admin(context)
        size = _size("page_size", proto.page_size, default=_PAGE, most=_MAX_PAGE)
        names = sorted(name for name in self._policies.catalogue().tenants if name > proto.page_token)
        budgets = [await self._budget(name) for name in names[:size]]
        return budget_pb2.ListBudgetsResponse(
            budgets=budgets, next_page_token=names[size - 1] if len(names) > size else ""
        )

    async def _get_policy(self, proto: budget_pb2.GetPolicyRequest, context: Any) -> budget_pb2.GetPolicyResponse:
        tenant_id = await self._own_or_any(proto.tenant_id, context)
        size = _size("history_size", proto.history_size, default=_HISTORY, most=_MAX_HISTORY)
        return budget_pb2.GetPolicyResponse(policy=await self._policy(tenant_id, history=size))

    async def _set_policy(self, proto: budget_pb2.SetPolicyRequest, context: Any) -> budget_pb2.SetPolicyResponse:
        principal = await self._admin(context)
        if not proto.tenant_id:
            raise InvalidRequest("tenant_id", "name the tenant whose policy is to change")
        values = translation.read_values(proto.set)
        unset = translation.read_keys("unset", proto.unset)
        reset = translation.read_keys("reset", proto.reset)
        named = [*values, *unset, *reset]
        if not named:
            raise InvalidRequest("set", "name something to set, unset or reset")
        if len(set(named)) < len(named):
            raise InvalidRequest("set", "name each key once, in set, unset or reset")

        def make(before: Overlay, change: Change) -> Overlay:
            return overlay.with_values(before, values, unset=unset, reset=reset, change=change)

        await self._change(proto.tenant_id, make, proto, principal)
        return budget_pb2.SetPolicyResponse(policy=await self._policy(proto.tenant_id, history=_HISTORY))

    async def _set_override(self, proto: budget_pb2.SetOverrideRequest, context: Any) -> budget_pb2.SetOverrideResponse:
        principal = await self._admin(context)
        models = self._policies.catalogue().models
        override = translation.read_override(proto, models=models, now=self._wall_clock())

        def make(before: Overlay, change: Change) -> Overlay:
            if override is None:
                return overlay.without_overrides(before, change=change)
            return overlay.with_override(before, override, change=change)

        tenant_id = proto.tenant_id or EVERYONE
        await self._change(tenant_id, make, proto, principal)
        return budget_pb2.SetOverrideResponse(policy=await self._policy(tenant_id, history=_HISTORY))

    async def _change(
        self,
        tenant_id: str,
        make: Callable[[Overlay, Change], Overlay],
        proto: budget_pb2.SetPolicyRequest | budget_pb2.SetOverrideRequest,
        principal: Principal,
    ) -> None:
        author = translation.read_author(proto.author, credential=principal.name)
        await self._policies.change(tenant_id, make, author=author, reason=translation.read_reason(proto.reason))

    async def _budget(self, tenant_id: str) -> budget_pb2.Budget:
        limits = self._policies.catalogue().tenants[tenant_id].limits
        balances = await self._ledger.balances(tenant_id)
        overruns = await self._ledger.overruns(tenant_id)
        return translation.budget(tenant_id, limits, balances, overruns.items())

    async def _policy(self, tenant_id: str, *, history: int) -> budget_pb2.Policy:
        now = self._wall_clock()
        everyones = translation.overrides(self._policies.overlay_of(EVERYONE), now=now, for_everyone=True)
        trail = translation.history((await self._policies.trail(tenant_id))[:history])
        if tenant_id == EVERYONE:
            return budget_pb2.Policy(overrides=everyones, history=trail)
        file, effective = self._policies.sections()
        own = self._policies.overlay_of(tenant_id)
        problems = self._policies.ignored(tenant_id)
        return budget_pb2.Policy(
            tenant_id=tenant_id,
            values=translation.values(
                file.tenants[tenant_id], effective.tenants[tenant_id], Overlay() if problems else own
            ),
            overrides=translation.overrides(own, now=now, for_everyone=False) + everyones,
            overlay_problems=problems,
            history=trail,
        )

    async def _admin(self, context: Any) -> Principal:
        principal = await self._auth.authenticate(context)
        principal.require_admin()
        return principal

    async def _own_or_any(self, named: str, context: Any) -> str:
        """The tenant that is asked about: anyone's for an admin, else the caller's own."""
        principal = await self._auth.authenticate(context)
        tenant_id = named or principal.tenant()
        if tenant_id != principal.tenant_id and not principal.is_admin:
            raise Forbidden(f"tenant {tenant_id[:100]} is not yours: this needs an admin's credential")
        if tenant_id not in self._policies.catalogue().tenants:
            raise NotFound(f"tenant {tenant_id[:100]}: there is none of this name in the configuration")
        return tenant_id


def _size(field: str, wanted: int, *, default: int, most: int) -> int:
    if not 0 <= wanted <= most:
        raise InvalidRequest(field, f"write at most {most}, or 0 for {default}")
    return wanted or default
