"""Budgets and policies between values and protos, with every field checked on its way in."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf import timestamp_pb2

from dispatcher_service.audit_trail import Entry
from dispatcher_service.budget import MAX_LIMIT, Limit, Period, format_usd
from dispatcher_service.errors import InvalidRequest
from dispatcher_service.ledger.contract import Balances, Overrun, OverrunCause
from dispatcher_service.overlay import CHANGEABLE, Change, Json, Overlay
from dispatcher_service.overrides import Override, OverrideKind
from dispatcher_service.sections import TenantSection
from pointsman.dispatcher.v1 import budget_pb2

MAX_LIFETIME = 30 * 86_400.0

_MAX_REASON = 500
_MAX_AUTHOR = 100
_SECRET = frozenset({"api_keys", "certificates"})
_PERIODS = {
    Period.HOUR: budget_pb2.PERIOD_HOUR,
    Period.DAY: budget_pb2.PERIOD_DAY,
    Period.MONTH: budget_pb2.PERIOD_MONTH,
}
_KINDS = {
    OverrideKind.ALL_WEAK: budget_pb2.OVERRIDE_KIND_ALL_WEAK,
    OverrideKind.ALL_STRONG: budget_pb2.OVERRIDE_KIND_ALL_STRONG,
    OverrideKind.MODEL_OFF: budget_pb2.OVERRIDE_KIND_MODEL_OFF,
}
_AMOUNTS = {
    "nano_usd_per_hour": "usd_per_hour",
    "nano_usd_per_day": "usd_per_day",
    "nano_usd_per_month": "usd_per_month",
    "overdraft_nano_usd": "overdraft_usd",
}


def budget(
    tenant_id: str, limits: Iterable[Limit], balances: Balances, overruns: Iterable[tuple[OverrunCause, Overrun]]
) -> budget_pb2.Budget:
    """A tenant's account."""
    amounts = {limit.period: limit.amount for limit in limits}
    message = budget_pb2.Budget(tenant_id=tenant_id)
    for balance in balances:
        window = balance.window
        limit = amounts.get(window.period)
        message.windows.add(
            period=_PERIODS[window.period],
            start=timestamp(window.start),
            end=timestamp(window.end),
            spent_nano_usd=balance.spent,
            reserved_nano_usd=balance.reserved,
            limit_nano_usd=limit,
            left_nano_usd=None if limit is None else max(limit - balance.committed, 0),
        )
    for cause, overrun in overruns:
        message.overruns.add(cause=cause.value, count=overrun.count, amount_nano_usd=overrun.amount)
    return message


def values(file: TenantSection, effective: TenantSection, overlay: Overlay) -> list[budget_pb2.PolicyValue]:
    """Every value of a section, with where it comes from."""
    shown = []
    dumped = effective.model_dump(mode="json", exclude=set(_SECRET))
    for key in TenantSection.model_fields:
        if key in _SECRET:
            continue
        changed = overlay.values.get(key)
        source = budget_pb2.VALUE_SOURCE_DEFAULT
        # A key that another one put out of force is changed too, although nobody named it.
        if changed is not None or getattr(file, key) != getattr(effective, key):
            source = budget_pb2.VALUE_SOURCE_OVERLAY
        elif key in file.model_fields_set:
            source = budget_pb2.VALUE_SOURCE_FILE
        message = budget_pb2.PolicyValue(key=key, value_json=json.dumps(dumped[key]), source=source)
        if changed is not None:
            message.change.CopyFrom(change(changed.change))
        shown.append(message)
    return shown


def overrides(overlay: Overlay, *, now: float, for_everyone: bool) -> list[budget_pb2.Override]:
    """The overrides of an overlay that have not expired."""
    return [
        budget_pb2.Override(
            kind=_KINDS[each.override.kind],
            model=each.override.model,
            expires_at=timestamp(each.override.expires_at),
            change=change(each.change),
            for_everyone=for_everyone,
        )
        for each in overlay.overrides
        if now < each.override.expires_at
    ]


def history(entries: Iterable[Entry]) -> list[budget_pb2.PolicyChange]:
    """The audit trail."""
    return [change(entry.change, summary=entry.summary) for entry in entries]


def change(made: Change, *, summary: str = "") -> budget_pb2.PolicyChange:
    """Who, why and when."""
    return budget_pb2.PolicyChange(author=made.author, reason=made.reason, at=timestamp(made.at), summary=summary)


def timestamp(at: float) -> timestamp_pb2.Timestamp:
    """From seconds since the epoch."""
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(datetime.fromtimestamp(at, tz=UTC))
    return message


def read_values(proto: budget_pb2.PolicyValues) -> dict[str, Json]:
    """The values to set, by their keys in the file. Whether they fit is the overlay's to say.

    Raises:
        InvalidRequest: an amount is out of range.
    """
    wanted: dict[str, Json] = {}
    for descriptor, value in proto.ListFields():
        key = _AMOUNTS.get(descriptor.name)
        if key is None:
            wanted[descriptor.name] = value
            continue
        if not 0 <= value <= MAX_LIMIT:
            raise InvalidRequest(f"set.{descriptor.name}", f"write an amount from 0 to {MAX_LIMIT} nano-USD")
        wanted[key] = format_usd(value)
    return wanted


def read_keys(name: str, keys: Iterable[str]) -> tuple[str, ...]:
    """Keys to unset or to reset.

    Raises:
        InvalidRequest: one cannot be changed at run time.
    """
    listed = tuple(keys)
    for key in listed:
        if key not in CHANGEABLE:
            raise InvalidRequest(name, f"{key[:64]!r} is none of {', '.join(CHANGEABLE)}")
    return listed


def read_override(proto: budget_pb2.SetOverrideRequest, *, models: Iterable[str], now: float) -> Override | None:
    """The override that is asked for; `None` to end those there are.

    Raises:
        InvalidRequest: a field cannot be used.
    """
    kind = {number: kind for kind, number in _KINDS.items()}.get(proto.kind)
    if kind is None:
        if proto.kind != budget_pb2.OVERRIDE_KIND_UNSPECIFIED:
            raise InvalidRequest("kind", "write one of all weak, all strong, or model off")
        return None
    if (kind is OverrideKind.MODEL_OFF) != bool(proto.model):
        raise InvalidRequest("model", "name the model to turn off, and none for another kind of override")
    if proto.model and proto.model not in models:
        raise InvalidRequest("model", f"no such model {proto.model[:64]!r}")
    lifetime = proto.lifetime.ToNanoseconds() / 1e9
    if not 0 < lifetime <= MAX_LIFETIME:
        raise InvalidRequest("lifetime", "write more than 0 and at most 30 days: what is to last is for SetPolicy")
    return Override(kind, proto.model, now + lifetime)


def read_reason(text: str) -> str:
    """Why something is changed.

    Raises:
        InvalidRequest: there is none, or too long a one.
    """
    if not 1 <= len(text.strip()) <= _MAX_REASON:
        raise InvalidRequest("reason", f"say why, in at most {_MAX_REASON} characters: it stands in the audit trail")
    return text.strip()


def read_author(text: str, *, credential: str) -> str:
    """Who changes something: the credential's name, and whom the caller says it is for.

    Raises:
        InvalidRequest: neither is known.
    """
    named = text.strip()
    if len(named) > _MAX_AUTHOR:
        raise InvalidRequest("author", f"write at most {_MAX_AUTHOR} characters")
    if not named and not credential:
        raise InvalidRequest("author", "this credential has no name: say who you are, for the audit trail")
    return f"{credential} for {named}" if named and credential else named or credential
