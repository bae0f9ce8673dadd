"""The scorer against the floor of its transport, and against its own parts called directly."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from benchmarks import h2load, machine, prompts, servers
from benchmarks.h2load import Load, Target
from benchmarks.table import Row, alternate, bounded, compared
from pointsman.scorer.v1 import scorer_pb2
from scorer_service.settings import SHIPPED_ARTIFACT
from tests.processes import ServiceProcess

_SERVICE = "pointsman.scorer.v1.ScorerService"
_REQUESTS = "pointsman_scorer_requests_total"
_BATCH = 64
_BATCH_SIZES = (1, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    calls: int
    batch_calls: int
    starts: int


QUICK = Size(rounds=3, calls=6_000, batch_calls=150, starts=3)
FULL = Size(rounds=5, calls=10_000, batch_calls=300, starts=7)


def against_echo(size: Size) -> list[Row]:
    """Single calls against a server that does nothing, at 32 in flight."""
    message = _question(prompts.TYPICAL)
    with servers.scorer(measured=True) as scorer, servers.echo() as echo:
        theirs = Target.grpc(echo, f"{_SERVICE}/Score", message)
        sides = alternate(
            lambda: _run(scorer, "Score", message, size.calls, 32).per_second,
            lambda: h2load.run(theirs, calls=size.calls, clients=32).per_second,
            rounds=size.rounds,
        )
    return [compared("scorer Score, 32 in flight", "bare grpc.aio echo", sides, unit="calls/s", at_least=0.6)]


def against_direct(size: Size) -> list[Row]:
    """Batches of 64 against tokenizer and ONNX Runtime in a loop, on one core each."""
    texts = prompts.make(_BATCH)
    message = scorer_pb2.BatchScoreRequest(requests=[_question(text) for text in texts])
    with machine.pinned(machine.MEASURED):
        direct = _Direct()
    best = max(_BATCH_SIZES, key=lambda batch: direct.prompts_per_second(texts, batch, repeats=5))
    with servers.scorer(measured=True) as scorer:
        _run(scorer, "BatchScore", message, 20, 2)
        sides = alternate(
            lambda: _BATCH * _run(scorer, "BatchScore", message, size.batch_calls, 2).per_second,
            lambda: direct.prompts_per_second(texts, best, repeats=size.batch_calls),
            rounds=size.rounds,
        )
    against = f"tokenizer + ONNX Runtime, batches of {best}"
    return [compared("scorer BatchScore of 64, 2 in flight", against, sides, unit="prompts/s", at_least=0.85)]


def start(size: Size) -> list[Row]:
    """From the start of the process to the health check's SERVING."""
    seconds = []
    for _ in range(size.starts):
        began = time.monotonic()
        with servers.scorer(measured=False):
            seconds.append(time.monotonic() - began)
    return [bounded("scorer: start to SERVING", "", seconds, unit="s", at_most=1.5, digits=2)]


class _Direct:
    """What somebody writes who has the artefact and no service: on one core, with one thread."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer.from_file(str(SHIPPED_ARTIFACT / "tokenizer.json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(SHIPPED_ARTIFACT / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def prompts_per_second(self, texts: Sequence[str], batch: int, *, repeats: int) -> float:
        """The median over `repeats` of scoring all texts."""
        seconds = []
        with machine.pinned(machine.MEASURED):
            for _ in range(repeats):
                began = time.perf_counter()
                self._score(texts, batch)
                seconds.append(time.perf_counter() - began)
        return len(texts) / statistics.median(seconds)

    def _score(self, texts: Sequence[str], batch: int) -> list[float]:
        encoded = self._tokenizer.encode_batch(list(texts))
        scores: list[float] = []
        for start in range(0, len(encoded), batch):
            ids = [row.ids for row in encoded[start : start + batch]]
            longest = max(map(len, ids))
            input_ids = np.zeros((len(ids), longest), np.int64)
            mask = np.zeros((len(ids), longest), np.int64)
            for row, values in enumerate(ids):
                input_ids[row, : len(values)] = values
                mask[row, : len(values)] = 1
            [probabilities] = self._session.run(["win_probability"], {"input_ids": input_ids, "attention_mask": mask})
            scores += probabilities.tolist()
        return scores


def _question(text: str) -> scorer_pb2.ScoreRequest:
    turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=text)
    return scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[turn]))


def _run(
    scorer: ServiceProcess,
    method: str,
    message: "scorer_pb2.ScoreRequest | scorer_pb2.BatchScoreRequest",
    calls: int,
    clients: int,
) -> Load:
    """Calls, each of which must have been answered with OK."""

    def answered() -> float:
        return servers.counter(scorer.metrics, _REQUESTS, method=method, status="OK")

    before = answered()
    load = h2load.run(Target.grpc(scorer.grpc, f"{_SERVICE}/{method}", message), calls=calls, clients=clients)
    if answered() - before != calls:
        raise h2load.LoadFailed(f"{method}: not all of {calls} calls ended with OK")
    return load
