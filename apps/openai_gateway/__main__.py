"""Composition root: `python -m apps.openai_gateway`."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

try:
    import uvicorn

    from apps.openai_gateway.app import Gateway, application
except ModuleNotFoundError as error:
    sys.exit(f"error: the front door needs the package {error.name!r}: pip install 'pointsman[gateway]'")
from apps.openai_gateway.settings import PREFIX, Settings
from pointsman.client import ClientTls, DispatcherClient
from pointsman.runtime import entry
from pointsman.runtime.logs import fields
from pointsman.runtime.starting import StartError, split_address

ABOUT = """\
Pointsman's OpenAI-compatible front door: POST /v1/chat/completions (streaming included), GET /v1/models. It translates
for the dispatcher; bearer keys are the dispatcher's credentials."""

logger = logging.getLogger(__name__)


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    return entry.run(Settings, prefix=PREFIX, about=ABOUT, argv=sys.argv[1:], environ=os.environ, main=_serve)


async def _serve(settings: Settings) -> None:
    tls = ClientTls(ca=Path(settings.dispatcher_ca)) if settings.dispatcher_ca else None
    try:
        client = DispatcherClient(settings.dispatcher, tls=tls, timeout=settings.timeout)
    except OSError as error:
        raise StartError(f"GATEWAY_DISPATCHER_CA={settings.dispatcher_ca}: {error.strerror or error}") from error
    gateway = Gateway(
        client,
        model=settings.model,
        timeout=settings.timeout,
        max_body_bytes=settings.max_body_bytes,
        clock=time.time,
    )
    host, port = split_address(settings.listen)
    config = uvicorn.Config(
        application(gateway, close=client.close),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.drain),
    )
    try:
        listener = _listen(config, host, port)
    except OSError as error:
        raise StartError(
            f"cannot listen on {settings.listen}: {error.strerror or error}. Choose another port"
        ) from error
    host, port = listener.getsockname()[:2]
    logger.info("serving", extra=fields(service="openai_gateway", http=f"{host}:{port}"))
    # uvicorn drains on SIGTERM and SIGINT, and then raises the signal again for whoever waited for it: nobody did.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    await uvicorn.Server(config).serve(sockets=[listener])
    logger.info("stopped", extra=fields(service="openai_gateway"))


def _listen(config: uvicorn.Config, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=config.backlog)


if __name__ == "__main__":
    sys.exit(main())
