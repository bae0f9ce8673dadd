"""Process settings of the dispatcher. Tenants, models and prices are not here: they are in the TOML file."""

from dataclasses import dataclass

from dispatcher_service.records.redaction import BUILT_IN
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
    workers: int = setting(
        1,
        meaning="Dispatcher processes behind the one gRPC port and the one metrics port. A connection stays with one "
        "of them. Each has its own limits on concurrency, breakers and event loop; all share the ledger, which cannot "
        "be `memory:`.",
        unit="processes",
        minimum=1,
        maximum=64,
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
        meaning="Where one JSON line per request and feedback goes: `none`, `stdout`, `otlp` (OpenTelemetry logs, set "
        "up by the OTEL_… variables; extra `otel`), or a file to append to. Lines hold no text of conversations.",
        unit="none, stdout, otlp or path",
    )
    decision_log_max_bytes: int = setting(
        104_857_600,
        meaning="Size at which a decision log file is closed and a new one begun.",
        unit="bytes",
        minimum=1,
    )
    decision_log_max_age: float = setting(
        86_400.0, meaning="Age at which it is closed.", unit="seconds", minimum=1, maximum=34_560_000
    )
    decision_log_keep: float = setting(
        2_592_000.0,
        meaning="How long closed files are kept; 0 keeps them for good.",
        unit="seconds",
        minimum=0,
        maximum=345_600_000,
    )
    decision_retention: float = setting(
        86_400.0,
        meaning="How long GetDecision finds a request, in the ledger's backend; 0 keeps no records there and no text.",
        unit="seconds",
        minimum=0,
        maximum=34_560_000,
    )
    record_queue: int = setting(
        4096,
        meaning="Records that may wait to be written; those beyond are lost, and counted.",
        unit="records",
        minimum=1,
        maximum=1_000_000,
    )
    redaction: str = setting(
        BUILT_IN,
        meaning="The function that every text of a tenant with log_text passes before it is kept; the built-in one "
        "takes out e-mail addresses and keys.",
        unit="module:function",
    )
    tracing: str = setting(
        "none",
        meaning="`otlp` sends OpenTelemetry traces, set up by the OTEL_… variables (extra `otel`).",
        unit="exporter",
        choices=("none", "otlp"),
    )
    ledger: str = setting(
        "",
        meaning="Where money, conversations and records are kept: `sqlite:FILE` for the dispatchers of one host (add "
        "`?durable=1` to survive power cuts too), `redis://host:port/db` (Redis or Valkey) "
        "for many hosts (`rediss://` and `redis+cluster://` likewise), or `memory:`, which forgets. Unset: a SQLite "
        "file under $XDG_STATE_HOME/pointsman or ~/.local/state/pointsman, which all dispatchers of this user share.",
        unit="URL",
    )
    max_conversation_bytes: int = setting(
        1_048_576,
        meaning="UTF-8 text of one conversation; more is refused.",
        unit="bytes",
        minimum=1,
        maximum=16_777_216,
    )
    max_calls: int = setting(
        2000,
        meaning="Calls of all tenants that may be under way. More are refused with RESOURCE_EXHAUSTED before their "
        "body is read, so that memory is bounded.",
        unit="calls",
        minimum=1,
        maximum=1_000_000,
    )
    max_backlog: float = setting(
        2.0,
        meaning="How long a call may wait for its turn in a burst; in an overload that lasts it is a tenth of that, "
        "and for a caller with a deadline half of what is left of it at most. Whoever would wait longer is refused at "
        "once, as above. Also how far the event loop may be behind.",
        unit="seconds",
        minimum=0.01,
        maximum=60,
    )
    tls_certificate: str = setting(
        "",
        meaning="PEM file with the gRPC port's certificate chain, its own certificate first. Read again when it "
        "changes. Unset: the port speaks in the clear.",
        unit="path",
    )
    tls_key: str = setting("", meaning="PEM file with the certificate's private key.", unit="path")
    tls_client_ca: str = setting(
        "",
        meaning="PEM file with the authority that signs clients' certificates. If it is set, every client must show "
        "one and may be named by a tenant's `certificates`.",
        unit="path",
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
