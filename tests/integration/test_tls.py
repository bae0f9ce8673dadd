"""Both services behind TLS with certificates of our own, replaced while they serve."""

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from pointsman.client import (
    ClientTls,
    DispatcherClient,
    Message,
    PointsmanCallError,
    Role,
    ScorerClient,
    SyncDispatcherClient,
)
from tests.dispatchers import start_dispatcher
from tests.identities import Authority
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import DISPATCHER_PORTS, SCORER_PORTS, ServiceProcess

HELLO = [Message(Role.USER, "hello")]


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_env(prefix: str, authority: Authority, *, client_ca: bool = False) -> dict[str, str]:
    files = authority.issue(f"{prefix.lower()}-server")
    env = {f"{prefix}_TLS_CERTIFICATE": str(files.certificate), f"{prefix}_TLS_KEY": str(files.key)}
    return env | ({f"{prefix}_TLS_CLIENT_CA": str(authority.certificate)} if client_ca else {})


def client_tls(authority: Authority, uri: str) -> ClientTls:
    files = authority.issue(uri.rpartition("/")[2], uri=uri)
    return ClientTls(ca=authority.certificate, certificate=files.certificate, key=files.key)


def seconds_left(process: ServiceProcess, service: str) -> float:
    with urllib.request.urlopen(f"http://{process.metrics}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    [line] = [line for line in lines if line.startswith(f"pointsman_{service}_certificate_expiry_seconds ")]
    return float(line.split()[1])


async def test_a_new_certificate_is_served_without_a_restart_while_calls_go_on(authority: Authority) -> None:
    tls = ClientTls(ca=authority.certificate)
    with ServiceProcess("scorer_service", env={**SCORER_PORTS, **server_env("SCORER", authority)}) as scorer:
        async with ScorerClient(scorer.grpc, tls=tls) as before:
            assert 0 < (await before.score(HELLO)).win_probability < 1
            assert seconds_left(scorer, "scorer") == pytest.approx(86_400, abs=120)
            # Another authority, so that only who trusts it can have been shown the new certificate.
            (authority.certificate.parent / "new").mkdir()
            other = Authority(authority.certificate.parent / "new", "new-ca")
            fresh = other.issue("server", days=30)
            for name, file in (("scorer-server-key", fresh.key), ("scorer-server", fresh.certificate)):
                (authority.certificate.parent / f"{name}.pem").write_bytes(file.read_bytes())
            async with ScorerClient(scorer.grpc, tls=ClientTls(ca=other.certificate)) as after:
                assert 0 < (await after.score(HELLO)).win_probability < 1
            assert 0 < (await before.score(HELLO)).win_probability < 1, "the standing connection goes on"
            assert seconds_left(scorer, "scorer") == pytest.approx(30 * 86_400, abs=120)
            async with ScorerClient(scorer.grpc, tls=tls, timeout=2) as stale:
                with pytest.raises(PointsmanCallError) as caught:
                    await stale.score(HELLO)
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def _complete(address: str, tls: ClientTls) -> str:
    """The content that the client without asyncio is answered."""
    with SyncDispatcherClient(address, tls=tls) as client:
        return client.complete("hello").content


async def test_a_client_certificate_names_the_tenant_and_none_opens_no_door(
    tmp_path: Path, authority: Authority, upstream: OpenAIServer
) -> None:
    with start_dispatcher(
        tmp_path,
        scorer="127.0.0.1:1",
        upstream=upstream.base_url,
        tenants={"fixed": 'certificates = ["uri:spiffe://mesh/fixed"]'},
        environment=server_env("DISPATCHER", authority, client_ca=True),
    ) as process:
        address = process.wait_until_serving().grpc
        async with DispatcherClient(address, tls=client_tls(authority, "spiffe://mesh/fixed")) as client:
            assert (await client.complete("hello")).decision.alpha is None
        assert await asyncio.to_thread(_complete, address, client_tls(authority, "spiffe://mesh/fixed"))
        async with DispatcherClient(
            address, tenant="default", tls=client_tls(authority, "spiffe://mesh/fixed"), timeout=10
        ) as client:
            with pytest.raises(PointsmanCallError) as caught:
                await client.complete("hello")
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
        async with DispatcherClient(address, tls=client_tls(authority, "spiffe://mesh/stranger"), timeout=10) as client:
            with pytest.raises(PointsmanCallError) as caught:
                await client.complete("hello")
            assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
        (tmp_path / "evil").mkdir()
        forged = client_tls(Authority(tmp_path / "evil"), "spiffe://mesh/fixed")
        forged = ClientTls(ca=authority.certificate, certificate=forged.certificate, key=forged.key)
        for tls in (forged, ClientTls(ca=authority.certificate), None):
            async with DispatcherClient(address, tls=tls, timeout=2) as client:
                with pytest.raises(PointsmanCallError) as caught:
                    await client.complete("hello")
                assert caught.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_a_certificate_without_its_key_stops_the_start_with_one_line(tmp_path: Path, authority: Authority) -> None:
    env = {**DISPATCHER_PORTS, **server_env("DISPATCHER", authority)}
    for change, said in (
        ({"DISPATCHER_TLS_KEY": ""}, "DISPATCHER_TLS_CERTIFICATE and DISPATCHER_TLS_KEY belong together"),
        ({"DISPATCHER_TLS_KEY": str(tmp_path / "none")}, f"{tmp_path / 'none'}: cannot be read"),
    ):
        with ServiceProcess("dispatcher_service", env=env | change) as process:
            assert process.wait() == 1
            [line] = [line for line in process.stderr if line.startswith("error: ")]
            assert said in line
