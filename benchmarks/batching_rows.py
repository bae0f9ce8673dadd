"""Single `Score` calls of many callers against raw ONNX Runtime: what batching reaches with an encoder."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import onnxruntime

from benchmarks import machine, prompts, servers
from benchmarks.table import Row, Sides, bounded, compared
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from scorer_service import artifact, preprocess
from scorer_service.preprocess import Encoded, Passage, Preprocessor

_CALLERS = 64
_BATCH_SIZES = (1, 4, 8, 16, 32, 64)
_CALL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float


FULL = Size(rounds=3, seconds=8.0)
QUICK = Size(rounds=1, seconds=3.0)


@dataclass(frozen=True, slots=True)
class Served:
    """Answers per second, and the seconds that each took, ascending."""

    per_second: float
    seconds: Sequence[float]


def against_onnx(directory: Path | None, size: Size) -> list[Row]:
    """One core and one thread each; raw ONNX Runtime gets its inputs tokenised and sorted, and its best batch size."""
    what, against = f"scorer Score, {_CALLERS} callers", "raw ONNX Runtime"
    if directory is None:
        note = "no artefact on MiniLM is given: pointsman train --router kernel --out DIR, then --artifact DIR"
        return [Row(what=f"{what}, MiniLM artefact", against=against, target="≥ 0.8 ×", note=note)]
    kind = artifact.load(directory).manifest.router_kind
    texts = prompts.make(128)
    raw = _Raw(directory, texts)
    best = max(_BATCH_SIZES, key=lambda batch: raw.per_second(batch, rounds=1))
    scorer_settings = {"SCORER_ARTIFACTS": f"measured={directory.resolve()}", "SCORER_THREADS": "1"}
    with servers.scorer(measured=True, **scorer_settings) as scorer:
        asyncio.run(_ask(scorer.grpc, texts, 1.0))
        served, raws = [], []
        for _ in range(size.rounds):
            served.append(asyncio.run(_ask(scorer.grpc, texts, size.seconds)))
            raws.append(raw.per_second(best, rounds=2))
    batch_seconds = _CALLERS / statistics.median(raws)
    tails = [each.seconds[int(len(each.seconds) * 0.99)] / batch_seconds for each in served]
    return [
        compared(
            f"{what}, {kind} artefact",
            f"{against}, batches of {best}",
            Sides([each.per_second for each in served], raws),
            unit="prompts/s",
            at_least=0.8,
        ),
        bounded(
            f"{what}, {kind} artefact: p99",
            f"the time that {_CALLERS} take raw",
            tails,
            unit="× batch time",
            at_most=3,
            digits=2,
            theirs=f"{batch_seconds * 1e3:.0f} ms",
        ),
    ]


class _Raw:
    """The artefact's graph on one core, with one thread."""

    def __init__(self, directory: Path, texts: Sequence[str]) -> None:
        loaded = artifact.load(directory)
        self._spec = loaded.manifest.preprocess
        preprocessor = Preprocessor(preprocess.load_tokenizer(loaded.tokenizer_path), self._spec)
        inputs: list[Encoded] = preprocessor.encode_passages([Passage(text, cut=False) for text in texts])
        # By length, which spares padding: whoever has all prompts at hand does so.
        self._inputs = sorted(inputs, key=lambda encoded: len(encoded.input_ids))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(loaded.model_path), options, providers=["CPUExecutionProvider"]
        )

    def per_second(self, batch: int, *, rounds: int) -> float:
        """Prompts per second over all prompts, the median of `rounds`."""
        taken = []
        with machine.pinned(machine.MEASURED):
            for _ in range(rounds):
                began = time.perf_counter()
                for start in range(0, len(self._inputs), batch):
                    ids, mask = preprocess.pad(self._inputs[start : start + batch], self._spec.pad_id)
                    self._session.run(["win_probability"], {"input_ids": ids, "attention_mask": mask})
                taken.append(time.perf_counter() - began)
        return len(self._inputs) / statistics.median(taken)


async def _ask(address: str, texts: Sequence[str], seconds: float) -> Served:
    """Closed loop. The callers are ours and not h2load's: prompts differ, and a hundred calls a second cost little."""
    requests = [_question(text) for text in texts]
    taken: list[float] = []
    with machine.pinned(machine.REST):
        async with grpc.aio.insecure_channel(address) as channel:
            stub = scorer_pb2_grpc.ScorerServiceStub(channel)
            await stub.Score(requests[0], timeout=_CALL_SECONDS, wait_for_ready=True)
            began = time.perf_counter()

            async def caller(place: int) -> None:
                while (now := time.perf_counter()) < began + seconds:
                    await stub.Score(requests[place % len(requests)], timeout=_CALL_SECONDS)
                    taken.append(time.perf_counter() - now)
                    place += _CALLERS

            await asyncio.gather(*map(caller, range(_CALLERS)))
            return Served(len(taken) / (time.perf_counter() - began), sorted(taken))


def _question(text: str) -> scorer_pb2.ScoreRequest:
    turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=text)
    return scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[turn]))
