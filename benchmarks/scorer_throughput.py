"""Requests per second of scorer artefacts through gRPC, beside bare ONNX Runtime on the same encoder, in one run.

    python -m benchmarks.scorer_throughput --artifact static=DIR --artifact mf=DIR … [--data FOLDER]

One scorer process serves all artefacts; this process asks it, on the same cores. Rounds of all contestants follow each
other, and each one's best round counts, so that a busy machine hits all alike. A router on MiniLM is compared with bare
ONNX Runtime running MiniLM, one prompt at a time on as many threads; a router on static features with the artefact of
kind `static`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from scorer_service import artifact
from scorer_service.artifact import Manifest
from scorer_service.preprocess import Passage, Preprocessor
from training import data as training_data
from training import encoder, minilm
from training.onnx_graph import GraphBuilder

BARE = "bare ONNX Runtime, MiniLM"
_CALL_SECONDS = 30.0
_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one contestant: answers per second, and the seconds that each answer took."""

    rate: float
    seconds: tuple[float, ...]


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorer_throughput", description=__doc__)
    parser.add_argument(
        "--artifact", action="append", required=True, metavar="NAME=DIR", help="may be given repeatedly"
    )
    parser.add_argument("--data", type=Path, help="folder with eval/gsm8k_dev.parquet (default: prompts of our own)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one round of one contestant (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--callers", type=int, default=32, help="calls under way at a time (default: 32)")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime, served and bare (default: 2)")
    arguments = parser.parse_args()
    directories = {name: Path(folder) for name, _, folder in (each.partition("=") for each in arguments.artifact)}
    manifests = {name: artifact.load(folder).manifest for name, folder in directories.items()}
    prompts = _prompts(arguments.data)
    rounds: dict[str, list[Measured]] = {BARE: [], **{name: [] for name in directories}}
    bare = Bare(prompts, arguments.threads)
    with serving(directories, arguments.threads) as address:
        for _ in range(arguments.rounds):
            rounds[BARE].append(bare.measure(arguments.seconds))
            for name in directories:
                asked = _ask(address, name, prompts, seconds=arguments.seconds, callers=arguments.callers)
                rounds[name].append(asyncio.run(asked))
    Console(highlight=False, width=110).print(_table(rounds, manifests))
    print(f"{len(prompts)} prompts, {arguments.callers} callers, {arguments.threads} threads on {os.cpu_count()} cores")
    return 0


class Bare:
    """MiniLM's sentence embedding in ONNX Runtime, tokenised as serving does it, without service and batches."""

    def __init__(self, prompts: Sequence[str], threads: int) -> None:
        model = minilm.load()
        self._prompts = [Passage(prompt, cut=False) for prompt in prompts]
        self._preprocessor = Preprocessor(Tokenizer.from_str(model.tokenizer_json), encoder.PREPROCESS)
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        [final] = minilm.add_encoder(graph, model, ids, mask, [minilm.LAYERS])
        built = graph.build({"embedding": (minilm.add_mean_pool(graph, final, mask), ["batch", minilm.WIDTH])}, "bare")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            built.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def measure(self, seconds: float) -> Measured:
        """One prompt after the other."""
        taken: list[float] = []
        started = time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            [encoded] = self._preprocessor.encode_passages([self._prompts[len(taken) % len(self._prompts)]])
            ids = np.array([encoded.input_ids], np.int64)
            self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
            taken.append(time.perf_counter() - now)
        return Measured(len(taken) / (time.perf_counter() - started), tuple(taken))


async def _ask(address: str, scorer: str, prompts: Sequence[str], *, seconds: float, callers: int) -> Measured:
    """Score for some seconds; an error ends the benchmark."""
    requests = [_request(scorer, prompt) for prompt in prompts]
    taken: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = scorer_pb2_grpc.ScorerServiceStub(channel)
        await stub.Score(requests[0], timeout=_CALL_SECONDS, wait_for_ready=True)
        started = time.perf_counter()

        async def caller(place: int) -> None:
            while (now := time.perf_counter()) < started + seconds:
                await stub.Score(requests[place % len(requests)], timeout=_CALL_SECONDS)
                taken.append(time.perf_counter() - now)
                place += callers

        await asyncio.gather(*(caller(place) for place in range(callers)))
        return Measured(len(taken) / (time.perf_counter() - started), tuple(taken))


