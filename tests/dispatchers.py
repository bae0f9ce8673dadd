"""Real dispatchers for tests: a configuration around given addresses, and calls to them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from pointsman.dispatcher.v1 import chat_pb2, decision_pb2, dispatcher_pb2, dispatcher_pb2_grpc, records_pb2_grpc
from tests.identities import bearer
from tests.processes import DISPATCHER_PORTS, ServiceProcess

_CONFIG = """
[scorer]
address = "{scorer}"
timeout = 1.0

[[models]]
name = "gpt-4-1106-preview"
price = {{ input = 10, output = 30 }}
{models}

[[models]]
name = "Mixtral-8x7B-Instruct-v0.1"
price = {{ input = 0.6, output = 0.6 }}
{models}

[[models]]
name = "other-weak"
price = {{ input = 0.1, output = 0.1 }}
{models}

[[deployments]]
name = "strong-1"
model = "gpt-4-1106-preview"
base_url = "{upstream}"

[[deployments]]
name = "weak-1"
model = "Mixtral-8x7B-Instruct-v0.1"
base_url = "{upstream}"

[[deployments]]
name = "other-1"
model = "other-weak"
base_url = "{upstream}"

[tenants.default]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
strong_call_share = 0.3
allow_alpha_override = true

[tenants.fixed]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
alpha = 0.9
on_scorer_failure = "strong"

[tenants.unpaced]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
strong_call_share = 0.3
pace = false

[tenants.strict]
strong_model = "gpt-4-1106-preview"
weak_model = "Mixtral-8x7B-Instruct-v0.1"
strong_call_share = 0.5
on_scorer_failure = "reject"

[tenants.mismatched]
strong_model = "gpt-4-1106-preview"
weak_model = "other-weak"
strong_call_share = 0.5
"""

STRONG = "gpt-4-1106-preview"
WEAK = "Mixtral-8x7B-Instruct-v0.1"


def start_dispatcher(
    directory: Path,
    *,
    scorer: str,
    upstream: str,
    tenants: Mapping[str, str] | None = None,
    scorer_more: str = "",
    deployments: str = "",
    models: str = "max_output_tokens = 4096",
    more: str = "",
    environment: Mapping[str, str] | None = None,
    **env: str,
) -> ServiceProcess:
    """Start a dispatcher with the tenants above; its decision log is `decisions.jsonl` in `directory`.

    `tenants` adds lines to tenants by their names, `scorer_more` to the scorer, `deployments` to every deployment,
    `models` stands in every model, `more` at the end of the configuration; `environment` and `env` are settings.
    """
    config = directory / "dispatcher.toml"
    text = _CONFIG.format(scorer=scorer, upstream=upstream, models=models)
    text = text.replace("[[deployments]]\n", f"[[deployments]]\n{deployments}\n")
    for tenant, lines in (tenants or {}).items():
        text = text.replace(f"[tenants.{tenant}]\n", f"[tenants.{tenant}]\n{lines}\n")
    text = text.replace("timeout = 1.0\n", f"timeout = 1.0\n{scorer_more}\n", 1)
    config.write_text(text + more)
    settings = {
        **DISPATCHER_PORTS,
        "DISPATCHER_CONFIG": str(config),
        "DISPATCHER_DECISION_LOG": str(directory / "decisions.jsonl"),
        "DISPATCHER_LEDGER": f"sqlite:{directory / 'ledger.sqlite'}",
        # A busy test machine stalls the event loop for longer than users would wait; refusals have tests of their own.
        "DISPATCHER_MAX_BACKLOG": "20",
        **(environment or {}),
        **env,
    }
    return ServiceProcess("dispatcher_service", env=settings)


class Caller:
    """Calls a dispatcher as one tenant; a context manager around one channel."""

    def __init__(
        self, address: str, tenant: str = "default", *, credential: str = "", tls: grpc.ChannelCredentials | None = None
    ) -> None:
        """With a `credential` the tenant is not named: the credential does that."""
        options = [("grpc.max_send_message_length", -1)]
        self.channel = (
            grpc.aio.insecure_channel(address, options=options)
            if tls is None
            else grpc.aio.secure_channel(address, tls, options=options)
        )
        self.stub = dispatcher_pb2_grpc.DispatcherServiceStub(self.channel)
        self.records = records_pb2_grpc.RecordServiceStub(self.channel)
        self.metadata = bearer(credential) if credential else ((("x-pointsman-tenant", tenant),) if tenant else ())

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def complete(self, prompt: str, **fields: Any) -> dispatcher_pb2.CompleteResponse:
        request = dispatcher_pb2.CompleteRequest(chat=chat(prompt), **fields)
        return await self.stub.Complete(request, metadata=self.metadata, timeout=30)

    async def stream(self, prompt: str, **fields: Any) -> list[dispatcher_pb2.StreamCompleteResponse]:
        request = dispatcher_pb2.StreamCompleteRequest(chat=chat(prompt), **fields)
        return [event async for event in self.stub.StreamComplete(request, metadata=self.metadata, timeout=30)]

    async def route(self, prompt: str, **fields: Any) -> decision_pb2.Decision:
        request = dispatcher_pb2.RouteRequest(chat=chat(prompt), **fields)
        return (await self.stub.Route(request, metadata=self.metadata, timeout=30)).decision


def chat(prompt: str) -> chat_pb2.Chat:
    """A conversation of one user message."""
    part = chat_pb2.ContentPart(text=prompt)
    return chat_pb2.Chat(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=[part])])
