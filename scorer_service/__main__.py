"""`python -m scorer_service`: serve artefacts over gRPC until SIGTERM."""

import asyncio
import os
import sys

import grpc.aio
from prometheus_client import CollectorRegistry

from pointsman.runtime import entry, tls
from pointsman.runtime.server import ServerSpec, serve
from pointsman.runtime.starting import StartError
from pointsman.scorer.v1 import scorer_pb2_grpc
from scorer_service.artifact import ArtifactError
from scorer_service.metrics import Metrics
from scorer_service.scorer import open_scorer
from scorer_service.servicer import SERVICE_NAME, Limits, ScorerServicer
from scorer_service.serving import Scorers, ServedScorer
from scorer_service.settings import PREFIX, Settings

ABOUT = "Pointsman's scorer: predicts the probability that the strong model's answer beats the weak model's."


async def _serve(settings: Settings) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    scorers = Scorers()
    servicer = ScorerServicer(
        scorers,
        limits=Limits(
            max_conversation_bytes=settings.max_conversation_bytes, max_batch_size=settings.max_request_batch
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


async def _load(settings: Settings, metrics: Metrics) -> list[ServedScorer]:
    loaded = []
    for name, directory in settings.artifact_directories().items():
        try:
            # In a thread, so that health answers NOT_SERVING meanwhile.
            scorer = await asyncio.to_thread(open_scorer, directory, threads=settings.threads)
        except ArtifactError as error:
            raise StartError(f"scorer {name!r}: {error} ({directory})") from error
        loaded.append(
            ServedScorer(
                name,
                scorer,
                metrics=metrics.loaded(name, scorer.artifact, scorer.golden_deviation),
                max_queue=settings.max_queue,
                # Room for one full call of them: they may hold a hundred times the text of others.
                max_long_queue=settings.max_request_batch,
                max_batch=settings.max_batch,
                batch_wait=settings.batch_wait,
            )
        )
    return loaded


def main(argv: list[str]) -> int:
    """Run the service; returns the exit code."""
    return entry.run(Settings, prefix=PREFIX, about=ABOUT, argv=argv, environ=os.environ, main=_serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
