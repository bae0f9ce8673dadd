"""Credentials against a real dispatcher: whose money a call spends, and that no secret is written anywhere."""

import asyncio
import contextlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from aiohttp import web

from dispatcher_service.api_keys import new_key
from pointsman.client import DispatcherClient, PointsmanCallError
from pointsman.dispatcher.v1 import records_pb2
from pointsman.runtime.status import RichStatus, decode
from tests.dispatchers import Caller, start_dispatcher
from tests.identities import AUDIENCE, ISSUER, Issuer, key_line
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import ServiceProcess, run_to_end

DEFAULT, FIXED, STALE, ADMIN = (new_key() for _ in range(4))
ISSUED = Issuer()


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("identity")


@pytest.fixture(scope="module")
def dispatcher(folder: Path, upstream: OpenAIServer) -> Iterator[ServiceProcess]:
    key_set = folder / "keys.json"
    key_set.write_text(ISSUED.key_set)
    more = f"""
[admins.ops]
api_keys = [{key_line(ADMIN)}]

[auth.jwt]
jwks = "{key_set}"
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
"""
    tenants = {
        "default": f"api_keys = [{key_line(DEFAULT)}, {key_line(STALE, expires='2020-01-01')}]",
        "fixed": f"api_keys = [{key_line(FIXED)}]",
    }
    env = {"DISPATCHER_LISTEN": "0.0.0.0:0", "DISPATCHER_LOG_LEVEL": "debug"}
    with start_dispatcher(
        folder, scorer="127.0.0.1:1", upstream=upstream.base_url, tenants=tenants, more=more, environment=env
    ) as process:
        yield process.wait_until_serving()


@pytest.fixture
def address(dispatcher: ServiceProcess) -> str:
    """With credentials required, the port may listen beyond loopback."""
    assert dispatcher.grpc.startswith("0.0.0.0:")
    return dispatcher.grpc.replace("0.0.0.0", "127.0.0.1")