def _request(scorer: str, prompt: str) -> scorer_pb2.ScoreRequest:
    turn = scorer_pb2.Turn(role=scorer_pb2.ROLE_USER, text=prompt)
    return scorer_pb2.ScoreRequest(conversation=scorer_pb2.Conversation(turns=[turn]), scorer=scorer)


@contextlib.contextmanager
def serving(directories: dict[str, Path], threads: int) -> Iterator[str]:
    """A scorer process with these artefacts; yields its address."""
    settings = {
        "SCORER_LISTEN": "127.0.0.1:0",
        "SCORER_METRICS_LISTEN": "127.0.0.1:0",
        "SCORER_ARTIFACTS": ",".join(f"{name}={folder.resolve()}" for name, folder in directories.items()),
        "SCORER_THREADS": str(threads),
        "SCORER_LOG_STYLE": "json",
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SCORER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "scorer_service"], env=ours | settings, stderr=subprocess.PIPE, text=True
    )
    try:
        yield _address(process)
    finally:
        process.terminate()
        process.wait(timeout=_CALL_SECONDS)


def _address(process: "subprocess.Popen[str]") -> str:
    """Read its log until it serves."""
    assert process.stderr is not None
    deadline = time.monotonic() + _START_SECONDS
    lines = []
    for line in process.stderr:
        lines.append(line)
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if entry.get("event") == "serving":
                return str(entry["grpc"])
        if time.monotonic() > deadline:
            break
    raise SystemExit("the scorer did not start:\n" + "".join(lines))


def _table(rounds: dict[str, list[Measured]], manifests: dict[str, Manifest]) -> Table:
    best = {name: max(found, key=lambda measured: measured.rate) for name, found in rounds.items()}
    static = next((name for name, manifest in manifests.items() if manifest.router_kind == "static"), None)
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("", "kind", "requests/s", "p50 ms", "p99 ms", "compared with", "share"):
        table.add_column(column, justify="left" if column in ("", "kind", "compared with") else "right", no_wrap=True)
    for name, measured in best.items():
        manifest = manifests.get(name)
        reference = _reference(manifest, static)
        p50, p99 = (1e3 * float(np.quantile(measured.seconds, level)) for level in (0.5, 0.99))
        table.add_row(
            name,
            manifest.router_kind if manifest else "",
            f"{measured.rate:.0f}",
            f"{p50:.1f}",
            f"{p99:.1f}",
            reference or "",
            f"{measured.rate / best[reference].rate:.0%}" if reference else "",
        )
    return table


def _reference(manifest: Manifest | None, static: str | None) -> str | None:
    """What a router's rate is compared with; nothing for the references themselves and for decoders."""
    if manifest is None or manifest.router_kind in ("static", "causal_lm"):
        return None
    if manifest.training.get("config", {}).get("encoder") == "static":
        return static
    return BARE


def _prompts(data: Path | None) -> list[str]:
    if data is not None:
        return training_data.read_prompts(data / "eval/gsm8k_dev.parquet")
    names, goods = ("Nadia", "Omar", "Lise", "Tomek", "Ana", "Kofi"), ("rolls", "tickets", "apples", "stamps", "bricks")
    return [
        f"{name} buys {count} boxes of {good} with {count + 7} {good} in each box. She gives a third of them to "
        f"{names[(place + 1) % len(names)]}, sells half of what is left for ${count % 5 + 1} each, and keeps the rest. "
        f"The boxes cost ${3 * count} in all. How much money has {name} made, and how many {good} does {name} keep?"
        for place, name in enumerate(names)
        for good in goods
        for count in range(6, 30, 3)
    ]


if __name__ == "__main__":
    sys.exit(main())
