"""What was changed at run time, as values: an overlay over the configuration file, per tenant. Pure.

An overlay holds values for keys of a tenant's section, under their own names, and overrides. Laid over the section it
gives another section, which is checked like the file's own. All overlays are one document beside the ledger, so that
replicas agree; who changed what, and why, stands in each entry and in a trail per tenant.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pydantic

from dispatcher_service.overrides import Override, OverrideKind
from dispatcher_service.sections import TenantSection, describe

CHANGEABLE = (
    "strong_call_share", "alpha", "usd_per_hour", "usd_per_day", "usd_per_month", "on_exhausted", "overdraft_usd",
    "pace", "pacing_window_calls", "on_scorer_failure", "on_ledger_failure", "allow_alpha_override",
    "fallback_to_other_tier", "sticky", "idempotency_retention", "requests_per_minute", "tokens_per_minute",
    "max_concurrent_requests",
)  # fmt: skip
"""Keys of a tenant's section that may be changed at run time. Who may call and which models there are is the file's."""

EVERYONE = "*"
"""Stands for all tenants: no tenant can have this name."""

Json = str | float | int | bool | None

_INSTEAD_OF = {"alpha": ("strong_call_share",), "strong_call_share": ("alpha",)}
"""Setting one puts the other out of force: a tenant has one dial."""


@dataclass(frozen=True, slots=True)
class Change:
    """Who, why, and when in seconds since the epoch. `id` is unique."""

    id: str
    author: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Changed:
    """A key's value, as in the file but for amounts, which are decimal strings; `None` takes the file's away."""

    value: Json
    change: Change


@dataclass(frozen=True, slots=True)
class Overridden:
    """An override with who asked for it."""

    override: Override
    change: Change


@dataclass(frozen=True, slots=True)
class Overlay:
    """A tenant's. `summary` says in words what the latest change was: the trail's next entry."""

    values: Mapping[str, Changed] = field(default_factory=dict)
    overrides: tuple[Overridden, ...] = ()
    latest: Change | None = None
    summary: str = ""


Overlays = Mapping[str, Overlay]
"""By tenant, or `EVERYONE`."""


def with_values(
    overlay: Overlay, values: Mapping[str, Json], *, unset: Iterable[str], reset: Iterable[str], change: Change
) -> Overlay:
    """The overlay after a change: some keys set, some taken away, some back to the file's."""
    known = dict(overlay.values)
    for key in reset:
        known.pop(key, None)
    changed = {**values, **dict.fromkeys(unset)}
    for key, value in changed.items():
        for other in _INSTEAD_OF.get(key, ()):
            known.pop(other, None)
        known[key] = Changed(value, change)
    words = [f"{key} = {json.dumps(value)}" if value is not None else f"{key} unset" for key, value in changed.items()]
    words += [f"{key} as in the file" for key in reset]
    return replace(overlay, values=known, latest=change, summary=", ".join(words))


def with_override(overlay: Overlay, override: Override, *, change: Change) -> Overlay:
    """The overlay with an override in place of the one of its kind, or of its model; expired ones go."""
    alive = [each for each in overlay.overrides if change.at < each.override.expires_at]
    kept = [each for each in alive if not _same_place(each.override, override)]
    until = datetime.fromtimestamp(override.expires_at, tz=UTC)
    summary = f"{override.kind.value}{' ' + override.model if override.model else ''} until {until:%Y-%m-%d %H:%M} UTC"
    return replace(overlay, overrides=(*kept, Overridden(override, change)), latest=change, summary=summary)


def without_overrides(overlay: Overlay, *, change: Change) -> Overlay:
    """The overlay with none."""
    return replace(overlay, overrides=(), latest=change, summary="overrides cleared")


def _same_place(one: Override, other: Override) -> bool:
    """A tenant is turned to one tier at a time; each model is off or not."""
    one_off, other_off = one.kind is OverrideKind.MODEL_OFF, other.kind is OverrideKind.MODEL_OFF
    return one_off == other_off and one.model == other.model


def apply(section: TenantSection, overlay: Overlay) -> TenantSection:
    """The section under an overlay.

    Raises:
        OverlayError: a value is none that its key can have.
    """
    wanted = {key: changed.value for key, changed in overlay.values.items() if changed.value is not None}
    try:
        checked = TenantSection.model_validate(
            {"strong_model": section.strong_model, "weak_model": section.weak_model, **wanted}
        )
    except pydantic.ValidationError as error:
        raise OverlayError([describe(problem) for problem in error.errors()]) from error
    update: dict[str, Any] = {key: getattr(checked, key) for key in wanted}
    for key in overlay.values:
        for other in (*_INSTEAD_OF.get(key, ()), *(() if key in wanted else (key,))):
            if other not in wanted:
                update[other] = TenantSection.model_fields[other].default
    return section.model_copy(update=update)


class OverlayError(Exception):
    """A change that cannot be made. `problems` holds one line each: the key and the mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def write(overlays: Overlays) -> bytes:
    """The document; entries that hold nothing are left out."""
    kept = {name: asdict(overlay) for name, overlay in overlays.items()}
    for overlay in kept.values():
        for each in overlay["overrides"]:
            each["override"]["kind"] = each["override"]["kind"].value
    return json.dumps(kept, separators=(",", ":")).encode()


def read(body: bytes) -> Overlays:
    """Overlays from their document. Fields that a later version adds are passed over.

    Raises:
        ValueError: it is none.
    """
    try:
        return {str(name): _overlay(raw) for name, raw in json.loads(body).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a document of overlays: {error!r}") from error


def _overlay(raw: Mapping[str, Any]) -> Overlay:
    return Overlay(
        values={str(key): Changed(each["value"], change(each["change"])) for key, each in raw["values"].items()},
        overrides=tuple(
            Overridden(
                Override(
                    OverrideKind(each["override"]["kind"]), each["override"]["model"], each["override"]["expires_at"]
                ),
                change(each["change"]),
            )
            for each in raw["overrides"]
        ),
        latest=None if raw["latest"] is None else change(raw["latest"]),
        summary=str(raw["summary"]),
    )


def change(raw: Mapping[str, Any]) -> Change:
    """A change from JSON types."""
    return Change(str(raw["id"]), str(raw["author"]), str(raw["reason"]), float(raw["at"]))
