"""The scorer as a dependency: predictions over gRPC, each within its own short deadline.

A scorer that is unreachable, slow or sick gives `None`, never an exception: what happens then is the tenant's policy.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import grpc
import grpc.aio

from dispatcher_service.chat import Chat, Role
from dispatcher_service.outcome import Prediction
from dispatcher_service.routing import ModelPair
from pointsman.runtime.channels import MAX_MESSAGE_BYTES
from pointsman.runtime.logs import fields
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
_LISTINGS = 3
_MIN_QUANTILES = 2

Observe = Callable[[str, float], None]
"""Called once per prediction with the seconds it took and its result: `OK`, a gRPC status, or `SICK` (unusable)."""


class GrpcScorer:
    """Implements `ports.Scorer` over one channel, shared by all requests."""

    def __init__(
        self, address: str, *, observe: Observe, trace_headers: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """`address` is a gRPC target such as `127.0.0.1:50051` or `dns:///scorer:50051`.

        `trace_headers` gives the metadata by which the scorer can join the trace of the call that is answered now.
        """
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = scorer_pb2_grpc.ScorerServiceStub(self._channel)
        self._observe = observe
        self._trace_headers = trace_headers
        self._quantiles: dict[str, Sequence[float]] = {}
        self._listing = asyncio.Lock()
        self._next_warning = 0.0

    async def score(self, chat: Chat, *, pair: ModelPair, scorer: str, timeout: float) -> Prediction | None:
        """See `ports.Scorer.score`."""
        request = scorer_pb2.ScoreRequest(
            conversation=_conversation(chat), scorer=scorer, strong_model=pair.strong, weak_model=pair.weak
        )
        started = time.monotonic()
        result = "OK"
        try:
            response = await self._stub.Score(request, timeout=timeout, metadata=tuple(self._trace_headers().items()))
            quantiles = await self._quantiles_of(response.scorer_version, deadline=started + timeout)
            _check(response)
        except grpc.aio.AioRpcError as error:
            result = error.code().name
            self._warn(result, error.details() or "")
            return None
        except _SickScorer as error:
            result = "SICK"
            self._warn(result, str(error))
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

    async def _quantiles_of(self, version: str, *, deadline: float) -> Sequence[float]:
        """The quantiles of an artefact; asked for once per version, by one request for all."""
        async with self._listing:
            for _ in range(_LISTINGS):
                if version in self._quantiles:
                    break
                # During a rollout another replica, on another version, may answer the listing.
                timeout = max(deadline - time.monotonic(), 0.0)
                listed = await self._stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=timeout)
                # Versions are content hashes: entries never go stale.
                self._quantiles.update({s.version: tuple(s.score_quantiles) for s in listed.scorers})
        if len(self._quantiles.get(version, ())) < _MIN_QUANTILES:
            raise _SickScorer(f"no score quantiles are listed for scorer version {version!r}")
        return self._quantiles[version]

    def _warn(self, status: str, details: str) -> None:
        # One line per interval: an outage at a thousand requests per second must not become a log flood.
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + _SECONDS_BETWEEN_WARNINGS
            logger.warning("no prediction", extra=fields(status=status, details=details))


class _SickScorer(Exception):
    """It answered, but what it answered cannot be used."""


def _check(response: scorer_pb2.ScoreResponse) -> None:
    if not 0.0 <= response.win_probability <= 1.0:  # NaN fails too
        raise _SickScorer(f"win_probability {response.win_probability} is outside [0, 1]")


def _conversation(chat: Chat) -> scorer_pb2.Conversation:
    return scorer_pb2.Conversation(
        turns=[scorer_pb2.Turn(role=_ROLES[message.role], text=message.text) for message in chat.messages]
    )
