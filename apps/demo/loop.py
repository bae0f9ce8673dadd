"""The loop closed on one machine: `python -m apps.demo.loop`.

Traffic goes through the dispatcher, people say what they think of the answers, the log is exported and trained on, and
the new scorer takes over tenants step by step, as its canary plan says, while the dispatcher runs. Each command is
printed as one would type it. People are imagined (`people`); all else is real.
"""

import argparse
import asyncio
import random
import shlex
import socket
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from apps.demo.catalogue import Models, local_models, toml
from apps.demo.children import Child, ChildFailed, child
from apps.demo.cli import INTERRUPTED, until_signal
from apps.demo.people import Question, questions
from apps.demo.show import terminal
from apps.demo.stack import environment, loopback
from pointsman.client import DispatcherClient, PointsmanCallError

TENANT = "research"
"""Who asks and says what they think."""

OTHERS = ("support", *(f"team-{number:02}" for number in range(1, 19)))

_AT_ONCE = 4
_RATED, _COMPARED = 0.6, 0.2
"""Shares of the answers that somebody rates, and that somebody compares with the other tier's answer."""

_RELOAD_SECONDS = 30.0
_CALL_TIMEOUT = 120.0


class LoopFailed(Exception):
    """A step did not do what it should. The message says which."""


@dataclass(frozen=True, slots=True)
class Line:
    """The running services.

    Attributes:
        console: where progress is said.
        directory: for everything that is written.
        models: behind both tiers.
        scorer, dispatcher: the processes.
    """

    console: Console
    directory: Path
    models: Models
    scorer: Child
    dispatcher: Child

    @property
    def config(self) -> Path:
        """The dispatcher's configuration file."""
        return self.directory / "dispatcher.toml"

    @property
    def ledger(self) -> str:
        """Where records and texts lie."""
        return f"sqlite:{self.directory / 'ledger.sqlite'}"

    def client(self, tenant: str) -> DispatcherClient:
        """A caller of this tenant."""
        return DispatcherClient(self.dispatcher.serving["grpc"], tenant=tenant, timeout=_CALL_TIMEOUT)

    def say(self, text: str) -> None:
        """A line as it stands."""
        self.console.print(text, markup=False, soft_wrap=True)


async def walk(console: Console, *, requests: int, upstream: str, directory: Path) -> None:
    """Go once around the loop.

    Args:
        console: where progress is said.
        requests: to answer before training.
        upstream: `host:port` of an OpenAI-compatible server; empty starts the local one.
        directory: for everything that is written; empty before.

    Raises:
        ChildFailed: a service did not start.
        LoopFailed: a command failed, or the new scorer did not take over.
    """
    async with _running(console, upstream, directory) as line:
        await _traffic(line, requests)
        exports, new = directory / "exports", directory / "new"
        exports.mkdir()
        export = ("--tenant", TENANT, "--ledger", line.ledger, "--out", str(exports / f"{TENANT}.jsonl"), "--with-text")
        await _command(line, "decisions", "export", *export)
        address = _free_address()
        await _command(line, "train", "--from-log", str(exports), "--out", str(new), "--canary-address", address)
        plan = tomllib.loads((new / "canary.toml").read_text(encoding="utf-8"))
        settings = environment("SCORER", LISTEN=address, METRICS_LISTEN=loopback(), ARTIFACTS=f"new={new}")
        async with child("scorer_service", settings):
            await _take_over(line, plan, address)


@asynccontextmanager
async def _running(console: Console, upstream: str, directory: Path) -> AsyncIterator[Line]:
    async with AsyncExitStack() as stack:
        if not upstream:
            local = child("apps.local_upstream", environment("LOCAL_UPSTREAM", LISTEN=loopback()))
            upstream = (await stack.enter_async_context(local)).serving["http"]
        models = local_models(upstream)
        scorer = await stack.enter_async_context(
            child("scorer_service", environment("SCORER", LISTEN=loopback(), METRICS_LISTEN=loopback()))
        )
        (directory / "dispatcher.toml").write_text(_config(models, scorer.serving["grpc"]), encoding="utf-8")
        settings = environment(
            "DISPATCHER",
            LISTEN=loopback(),
            METRICS_LISTEN=loopback(),
            CONFIG=str(directory / "dispatcher.toml"),
            LEDGER=f"sqlite:{directory / 'ledger.sqlite'}",
            # More patient than a service should be: the local model keeps every core busy.
            MAX_BACKLOG="30",
        )
        dispatcher = await stack.enter_async_context(child("dispatcher_service", settings))
        yield Line(console, directory, models, scorer, dispatcher)


def _config(models: Models, scorer: str, canary: str = "") -> str:
    """The configuration. Alpha moves fast, so that both models answer prompts of every kind now and then."""
    dial = "strong_call_share = 0.5\npacing_window_calls = 20\nlog_text = true\n"
    return toml(models, scorer=scorer, canary=canary, more_tenants=dict.fromkeys((TENANT, *OTHERS), dial))


