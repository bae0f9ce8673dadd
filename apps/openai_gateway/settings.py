"""The front door's own settings. Policy is the dispatcher's: nothing here decides who is served or by which model."""

from dataclasses import dataclass

from pointsman.runtime.settings import setting

PREFIX = "GATEWAY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See `python -m apps.openai_gateway --help`."""

    listen: str = setting("127.0.0.1:8088", meaning="HTTP address; port 0 takes a free one.", unit="host:port")
    dispatcher: str = setting(
        "127.0.0.1:50052",
        meaning="gRPC target of the dispatcher; `dns:///name:port` balances over all addresses.",
        unit="gRPC target",
    )
    dispatcher_ca: str = setting(
        "",
        meaning="PEM file: who signed the dispatcher's certificate. Unset: the connection is not encrypted.",
        unit="path",
    )
    model: str = setting(
        "pointsman",
        meaning="The model name that callers write. `NAME@0.6` overrides alpha where the tenant's policy allows that.",
        unit="name",
    )
    timeout: float = setting(
        600.0, meaning="Longest time for one answer; the dispatcher is told.", unit="seconds", minimum=1, maximum=3600
    )
    max_body_bytes: int = setting(
        32 * 1024 * 1024,
        meaning="Largest request body; the dispatcher's own limits are lower and name the field.",
        unit="bytes",
        minimum=1024,
        maximum=256 * 1024 * 1024,
    )
    drain: float = setting(
        30.0,
        meaning="How long answers in flight may go on after SIGTERM.",
        unit="seconds",
        minimum=0,
        maximum=3600,
    )
    log_level: str = setting(
        "info", meaning="Least severe log that is written.", unit="level", choices=("debug", "info", "warning", "error")
    )
    log_style: str = setting(
        "auto",
        meaning="`auto` writes text to a terminal and JSON elsewhere.",
        unit="style",
        choices=("auto", "json", "text"),
    )
