"""Answers judged per second through gRPC: ScoreAnswer on one answer, RankAnswers on two and on four.

    python -m benchmarks.answer_throughput [--answer DIR] [--ranker DIR]

One scorer process serves both artefacts; this process asks it, on the same cores. Rounds of all contestants follow each
other, and each one's best round counts, so that a busy machine hits all alike. Without artefacts of one's own, both are
trained here on answers of our own, with as many landmarks as training takes at most: the size, not what was learned,
decides the time.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from benchmarks import scorer_throughput
from benchmarks.scorer_throughput import Measured
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from tests import graded_answers
from training import minilm, train

AT_LEAST = 50.0
"""Requests per second of ScoreAnswer that are aimed at."""

_CALL_SECONDS = 30.0
_PROMPT = (
    "A depot sends out 14 wagons every hour and takes in 96 before dawn. If it works for 6 hours and then lends half "
    "of what is left to a neighbour, how many wagons stand in the depot at night, and how many were lent?"
)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A method with one request; `ask` sends it once."""

    name: str
    ask: Callable[[Any], Coroutine[Any, Any, object]]
    target: float | None


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer_throughput", description=__doc__)
    parser.add_argument("--answer", type=Path, metavar="DIR", help="artefact of kind answer (default: trained here)")
    parser.add_argument("--ranker", type=Path, metavar="DIR", help="artefact of kind ranker (default: trained here)")
    parser.add_argument("--tokens", type=int, default=300, help="of each answer (default: 300)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round of one contestant (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--callers", type=int, default=8, help="calls under way at a time (default: 8)")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime (default: 2)")
    arguments = parser.parse_args()
    contestants = _contestants(_answers(arguments.tokens))
    rounds: dict[str, list[Measured]] = {contestant.name: [] for contestant in contestants}
    with tempfile.TemporaryDirectory(prefix="pointsman-answers-") as folder:
        directories = {"answer": arguments.answer, "ranker": arguments.ranker}
        served = {kind: directory or _train(kind, Path(folder)) for kind, directory in directories.items()}
        with scorer_throughput.serving(served, arguments.threads) as address:
            for _ in range(arguments.rounds):
                for contestant in contestants:
                    asked = _ask(address, contestant, seconds=arguments.seconds, callers=arguments.callers)
                    rounds[contestant.name].append(asyncio.run(asked))
    Console(highlight=False, width=110).print(_table(contestants, rounds))
    print(
        f"answers of {arguments.tokens} tokens, {arguments.callers} callers, {arguments.threads} threads on "
        f"{os.cpu_count()} cores"
    )
    return 0


def _train(kind: str, folder: Path) -> Path:
    rows = graded_answers.write(folder / "sums.jsonl", prompts=700)
    # Two folds: nobody reads the numbers of this artefact.
    return train.train(kind, folder, folder / kind, [f"rows={rows}", "folds=2"]).directory


def _answers(tokens: int) -> list[str]:
    """Four worked answers of as many tokens each."""
    tokenizer = Tokenizer.from_str(minilm.load().tokenizer_json)
    answers = []
    for place in range(4):
        step, text = 3 + place, ""
        while len(tokenizer.encode(text, add_special_tokens=False).ids) < tokens:
            text += f"In hour {step}, {step} * 14 = {step * 14} wagons leave and {96 - step} stay. "
            step += 1
        encoding = tokenizer.encode(text, add_special_tokens=False)
        answers.append(text[: encoding.offsets[tokens - 1][1]])
    return answers


def _contestants(answers: Sequence[str]) -> list[Contestant]:
    turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=_PROMPT)
    conversation = scorer_pb2.Conversation(turns=[turn])
    one = scorer_pb2.ScoreAnswerRequest(conversation=conversation, answer=answers[0])
    found = [Contestant("ScoreAnswer", lambda stub: stub.ScoreAnswer(one, timeout=_CALL_SECONDS), AT_LEAST)]
    for count in (2, 4):
        some = scorer_pb2.RankAnswersRequest(conversation=conversation, answers=answers[:count])

        def ask(stub: Any, request: scorer_pb2.RankAnswersRequest = some) -> Coroutine[Any, Any, object]:
            asked: Coroutine[Any, Any, object] = stub.RankAnswers(request, timeout=_CALL_SECONDS)
            return asked

        found.append(Contestant(f"RankAnswers of {count}", ask, None))
    return found


async def _ask(address: str, contestant: Contestant, *, seconds: float, callers: int) -> Measured:
    """Ask for some seconds; an error ends the benchmark."""
    taken: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = scorer_pb2_grpc.ScorerServiceStub(channel)
        await contestant.ask(stub)
        started = time.perf_counter()

        async def caller() -> None:
            while (now := time.perf_counter()) < started + seconds:
                await contestant.ask(stub)
                taken.append(time.perf_counter() - now)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return Measured(len(taken) / (time.perf_counter() - started), tuple(taken))


def _table(contestants: Sequence[Contestant], rounds: dict[str, list[Measured]]) -> Table:
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("", "requests/s", "p50 ms", "p99 ms", "target", "reached"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for contestant in contestants:
        best = max(rounds[contestant.name], key=lambda measured: measured.rate)
        p50, p99 = (1e3 * float(np.quantile(best.seconds, level)) for level in (0.5, 0.99))
        target = contestant.target
        verdict = "" if target is None else "yes" if best.rate >= target else "no"
        table.add_row(
            contestant.name,
            f"{best.rate:.0f}",
            f"{p50:.1f}",
            f"{p99:.1f}",
            "" if target is None else f"≥ {target:.0f}",
            verdict,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
