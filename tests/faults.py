"""A dispatcher in front of the faulty server, both real processes, for tests of failures."""

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pointsman.dispatcher.v1 import dispatcher_pb2
from tests.dispatchers import chat
from tests.processes import DISPATCHER_PORTS, ServiceProcess

# There is no scorer: the policy sends every request to the strong model, which is the one under test.
_CONFIG = """
[scorer]
address = "127.0.0.1:1"
timeout = 0.05

[retries]
tries = 2
backoff = 0.05
max_backoff = 3
{models}
[[models]]
name = "plain"
price = {{ input = 1, output = 1 }}

[[deployments]]
name = "plain-1"
model = "plain"
base_url = "http://{upstream}/ok/v1"
{tenants}"""

# `alone` has one deployment, which does as it is asked; `backed` has a second one, which stands by and is well.
_MODEL = """
[[models]]
name = "{name}"
price = {{ input = 10, output = 30 }}
on_disconnect = "{on_disconnect}"
drain_timeout = {drain_timeout}

[[deployments]]
name = "{name}-1"
model = "{name}"
base_url = "http://{upstream}/asked/v1"
first_token_timeout = 1.5
idle_timeout = 1.5
timeout = 3
breaker_failures = {breaker_failures}
breaker_cooldown = {cooldown}
"""
_STANDBY = """
[[deployments]]
name = "{name}-2"
model = "{name}"
base_url = "http://{upstream}/ok/v1"
weight = 0
"""
_TENANT = """
[tenants.{name}]
strong_model = "{name}"
weak_model = "plain"
alpha = 0.5
on_scorer_failure = "strong"
extra_body_keys = ["top_k", "verbosity"]
"""
TENANTS = ("alone", "backed", "patient", "fragile")


@contextlib.contextmanager
def faulty_upstream() -> Iterator[str]:
    """The faulty server as a process; gives `host:port`."""
    with ServiceProcess("tests.faulty_server", env={}) as process:
        yield str(process.wait_for("serving")["http"])


def start_dispatcher(directory: Path, upstream: str, *, cooldown: float = 0.5, **env: str) -> ServiceProcess:
    """A dispatcher with the tenants of `TENANTS`: see above, and `patient` drains, `fragile` has a quick breaker."""
    models, tenants = "", ""
    for name in TENANTS:
        settings: dict[str, Any] = {
            "name": name,
            "upstream": upstream,
            "on_disconnect": "drain" if name == "patient" else "cancel",
            "drain_timeout": 1.5,
            "cooldown": cooldown,
            "breaker_failures": 3 if name == "fragile" else 1000,
        }
        models += _MODEL.format(**settings) + (_STANDBY.format(**settings) if name == "backed" else "")
        tenants += _TENANT.format(name=name)
    config = directory / "faults.toml"
    config.write_text(_CONFIG.format(models=models, upstream=upstream, tenants=tenants))
    process_settings = {
        **DISPATCHER_PORTS,
        "DISPATCHER_CONFIG": str(config),
        "DISPATCHER_DECISION_LOG": str(directory / "decisions.jsonl"),
        # The one in memory remembers every settled call for an hour, which a soak would take for a leak.
        "DISPATCHER_LEDGER": ledger_url(directory),
        **env,
    }
    return ServiceProcess("dispatcher_service", env=process_settings)


def ledger_url(directory: Path) -> str:
    """Where such a dispatcher keeps its ledger."""
    return f"sqlite:{directory / 'ledger.db'}"


def asking(fault: str, user: str, **fields: Any) -> dict[str, Any]:
    """Fields of a request that wants this fault from the server; `user` finds its calls there."""
    conversation = chat("Count to four.")
    conversation.user = user
    conversation.metadata["fault"] = fault
    return {"chat": conversation, "request_id": user, **fields}


def stream_request(fault: str, user: str) -> dispatcher_pb2.StreamCompleteRequest:
    """A streamed request that wants this fault."""
    return dispatcher_pb2.StreamCompleteRequest(**asking(fault, user))


def upstream_calls(upstream: str, user: str = "") -> dict[str, Any]:
    """What the faulty server saw: `open`, and the ended `calls` of one user."""
    query = f"?user={user}" if user else ""
    with urllib.request.urlopen(f"http://{upstream}/calls{query}", timeout=10) as response:
        calls: dict[str, Any] = json.loads(response.read())
    return calls


def samples(process: ServiceProcess, name: str, *, service: str = "dispatcher") -> dict[tuple[str, ...], float]:
    """A metric's values by its label values, in the order of label names."""
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"pointsman_{service}_{name}"
    }


def records(directory: Path) -> dict[str, Any]:
    """The decision log by request id."""
    lines = (directory / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["request_id"]: record for record in map(json.loads, lines)}