def _spent(dispatcher: ServiceProcess) -> dict[str, float]:
    """Decisions so far by tenant."""
    with urllib.request.urlopen(f"http://{dispatcher.metrics}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    spent: dict[str, float] = {}
    for line in lines:
        if line.startswith("pointsman_dispatcher_decisions_total{"):
            labels, _, value = line.rpartition(" ")
            tenant = labels.split('tenant="')[1].split('"')[0]
            spent[tenant] = spent.get(tenant, 0) + float(value)
    return spent


async def test_a_call_spends_the_money_of_its_credentials_tenant(dispatcher: ServiceProcess, address: str) -> None:
    before = _spent(dispatcher)
    for credential in (DEFAULT.text, ISSUED.token(tenant="default"), FIXED.text):
        async with Caller(address, credential=credential) as caller:
            await caller.complete("hello")
    after = _spent(dispatcher)
    assert {tenant: after[tenant] - before.get(tenant, 0) for tenant in after} == {"default": 2, "fixed": 1}


async def test_every_refusal_reads_the_same(address: str) -> None:
    statuses = []
    for credential in (STALE.text, new_key().text, "nonsense", ISSUED.token(tenant="nobody"), Issuer().token()):
        async with Caller(address, credential=credential) as caller:
            for method in (caller.complete, caller.stream, caller.route):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method("hello")
                statuses.append(decode(caught.value))
    expected = RichStatus(
        code=grpc.StatusCode.UNAUTHENTICATED, message="no valid tenant credential", reason="UNAUTHENTICATED"
    )
    assert statuses == [expected] * 15


async def test_no_tenant_and_no_admin_can_act_as_another_tenant(dispatcher: ServiceProcess, address: str) -> None:
    before = _spent(dispatcher)
    async with Caller(address, credential=FIXED.text) as caller:
        caller.metadata = (*caller.metadata, ("x-pointsman-tenant", "default"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.complete("hello")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with Caller(address, credential="") as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.complete("hello")
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    async with Caller(address, credential=ADMIN.text) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await caller.complete("hello")
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert _spent(dispatcher) == before


async def test_no_tenant_reads_judges_or_erases_what_is_anothers(address: str) -> None:
    async with (
        DispatcherClient(address, credential=DEFAULT.text) as owner,
        DispatcherClient(address, credential=FIXED.text) as other,
    ):
        name = (await owner.complete("hello", request_id="owned")).request_id
        async with asyncio.timeout(20):
            while True:
                try:
                    await owner.get_decision(name)
                except PointsmanCallError as error:
                    if error.code is not grpc.StatusCode.NOT_FOUND:
                        raise
                    await asyncio.sleep(0.05)
                else:
                    break
        for attempt in (other.get_decision(name), other.record_feedback(name, rating=0.0)):
            with pytest.raises(PointsmanCallError) as caught:
                await attempt
            assert caught.value.code is grpc.StatusCode.NOT_FOUND
        # The same request id under another tenant is another request.
        assert (await other.complete("bye", request_id="owned")).content.endswith("says: bye")
        with pytest.raises(PointsmanCallError) as caught:
            await other.erase_tenant("default")
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert await owner.get_decision(name)


async def test_the_client_sends_its_credential_and_renews_it(address: str) -> None:
    tokens = iter([ISSUED.token(tenant="default"), ISSUED.token(tenant="default", exp=1000)])
    async with DispatcherClient(address, credential=lambda: next(tokens)) as client:
        assert (await client.complete("hello")).decision.model
        with pytest.raises(PointsmanCallError) as caught:
            await client.complete("hello")
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


async def test_keys_come_from_an_http_issuer_and_its_outage_is_no_refusal(
    tmp_path: Path, upstream: OpenAIServer
) -> None:
    answers = [web.Response(status=503), web.Response(text=ISSUED.key_set, content_type="application/json")]

    async def key_set(_request: web.Request) -> web.Response:
        return answers.pop(0)

    app = web.Application()
    app.router.add_get("/keys", key_set)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    jwks = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    more = f'\n[auth.jwt]\njwks = "{jwks}"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nrefresh = 0.1\n'
    try:
        with start_dispatcher(tmp_path, scorer="127.0.0.1:1", upstream=upstream.base_url, more=more) as process:
            process.wait_until_serving()
            async with Caller(process.grpc, credential=ISSUED.token(tenant="default")) as caller:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await caller.complete("hello")
                status = decode(caught.value)
                assert status is not None
                assert (status.code, status.reason) == (grpc.StatusCode.UNAVAILABLE, "IDENTITY_UNAVAILABLE")
                while answers:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await caller.complete("hello")
                assert (await caller.complete("hello")).decision.model
    finally:
        await runner.cleanup()


def test_a_new_key_opens_the_door_and_its_line_is_toml(tmp_path: Path) -> None:
    made = run_to_end("pointsman.cli", "key", "new", "--days", "30", env={})
    assert made.code == 0
    key, line = made.stdout.splitlines()
    with start_dispatcher(
        tmp_path, scorer="127.0.0.1:1", upstream="http://127.0.0.1:1/v1", tenants={"strict": line}
    ) as process:
        process.wait_until_serving()
        assert key not in (tmp_path / "dispatcher.toml").read_text()
    refused = run_to_end("pointsman.cli", "key", "new", "--days", "0", env={})
    assert refused.code == 2
    assert "write a whole number of days" in refused.stderr


def test_a_port_without_authentication_says_so_loudly(tmp_path: Path) -> None:
    with start_dispatcher(
        tmp_path,
        scorer="127.0.0.1:1",
        upstream="http://127.0.0.1:1/v1",
        DISPATCHER_LISTEN="0.0.0.0:0",
        DISPATCHER_TRUST_CALLERS="true",
    ) as process:
        process.wait_until_serving()
        [warning] = [line for line in process.stderr if "AUTHENTICATION IS OFF" in line]
        assert '"level": "warning"' in warning


def test_no_credential_is_in_logs_metrics_or_the_decision_log(dispatcher: ServiceProcess, folder: Path) -> None:
    """Last in the file: the dispatcher has seen them all by now."""
    with urllib.request.urlopen(f"http://{dispatcher.metrics}/metrics", timeout=10) as response:
        written = response.read().decode() + "\n".join(dispatcher.stderr) + (folder / "decisions.jsonl").read_text()
    for secret in (DEFAULT.text, FIXED.text, STALE.text, ADMIN.text, "Bearer", "eyJ"):
        assert secret not in written


async def test_a_tenant_erases_its_own_and_an_admin_whatever_is_named(address: str) -> None:
    own, others = records_pb2.EraseTenantRequest(), records_pb2.EraseTenantRequest(tenant_id="default")
    async with Caller(address, credential=FIXED.text) as tenant, Caller(address, credential=ADMIN.text) as admin:
        await tenant.records.EraseTenant(own, metadata=tenant.metadata, timeout=10)
        await admin.records.EraseTenant(others, metadata=admin.metadata, timeout=10)
        for caller, request in ((tenant, others), (admin, own)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.records.EraseTenant(request, metadata=caller.metadata, timeout=10)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
