"""The scorer as a dependency: predictions over gRPC, each within its own short deadline.

A scorer that is unreachable, slow or sick gives `None`, never an exception: what happens then is the tenant's policy.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from dispatcher_service.chat import Chat, Role
from dispatcher_service.outcome import Prediction
from dispatcher_service.routing import ModelPair
from pointsman.runtime.logs import fields
from pointsman.runtime.server import MAX_MESSAGE_BYTES
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc

logger = logging.getLogger(__name__)

_ROLES = {
    Role.SYSTEM: scorer_pb2.ROLE_SYSTEM,
    Role.DEVELOPER: scorer_pb2.ROLE_SYSTEM,
    Role.USER: scorer_pb2.ROLE_USER,
    Role.ASSISTANT: scorer_pb2.ROLE_ASSISTANT,
    Role.TOOL: scorer_pb2.ROLE_TOOL,
}
_SERVICE_CONFIG = {
    # dns:/// with several addresses: one connection each, calls in turn.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "pointsman.scorer.v1.ScorerService"}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.05s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_CHANNEL_OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A scorer that comes back is found again within a second, not within gRPC's default two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_SECONDS_BETWEEN_WARNINGS = 10.0

Observe = Callable[[str, float], None]
"""Called once per prediction with its result (`OK` or a gRPC status name) and the seconds it took."""


class GrpcScorer:
    """Implements `dispatch.Scorer` over one channel, shared by all requests."""

    def __init__(self, address: str, *, observe: Observe) -> None:
        """`address` is a gRPC target such as `127.0.0.1:50051` or `dns:///scorer:50051`."""
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = scorer_pb2_grpc.ScorerServiceAsyncStub(self._channel)
        self._observe = observe
        self._quantiles: dict[str, Sequence[float]] = {}
        self._listing = asyncio.Lock()
        self._next_warning = 0.0

    async def score(self, chat: Chat, *, pair: ModelPair, scorer: str, timeout: float) -> Prediction | None:
        """See `dispatch.Scorer.score`."""
        request = scorer_pb2.ScoreRequest(
            conversation=_conversation(chat), scorer=scorer, strong_model=pair.strong, weak_model=pair.weak
        )
        started = time.monotonic()
        result = "OK"
        try:
            response = await self._stub.Score(request, timeout=timeout)
            quantiles = await self._quantiles_of(response, timeout=started + timeout - time.monotonic())
        except grpc.aio.AioRpcError as error:
            result = error.code().name
            self._warn(error)
            return None
        finally:
            self._observe(result, time.monotonic() - started)
        return Prediction(
            win_probability=response.win_probability,
            scorer=response.scorer,
            scorer_version=response.scorer_version,
            pair_mismatch=response.pair_mismatch,
            quantiles=quantiles,
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _quantiles_of(self, response: scorer_pb2.ScoreResponse, *, timeout: float) -> Sequence[float]:
        """The quantiles of the version that answered; asked for once per version, by one request for all."""
        known = self._quantiles.get(response.scorer_version)
        if known is not None:
            return known
        async with self._listing:
            if response.scorer_version not in self._quantiles:
                listed = await self._stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=timeout)
                # Versions are content hashes, so that entries never go stale; a replica that is still on an older
                # artefact may answer next, so that they are kept.
                self._quantiles.update({s.version: tuple(s.score_quantiles) for s in listed.scorers})
        # Missing only if another replica, on another version, answered the listing: ask again next time.
        return self._quantiles.get(response.scorer_version) or tuple(self._quantiles.values())[-1]

    def _warn(self, error: grpc.aio.AioRpcError) -> None:
        # One line per interval: an outage at a thousand requests per second must not become a log flood.
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _SECONDS_BETWEEN_WARNINGS
            logger.warning("no prediction", extra=fields(status=error.code().name, details=error.details()))


def _conversation(chat: Chat) -> scorer_pb2.Conversation:
    return scorer_pb2.Conversation(
        turns=[scorer_pb2.Turn(role=_ROLES[message.role], text="\n".join(message.texts)) for message in chat.messages]
    )
