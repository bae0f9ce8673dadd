"""The client of budgets and policies: for admins, and for tenants that look at their own."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from google.protobuf import duration_pb2, timestamp_pb2

from pointsman._calls import Credential, call_errors, metadata
from pointsman.dispatcher.v1 import budget_pb2, budget_pb2_grpc
from pointsman.runtime.channels import ClientTls, open_channel

_NANO = 1_000_000_000
_AMOUNTS = {
    "usd_per_hour": "nano_usd_per_hour",
    "usd_per_day": "nano_usd_per_day",
    "usd_per_month": "nano_usd_per_month",
    "overdraft_usd": "overdraft_nano_usd",
}
_KINDS = {
    "all_weak": budget_pb2.OVERRIDE_KIND_ALL_WEAK,
    "all_strong": budget_pb2.OVERRIDE_KIND_ALL_STRONG,
    "model_off": budget_pb2.OVERRIDE_KIND_MODEL_OFF,
}
_KIND_NAMES = {number: name for name, number in _KINDS.items()}
_SOURCES = {
    budget_pb2.VALUE_SOURCE_DEFAULT: "default",
    budget_pb2.VALUE_SOURCE_FILE: "file",
    budget_pb2.VALUE_SOURCE_OVERLAY: "overlay",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowBudget:
    """One window of a tenant's account: `period` is `hour`, `day` or `month`; amounts are exact US dollars.

    `limit_usd` and `left_usd` are `None` where the tenant has no limit for the period.
    """

    period: str
    start: datetime
    end: datetime
    spent_usd: Decimal
    reserved_usd: Decimal
    limit_usd: Decimal | None
    left_usd: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A tenant's account of this moment. `overruns` are counts and amounts in US dollars by cause."""

    tenant_id: str
    windows: tuple[WindowBudget, ...]
    overruns: Mapping[str, tuple[int, Decimal]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """Who changed something, why, when, and (in a history) what."""

    author: str
    reason: str
    at: datetime
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyValue:
    """A value in force: `source` is `default`, `file` or `overlay`. Amounts are strings of decimal US dollars."""

    key: str
    value: Any
    source: str
    change: PolicyChange | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """An override in force: `kind` is `all_weak`, `all_strong` or `model_off`."""

    kind: str
    model: str
    expires_at: datetime
    for_everyone: bool
    change: PolicyChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A tenant's policy of this moment; `problems` say why an overlay is not in force."""

    tenant_id: str
    values: Mapping[str, PolicyValue]
    overrides: tuple[Override, ...]
    problems: tuple[str, ...]
    history: tuple[PolicyChange, ...]


class BudgetClient:
    """Looks at budgets and changes policies, over one channel. Make it in a running event loop."""

    def __init__(
        self,
        address: str,
        *,
        credential: Credential = "",
        tenant: str = "",
        tls: ClientTls | None = None,
        timeout: float = 20.0,
    ) -> None:
        """Connects on the first call. Arguments as for `DispatcherClient`; `timeout` is for every call."""
        self._channel = open_channel(address, tls=tls)
        self._stub = budget_pb2_grpc.BudgetServiceStub(self._channel)
        self._credential = credential
        self._tenant = tenant
        self._timeout = timeout

    async def budget(self, tenant_id: str = "") -> Budget:
        """A tenant's account; by default the credential's own.

        Raises:
            PointsmanCallError: as for every method.
        """
        request = budget_pb2.GetBudgetRequest(tenant_id=tenant_id)
        with call_errors():
            response = await self._stub.GetBudget(request, timeout=self._timeout, metadata=self._metadata())
        return _budget(response.budget)

    async def budgets(self) -> list[Budget]:
        """The accounts of all tenants, by name."""
        found: list[Budget] = []
        token = ""
        while True:
            request = budget_pb2.ListBudgetsRequest(page_size=200, page_token=token)
            with call_errors():
                response = await self._stub.ListBudgets(request, timeout=self._timeout, metadata=self._metadata())
            found += map(_budget, response.budgets)
            token = response.next_page_token
            if not token:
                return found

    async def policy(self, tenant_id: str = "", *, history: int = 20) -> Policy:
        """A tenant's policy, with up to `history` changes; by default the credential's own."""
        request = budget_pb2.GetPolicyRequest(tenant_id=tenant_id, history_size=history)
        with call_errors():
            response = await self._stub.GetPolicy(request, timeout=self._timeout, metadata=self._metadata())
        return _policy(response.policy)

    async def set_policy(
        self,
        tenant_id: str,
        values: Mapping[str, Any] | None = None,
        *,
        unset: Iterable[str] = (),
        reset: Iterable[str] = (),
        reason: str,
        author: str = "",
    ) -> Policy:
        """Change a policy for good.

        Args:
            tenant_id: whose.
            values: by their keys in the configuration file; amounts in US dollars, exact if they are Decimals.
            unset: keys to take away although the file sets them.
            reset: keys to leave to the file again.
            reason: why, for the audit trail.
            author: for whom, where that is not whose credential it is.

        Raises:
            ValueError: a key cannot be changed, or a value is none of its kind.
        """
        request = budget_pb2.SetPolicyRequest(
            tenant_id=tenant_id, set=_values(values or {}), unset=unset, reset=reset, reason=reason, author=author
        )
        with call_errors():
            response = await self._stub.SetPolicy(request, timeout=self._timeout, metadata=self._metadata())
        return _policy(response.policy)

    async def override(
        self, kind: str, *, lifetime: timedelta, reason: str, tenant_id: str = "", model: str = "", author: str = ""
    ) -> Policy:
        """Turn a tenant, or all of them, for a while: `all_weak`, `all_strong`, or `model_off` with its model."""
        span = duration_pb2.Duration()
        span.FromTimedelta(lifetime)
        request = budget_pb2.SetOverrideRequest(
            tenant_id=tenant_id, kind=_KINDS[kind], model=model, lifetime=span, reason=reason, author=author
        )
        return await self._override(request)

    async def clear_overrides(self, *, reason: str, tenant_id: str = "", author: str = "") -> Policy:
        """End all overrides of a tenant, or those that are for all."""
        return await self._override(budget_pb2.SetOverrideRequest(tenant_id=tenant_id, reason=reason, author=author))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _override(self, request: budget_pb2.SetOverrideRequest) -> Policy:
        with call_errors():
            response = await self._stub.SetOverride(request, timeout=self._timeout, metadata=self._metadata())
        return _policy(response.policy)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return metadata(self._tenant, self._credential, self._timeout)


def _values(values: Mapping[str, Any]) -> budget_pb2.PolicyValues:
    message = budget_pb2.PolicyValues()
    for key, value in values.items():
        name = _AMOUNTS.get(key, key)
        if name not in budget_pb2.PolicyValues.DESCRIPTOR.fields_by_name:
            known = (_KEYS.get(field, field) for field in budget_pb2.PolicyValues.DESCRIPTOR.fields_by_name)
            raise ValueError(f"{key} cannot be changed at run time: write one of {', '.join(known)}")
        try:
            setattr(message, name, int(Decimal(str(value)) * _NANO) if key in _AMOUNTS else value)
        except (TypeError, ArithmeticError) as error:
            raise ValueError(f"{key}: {value!r} is no value for it") from error
    return message


_KEYS = {name: key for key, name in _AMOUNTS.items()}


def _budget(message: budget_pb2.Budget) -> Budget:
    return Budget(
        tenant_id=message.tenant_id,
        windows=tuple(
            WindowBudget(
                period=budget_pb2.Period.Name(window.period).removeprefix("PERIOD_").lower(),
                start=_time(window.start),
                end=_time(window.end),
                spent_usd=_usd(window.spent_nano_usd),
                reserved_usd=_usd(window.reserved_nano_usd),
                limit_usd=_usd(window.limit_nano_usd) if window.HasField("limit_nano_usd") else None,
                left_usd=_usd(window.left_nano_usd) if window.HasField("left_nano_usd") else None,
            )
            for window in message.windows
        ),
        overruns={each.cause: (each.count, _usd(each.amount_nano_usd)) for each in message.overruns},
    )


def _policy(message: budget_pb2.Policy) -> Policy:
    return Policy(
        tenant_id=message.tenant_id,
        values={
            value.key: PolicyValue(
                key=value.key,
                value=json.loads(value.value_json),
                source=_SOURCES.get(value.source, "unknown"),
                change=_change(value.change) if value.HasField("change") else None,
            )
            for value in message.values
        },
        overrides=tuple(
            Override(
                kind=_KIND_NAMES.get(each.kind, "unknown"),
                model=each.model,
                expires_at=_time(each.expires_at),
                for_everyone=each.for_everyone,
                change=_change(each.change),
            )
            for each in message.overrides
        ),
        problems=tuple(message.overlay_problems),
        history=tuple(map(_change, message.history)),
    )


def _change(message: budget_pb2.PolicyChange) -> PolicyChange:
    return PolicyChange(author=message.author, reason=message.reason, at=_time(message.at), summary=message.summary)


def _usd(nano: int) -> Decimal:
    return Decimal(nano) / _NANO


def _time(message: timestamp_pb2.Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
