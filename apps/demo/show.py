"""What `pointsman demo` and `pointsman run` do, once their arguments are read."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack

from rich.console import Console

from apps.demo.catalogue import KEY_VARIABLE, SHARES
from apps.demo.children import ChildFailed
from apps.demo.prompts import PROMPTS
from apps.demo.report import Routed, shares, summary, table
from apps.demo.stack import Ports, Stack, running, usual_ports
from pointsman.client import DispatcherClient, PointsmanCallError, ScorerClient

_MAX_TOKENS = 48
_STREAMED_EVERY = 3
_CALL_TIMEOUT = 120.0
_WIDTH_OF_FILES = 110

_SNIPPET = """\
import asyncio
from pointsman.client import DispatcherClient

async def main():
    async with DispatcherClient("{address}", tenant="{tenant}") as client:
        answer = await client.complete("Why is the sky blue?", max_tokens=64)
        print(answer.content)
        print(answer.decision)

asyncio.run(main())
"""


def terminal() -> Console:
    """Standard output. A pipe or a file has no width, and 80 would leave the table little of the prompts."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)


async def demo(console: Console, environ: Mapping[str, str]) -> int:
    """Route the prompts and show the decisions; returns the exit code."""
    _say(console, "starting scorer, dispatcher and upstream …")
    try:
        async with running(environ, Ports()) as stack:
            try:
                await _introduce(console, stack)
                rows = await _route_all(console, stack)
            except PointsmanCallError as error:
                _say(console, _explain(stack, error))
                return 1
    except ChildFailed as error:
        _say(console, str(error))
        return 1
    console.print(table(rows, width=console.width))
    for line in shares(rows, SHARES):
        _say(console, line)
    _say(
        console,
        "(alpha moves after every call so that the share comes out: here over 20 calls, in a service over 1,000)",
    )
    _say(console, summary(rows, caveat=stack.models.caveat))
    return 0


async def run(console: Console, environ: Mapping[str, str]) -> int:
    """Keep the services up until cancelled; returns the exit code if one of them ends by itself."""
    _say(console, "starting scorer, dispatcher and upstream …")
    try:
        async with running(environ, usual_ports()) as stack:
            try:
                await _introduce(console, stack)
            except PointsmanCallError as error:
                _say(console, _explain(stack, error))
                return 1
            _say(console, _addresses(stack))
            endings = [asyncio.ensure_future(each.ended()) for each in stack.children]
            try:
                await asyncio.gather(*endings)
            finally:
                for ending in endings:
                    ending.cancel()
    except ChildFailed as error:
        _say(console, str(error))
    return 1


async def _introduce(console: Console, stack: Stack) -> None:
    async with ScorerClient(stack.scorer.serving["grpc"]) as client:
        scorer, *_ = await client.list_scorers()
    _say(console, stack.models.notice)
    _say(
        console,
        f"scorer {scorer.name} {scorer.version[:12]} ({scorer.router_kind}), fitted on {scorer.strong_model} over "
        f"{scorer.weak_model}",
    )
    for tenant, share in SHARES.items():
        _say(console, f"tenant {tenant} wants {share:.0%} of its calls strong")
    console.print()


async def _route_all(console: Console, stack: Stack) -> list[Routed]:
    """Every prompt in turn, for the tenants by turns; every third is streamed and shown as it is written."""
    rows = []
    async with AsyncExitStack() as exits:
        clients = [(tenant, await exits.enter_async_context(_client(stack, tenant=tenant))) for tenant in SHARES]
        for index, prompt in enumerate(PROMPTS):
            tenant, client = clients[index % len(clients)]
            line = _Line(console, f"{index + 1:>2}/{len(PROMPTS)}  {tenant:<8}  ")
            if index % _STREAMED_EVERY == 0:
                async with client.stream_complete(prompt, max_tokens=_MAX_TOKENS) as stream:
                    line.add(f"{stream.decision.model:<14}  ")
                    async for text in stream:
                        line.add(text)
                decision = stream.decision
            else:
                answer = await client.complete(prompt, max_tokens=_MAX_TOKENS)
                line.add(f"{answer.decision.model:<14}  ")
                line.add(answer.content)
                decision = answer.decision
            line.end()
            rows.append(Routed(tenant, prompt, decision))
    return rows


def _client(stack: Stack, *, tenant: str) -> DispatcherClient:
    return DispatcherClient(stack.dispatcher.serving["grpc"], tenant=tenant, timeout=_CALL_TIMEOUT)


class _Line:
    """One line of the terminal that grows while an answer comes in, and stops at the edge."""

    def __init__(self, console: Console, start: str) -> None:
        self._console = console
        self._left = console.width
        self.add(start)

    def add(self, text: str) -> None:
        """Append; what is not printable becomes a blank, so that a model cannot move the cursor."""
        shown = "".join(each if each.isprintable() else " " for each in text)[: self._left]
        self._left -= len(shown)
        self._console.print(shown, end="", markup=False, soft_wrap=True)

    def end(self) -> None:
        self._console.print()


def _addresses(stack: Stack) -> str:
    scorer, dispatcher = stack.scorer.serving, stack.dispatcher.serving
    return (
        f"dispatcher  grpc {dispatcher['grpc']}  metrics http://{dispatcher['metrics']}/metrics\n"
        f"scorer      grpc {scorer['grpc']}  metrics http://{scorer['metrics']}/metrics\n"
        f"upstream    {stack.models.base_url}\n\n"
        f"Try it from another terminal, with .venv/bin/python:\n\n"
        f"{_SNIPPET.format(address=dispatcher['grpc'], tenant=next(iter(SHARES)))}\n"
        "Ctrl-C stops everything."
    )


def _explain(stack: Stack, error: PointsmanCallError) -> str:
    mend = (
        f"Check {KEY_VARIABLE} and the network, or unset {KEY_VARIABLE} to use the local model."
        if stack.models.api_key_env
        else "Run it again; if it fails again, the lines above say which process is in trouble."
    )
    words = "\n".join(f"{each.module} wrote last:\n{each.last_words()}" for each in stack.children)
    return f"\na call failed: {error}\n{words}\n{mend}"


def _say(console: Console, text: str) -> None:
    """Print as it stands: no markup, and no line breaks but its own, so that it can be pasted and parsed."""
    console.print(text, markup=False, soft_wrap=True)
