"""What `pointsman playground` does, once its arguments are read: the services where it needs them, then the page."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from apps.demo.children import Child, ChildFailed
from apps.demo.prompts import PROMPTS
from apps.demo.stack import Ports, port_or_free, running
from apps.playground.app import About, Playground, application
from pointsman.client import BudgetClient, ClientTls, DispatcherClient
from pointsman.runtime.starting import StartError, split_address

CREDENTIAL_VARIABLE = "POINTSMAN_CREDENTIAL"
TENANT = "playground"
"""The tenant of our own dispatcher."""

_POLICY = """\
strong_call_share = 0.5
# α stands still until the slider moves it: what is seen then is the slider's doing.
pace = false
allow_alpha_override = true
usd_per_hour = 0.10
usd_per_day = 0.50
on_exhausted = "reject"
"""
_USUAL_PORT = 8501
_ANY = "*"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_DRAIN_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The command's arguments; `None` where one was not given. See `pointsman playground --help`."""

    listen: str | None
    dispatcher: str | None
    tenant: str
    ca: Path | None


def tenants() -> Mapping[str, str]:
    """What our own dispatcher's configuration holds for the page: see `apps.demo.catalogue.toml`."""
    return {TENANT: _POLICY}


async def playground(wanted: Wanted, environ: Mapping[str, str]) -> int:
    """Serve the page until cancelled; returns the exit code if it ends by itself."""
    try:
        listener = _listen(wanted.listen)
    except StartError as error:
        _say(f"error: {error}")
        return 2
    with listener:
        try:
            if wanted.dispatcher is not None:
                await _serve(
                    listener,
                    address=wanted.dispatcher,
                    tenant=wanted.tenant,
                    credential=environ.get(CREDENTIAL_VARIABLE, ""),
                    ca=wanted.ca,
                )
            else:
                _say("starting scorer, dispatcher and upstream …")
                async with running(environ, Ports(), more_tenants=tenants()) as stack:
                    _say(stack.models.notice)
                    await _serve(
                        listener,
                        address=stack.dispatcher.serving["grpc"],
                        tenant=wanted.tenant or TENANT,
                        notice=stack.models.notice,
                        children=stack.children,
                    )
        except ChildFailed as error:
            _say(str(error))
        except OSError as error:
            _say(f"error: --ca {wanted.ca}: {error.strerror or error}")
    return 1


async def _serve(
    listener: socket.socket,
    *,
    address: str,
    tenant: str,
    credential: str = "",
    ca: Path | None = None,
    notice: str = "",
    children: Sequence[Child] = (),
) -> None:
    """Serve on the socket until cancelled.

    Raises:
        ChildFailed: one of `children` ended by itself.
        OSError: `ca` cannot be read.
    """
    tls = None if ca is None else ClientTls(ca=ca)
    async with (
        # No retries: somebody looks on, and may try again.
        DispatcherClient(address, tenant=tenant, credential=credential, tls=tls, retries=0) as dispatcher,
        BudgetClient(address, tenant=tenant, credential=credential, tls=tls, timeout=10.0) as budgets,
    ):
        about = About(dispatcher=address, notice=notice, prompts=PROMPTS)
        host, port = listener.getsockname()[:2]
        server = _Server(
            uvicorn.Config(
                application(Playground(dispatcher, budgets, about=about), hosts=_hosts(host)),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        endings = [asyncio.create_task(child.ended()) for child in children]
        shown = f"[{host}]" if ":" in host else host
        _say(f"dispatcher  grpc {address}" + (f" as tenant {tenant}" if tenant else ""))
        _say(f"playground  http://{shown}:{port}")
        if _hosts(host) == (_ANY,):
            _say("It can be reached from other machines: whoever does spends this tenant's budget.")
        _say("Ctrl-C stops it.")
        try:
            # The server is not cancelled along: it is asked to end, and does so in order.
            await asyncio.gather(asyncio.shield(serving), *endings)
        finally:
            for ending in endings:
                ending.cancel()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Leaves signals to the command, which stops more than this server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(listen: str | None) -> socket.socket:
    """A listening socket, there before anything is started: a port that is taken is known at once.

    Raises:
        StartError: the address cannot be used.
    """
    host, port = ("127.0.0.1", port_or_free(_USUAL_PORT)) if listen is None else split_address(listen)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: {error.strerror or error}. Choose another port") from error


def _hosts(host: str) -> Sequence[str]:
    """The names in a browser's Host header: on loopback only its own, so that no name that points here will do."""
    return _LOOPBACK_NAMES if ipaddress.ip_address(host).is_loopback else (_ANY,)


def _say(text: str) -> None:
    print(text, flush=True)
