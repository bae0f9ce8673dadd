"""Process settings from environment variables: declared once, parsed strictly, printed by `--help`.

A service declares a frozen dataclass whose fields are made by `setting(...)`. The variable's name is the service's
prefix and the field's name: `listen` under `SCORER` is `SCORER_LISTEN`.
"""

import dataclasses
import difflib
import math
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Settings = TypeVar("Settings")

# Kubernetes describes every Service of a namespace to every pod (https://kubernetes.io/docs/concepts/services-networking/
# service/#environment-variables). A Service named `scorer` therefore sets names that begin like ours.
_KUBERNETES_NAME = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_KUBERNETES_URL = re.compile(r"^(tcp|udp|sctp)://")


class SettingsError(Exception):
    """A setting that is unknown or cannot be used. The message is one line: the name, the problem and the mend."""


def setting(
    default: Any,
    *,
    meaning: str,
    unit: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """One field of a settings dataclass.

    Args:
        default: value when the variable is unset or empty; its type (str, int, float or bool) is the setting's type.
        meaning: what it means and what follows from changing it.
        unit: shown by `--help`, for example `seconds` or `host:port`.
        minimum: least value of a number, inclusive.
        maximum: greatest value of a number, inclusive.
        choices: the closed set of values of a text.
    """
    metadata = {"meaning": meaning, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def load(cls: type[Settings], prefix: str, environ: Mapping[str, str]) -> Settings:
    """Read `cls` from `environ`.

    Raises:
        SettingsError: a value does not parse, is out of range, or a variable with this prefix is no setting. Names
            that Kubernetes injects for Services are not ours and are ignored.
    """
    fields = {f"{prefix}_{field.name.upper()}": field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(prefix, environ, known=list(fields))
    values = {
        field.name: _parse(name, environ[name], field)
        for name, field in fields.items()
        # An empty variable is how a shell or a compose file says "not set".
        if environ.get(name, "") != ""
    }
    return cls(**values)


def describe(cls: type[Any], prefix: str) -> str:
    """The table that `--help` prints: every setting with its unit, default and meaning."""
    lines = []
    for field in dataclasses.fields(cls):
        meta = field.metadata
        shown = "(unset)" if field.default == "" else str(field.default)
        allowed = f"; one of {', '.join(meta['choices'])}" if meta["choices"] else ""
        lines.append(f"  {prefix}_{field.name.upper()}  [{meta['unit']}; default {shown}{allowed}]")
        lines.extend(textwrap.wrap(meta["meaning"], 100, initial_indent="      ", subsequent_indent="      "))
    return "\n".join(lines)


def _refuse_unknown(prefix: str, environ: Mapping[str, str], known: list[str]) -> None:
    for name, value in environ.items():
        if not name.startswith(f"{prefix}_") or name in known:
            continue
        if _KUBERNETES_NAME.search(name) or (name.endswith("_PORT") and _KUBERNETES_URL.match(value)):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        mend = f"did you mean {close[0]}?" if close else "unset it; --help lists every setting"
        raise SettingsError(f"{name} is not a setting: {mend}")


def _parse(name: str, text: str, field: "dataclasses.Field[Any]") -> Any:
    kind: Callable[[str], Any] = type(field.default)
    meta = field.metadata
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise SettingsError(f"{name}={text!r}: write true or false")
        return text.lower() in ("true", "1")
    try:
        value = kind(text)
    except ValueError:
        raise SettingsError(f"{name}={text!r}: write a number in {meta['unit']}") from None
    if isinstance(value, (int, float)):
        low, high = meta["minimum"], meta["maximum"]
        too_low = low is not None and value < low
        too_high = high is not None and value > high
        if not math.isfinite(value) or too_low or too_high:
            bounds = [f"at {which} {bound:g}" for which, bound in (("least", low), ("most", high)) if bound is not None]
            raise SettingsError(f"{name}={text}: write a number {' and '.join(bounds) or 'that is finite'}")
    elif meta["choices"] and value not in meta["choices"]:
        raise SettingsError(f"{name}={text!r}: write one of {', '.join(meta['choices'])}")
    return value