async def _traffic(line: Line, requests: int) -> None:
    """Ask, and say of many answers what people think."""
    chance = random.Random(1)  # noqa: S311 - no secret depends on it
    moods = [chance.random() for _ in range(requests)]
    asked = zip(questions(requests), moods, strict=True)

    async def caller(client: DispatcherClient) -> None:
        for question, mood in asked:
            await _ask(client, question, mood)

    async with line.client(TENANT) as client:
        await asyncio.gather(*(caller(client) for _ in range(_AT_ONCE)))
    told = sum(mood < _COMPARED + _RATED for mood in moods)
    line.say(f"{requests} requests answered for tenant {TENANT}; people said what they think of {told} answers")


async def _ask(client: DispatcherClient, question: Question, mood: float) -> None:
    answer = await client.complete(question.prompt, max_tokens=1)
    if mood < _COMPARED:
        await client.record_feedback(answer.request_id, preference=question.preference(answer.decision.tier))
    elif mood < _COMPARED + _RATED:
        await client.record_feedback(answer.request_id, rating=question.rating(answer.decision.tier))


async def _take_over(line: Line, plan: dict[str, Any], address: str) -> None:
    """Follow the plan: more and more tenants are scored by the canary, and at last all."""
    main = line.scorer.serving["grpc"]
    [old] = {version for version, _ in await _deciders(line)}
    line.say(f"canary {plan['canary']} at {address}; it would be taken back if one of these gave a result:")
    for rule in plan["aborts"]:
        line.say(f"  {rule['why']}: {' '.join(rule['expr'].split())}")
    for step in plan["steps"]:
        await _reload(line, _config(line.models, main, step["config"]))
        new = [tenant for version, tenant in await _deciders(line) if version != old]
        line.say(f"weight {step['weight']:g}: {len(new)} of {len(OTHERS) + 1} tenants ({', '.join(new) or 'none'})")
    await _reload(line, _config(line.models, address))
    versions = [version for version, _ in await _deciders(line)]
    if old in versions or len(set(versions)) > 1:
        raise LoopFailed(f"after the last step tenants are scored by {sorted(set(versions))}: only the new one should")
    line.say(f"main scorer: all {len(versions)} tenants are scored by {versions[0]}, none by {old}")


async def _deciders(line: Line) -> list[tuple[str, str]]:
    """Which scorer version decides for each tenant, without calling a model."""
    found = []
    for tenant in (TENANT, *OTHERS):
        async with line.client(tenant) as client:
            decision = await client.route("What is the capital of Australia?")
            found.append((decision.scorer_version, tenant))
    return found


async def _reload(line: Line, config: str) -> None:
    """Write the configuration and wait until it is in force."""
    before = await asyncio.to_thread(_loads, line)
    line.config.write_text(config, encoding="utf-8")
    async with asyncio.timeout(_RELOAD_SECONDS):
        while True:
            if await asyncio.to_thread(_loads, line) > before:
                return
            await asyncio.sleep(0.1)


def _loads(line: Line) -> float:
    """How often the dispatcher has taken its file over, by its metrics.

    Raises:
        LoopFailed: it refuses the file that it read last.
    """
    with urllib.request.urlopen(f"http://{line.dispatcher.serving['metrics']}/metrics", timeout=10) as page:
        samples = dict(row.rsplit(" ", 1) for row in page.read().decode().splitlines() if not row.startswith("#"))
    if float(samples["pointsman_dispatcher_config_refused"]):
        raise LoopFailed(f"the dispatcher refuses {line.config}:\n{line.dispatcher.last_words()}")
    return float(samples['pointsman_dispatcher_config_loads_total{result="ok"}'])


async def _command(line: Line, *arguments: str) -> None:
    """Run `pointsman …` and show it with what it prints."""
    line.say(f"$ pointsman {shlex.join(arguments)}")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pointsman.cli", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    line.say(output.decode(errors="replace").rstrip())
    if process.returncode:
        raise LoopFailed(f"pointsman {arguments[0]} ended with {process.returncode}")


def _free_address() -> str:
    """An address that is free now; the plan has to name it before the scorer that will listen there starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return loopback(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m apps.demo.loop", description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="to answer before training (default: 400)")
    parser.add_argument("--upstream", default="", help="host:port to ask in place of the local model")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for what is written (default: none)")
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pointsman-loop-") as scratch:
        directory = (parsed.keep or Path(scratch)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        console = terminal()

        async def once_around() -> int:
            try:
                await walk(console, requests=parsed.requests, upstream=parsed.upstream, directory=directory)
            except (ChildFailed, LoopFailed, PointsmanCallError) as error:
                console.print(str(error), markup=False, soft_wrap=True)
                return 1
            return 0

        return until_signal(once_around, interrupted=INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
