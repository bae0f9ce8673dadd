"""Process settings of the dispatcher. Tenants, models and prices are not here: they are in the TOML file."""

from dataclasses import dataclass

from pointsman.runtime.settings import setting

PREFIX = "DISPATCHER"


@dataclass(frozen=True, slots=True)
class Settings:
    """See `python -m dispatcher_service --help`."""

    listen: str = setting(
        "127.0.0.1:50052", meaning="Where the gRPC port listens; port 0 takes a free one.", unit="host:port"
    )
    metrics_listen: str = setting(
        "127.0.0.1:9102", meaning="Where Prometheus metrics are served, at /metrics.", unit="host:port"
    )
    config: str = setting(
        "",
        meaning="TOML file with the scorer, models, deployments and tenants. Unset: the shipped one, which serves "
        "tenant `default` from an OpenAI-compatible server on 127.0.0.1:8080.",
        unit="path",
    )
    mode: str = setting(
        "development",
        meaning="In development the port offers server reflection, and without authentication a call that names no "
        "tenant is tenant `default`'s.",
        unit="mode",
        choices=("development", "production"),
    )
    trust_callers: bool = setting(
        False,
        meaning="Without authentication, listen beyond loopback although whoever reaches the port may name any tenant "
        "and change any budget. Set it only where a mesh or a network policy decides who reaches the port.",
        unit="true or false",
    )
    decision_log: str = setting(
        "none",
        meaning="Where one JSON DecisionRecord per request goes: `none`, `stdout`, or a file to append to. It holds "
        "no text of conversations.",
        unit="none, stdout or path",
    )
    max_conversation_bytes: int = setting(
        1_048_576,
        meaning="UTF-8 text of one conversation; more is refused.",
        unit="bytes",
        minimum=1,
        maximum=16_777_216,
    )
    drain: float = setting(
        30.0,
        meaning="How long calls in flight may finish after SIGTERM before they are cancelled and billed.",
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
