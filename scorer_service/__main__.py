"""`python -m scorer_service`: serve artefacts over gRPC until SIGTERM."""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import grpc.aio
from prometheus_client import CollectorRegistry

from pointsman.runtime import entry, tls
from pointsman.runtime.server import ServerSpec, serve
from pointsman.runtime.starting import StartError
from pointsman.scorer.v1 import scorer_pb2_grpc
from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError, Task
from scorer_service.judge import Judge
from scorer_service.judging import ServedJudge
from scorer_service.lanes import LaneLimits
from scorer_service.metrics import Metrics
from scorer_service.registry import Scorers, Served
from scorer_service.scorer import ConversationScorer
from scorer_service.servicer import SERVICE_NAME, ScorerServicer
from scorer_service.serving import ServedScorer
from scorer_service.settings import PREFIX, Settings
from scorer_service.translation import Limits

ABOUT = (
    "Pointsman's scorer: predicts the probability that the strong model's answer beats the weak model's, and judges "
    "answers that are there."
)


async def _serve(settings: Settings) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    scorers = Scorers()
    servicer = ScorerServicer(
        scorers,
        limits=Limits(
            max_conversation_bytes=settings.max_conversation_bytes,
            max_batch_size=settings.max_request_batch,
            max_answer_bytes=settings.max_answer_bytes,
            max_answers=settings.max_answers,
        ),
        metrics=metrics,
    )

    def register(server: grpc.aio.Server) -> None:
        scorer_pb2_grpc.add_ScorerServiceServicer_to_server(servicer, server)

    async def prepare() -> None:
        scorers.open(await _load(settings, metrics))

    await serve(
        ServerSpec(
            service="scorer",
            grpc_services=(SERVICE_NAME,),
            listen=settings.listen,
            metrics_listen=settings.metrics_listen,
            registry=registry,
            drain_seconds=settings.drain,
            reflection=settings.mode == "development",
            tls=tls.from_settings(settings, prefix=PREFIX),
        ),
        register=register,
        prepare=prepare,
        close=scorers.close,
    )


async def _load(settings: Settings, metrics: Metrics) -> list[Served]:
    limits = LaneLimits(
        max_queue=settings.max_queue,
        # Room for one full call of them: they may hold a hundred times the text of others.
        max_long_queue=settings.max_request_batch,
        max_batch=settings.max_batch,
        batch_wait=settings.batch_wait,
    )
    loaded = []
    for name, directory in settings.artifact_directories().items():
        try:
            # In a thread, so that health answers NOT_SERVING meanwhile.
            loaded.append(await asyncio.to_thread(_open, name, directory, settings, metrics, limits))
        except ArtifactError as error:
            raise StartError(f"scorer {name!r}: {error} ({directory})") from error
    return loaded


def _open(name: str, directory: Path, settings: Settings, metrics: Metrics, limits: LaneLimits) -> Served:
    """Load an artefact and put it behind its queues."""
    artifact = artifacts.load(directory)
    if artifact.manifest.task is Task.PREDICT:
        scorer = ConversationScorer(artifact, threads=settings.threads)
        ready = metrics.loaded(name, artifact, scorer.golden_deviation)
        return ServedScorer(name, scorer, metrics=ready, limits=limits)
    judge = Judge(artifact, threads=settings.threads)
    comparisons = settings.max_answers * (settings.max_answers - 1) // 2
    roomy = replace(
        limits,
        max_queue=max(limits.max_queue, comparisons),
        max_long_queue=max(limits.max_long_queue, comparisons),
    )
    return ServedJudge(name, judge, metrics=metrics.judge_loaded(name, artifact, judge.golden_deviation), limits=roomy)


def main(argv: list[str]) -> int:
    """Run the service; returns the exit code."""
    return entry.run(Settings, prefix=PREFIX, about=ABOUT, argv=argv, environ=os.environ, main=_serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
