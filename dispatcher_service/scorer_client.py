"""One scorer service as a dependency: predictions over gRPC, each within its own short deadline.

Behind a name with several addresses calls go to each in turn, and one that meets a broken connection is tried on the
next. Which scorer serves which tenant, and when one is left alone, is `scorers.py`'s.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import grpc
import grpc.aio

from dispatcher_service.chat import Chat, Role
from dispatcher_service.outcome import Prediction, Ranking, Verdict
from dispatcher_service.routing import ModelPair
from dispatcher_service.scorers import NoPrediction
from pointsman.runtime.channels import ROUND_ROBIN, ClientTls, Signature, open_channel, signature
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc

_ROLES = {
    Role.SYSTEM: scorer_pb2.ROLE_SYSTEM,
    Role.DEVELOPER: scorer_pb2.ROLE_SYSTEM,
    Role.USER: scorer_pb2.ROLE_USER,
    Role.ASSISTANT: scorer_pb2.ROLE_ASSISTANT,
    Role.TOOL: scorer_pb2.ROLE_TOOL,
}
_SERVICE_CONFIG = {
    **ROUND_ROBIN,
    "methodConfig": [
        {
            "name": [{"service": "pointsman.scorer.v1.ScorerService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.05s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Retries stop while more than about every tenth call fails: an outage must not be doubled by us.
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}
_LISTINGS = 3
_MIN_QUANTILES = 2
_SECONDS_BETWEEN_LOOKS = 10.0
_CLOSING_SECONDS = 5.0


class GrpcScorer:
    """Implements `scorers.Predictor` over one channel, shared by all requests."""

    def __init__(
        self,
        address: str,
        *,
        tls: ClientTls | None = None,
        trace_headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """Connects on the first call.

        Args:
            address: a gRPC target such as `127.0.0.1:50051` or `dns:///scorer:50051`.
            tls: how to trust the scorer; `None` speaks in the clear. Its files are read again when they change.
            trace_headers: gives the metadata by which the scorer can join the trace of the call that is answered now.

        Raises:
            OSError: a file of `tls` cannot be read.
        """
        self._address = address
        self._tls = tls
        self._trace_headers = trace_headers
        self._quantiles: dict[str, Sequence[float]] = {}
        self._listing = asyncio.Lock()
        self._seen = _signature(tls)
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        self._closing: set[asyncio.Task[None]] = set()
        self._open()

    async def predict(
        self, chat: Chat, *, pair: ModelPair, every_model: bool, scorer: str, timeout: float
    ) -> Prediction:
        """See `scorers.Predictor.predict`."""
        self._look_at_certificates()
        request = scorer_pb2.ScoreRequest(
            conversation=_conversation(chat),
            scorer=scorer,
            strong_model=pair.strong,
            weak_model=pair.weak,
            include_model_win_probabilities=every_model,
        )
        deadline = time.monotonic() + timeout
        try:
            response = await self._stub.Score(request, timeout=timeout, metadata=tuple(self._trace_headers().items()))
            quantiles = self._quantiles.get(response.scorer_version, ())
            if len(quantiles) < _MIN_QUANTILES:
                quantiles = await self._listed(response.scorer_version, deadline=deadline)
        except grpc.aio.AioRpcError as error:
            raise NoPrediction(error.code().name, error.details() or "") from error
        return read_prediction(response, quantiles)

    async def score_answer(self, chat: Chat, answer: str, *, scorer: str, timeout: float) -> Verdict:
        """See `scorers.Predictor.score_answer`."""
        self._look_at_certificates()
        request = scorer_pb2.ScoreAnswerRequest(conversation=_conversation(chat), answer=answer, scorer=scorer)
        metadata = tuple(self._trace_headers().items())
        try:
            response = await self._stub.ScoreAnswer(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise NoPrediction(error.code().name, error.details() or "") from error
        return Verdict(
            acceptance=_probability("acceptance_probability", response.acceptance_probability),
            scorer=response.scorer,
            scorer_version=response.scorer_version,
        )

    async def rank_answers(self, chat: Chat, answers: Sequence[str], *, scorer: str, timeout: float) -> Ranking:
        """See `scorers.Predictor.rank_answers`."""
        self._look_at_certificates()
        request = scorer_pb2.RankAnswersRequest(conversation=_conversation(chat), answers=answers, scorer=scorer)
        metadata = tuple(self._trace_headers().items())
        try:
            response = await self._stub.RankAnswers(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise NoPrediction(error.code().name, error.details() or "") from error
        if len(response.answers) != len(answers):
            raise NoPrediction("SICK", f"{len(response.answers)} of {len(answers)} answers are ranked")
        rates = [_probability("mean_win_probability", answer.mean_win_probability) for answer in response.answers]
        return Ranking(win_rates=tuple(rates), scorer=response.scorer, scorer_version=response.scorer_version)

    async def close(self) -> None:
        """Close the channel."""
        await asyncio.gather(self._channel.close(), *self._closing)

    def _open(self) -> None:
        self._channel = open_channel(self._address, tls=self._tls, service_config=_SERVICE_CONFIG)
        self._stub = scorer_pb2_grpc.ScorerServiceStub(self._channel)

    def _look_at_certificates(self) -> None:
        """A channel keeps the certificates that it began with: when their files change, begin another."""
        if self._tls is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        found = _signature(self._tls)
        if found == self._seen or None in found:
            return
        self._seen = found
        closing = asyncio.get_running_loop().create_task(self._channel.close(_CLOSING_SECONDS))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._open()

    async def _listed(self, version: str, *, deadline: float) -> Sequence[float]:
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
            raise NoPrediction("SICK", f"no score quantiles are listed for scorer version {version!r}")
        return self._quantiles[version]


def read_prediction(response: scorer_pb2.ScoreResponse, quantiles: Sequence[float]) -> Prediction:
    """What a scorer answered.

    Raises:
        NoPrediction: with what is no probability.
    """
    # Of each model it is told how often it beats the strong one: half a tie each, so that the two sum to 1.
    beaten = {entry.model: 1.0 - entry.win_probability for entry in response.model_win_probabilities}
    for model, probability in beaten.items():
        if not 0.0 <= probability <= 1.0:  # NaN fails too
            raise NoPrediction("SICK", f"win_probability of {model} {probability} is outside [0, 1]")
    return Prediction(
        win_probability=_probability("win_probability", response.win_probability),
        scorer=response.scorer,
        scorer_version=response.scorer_version,
        pair_mismatch=response.pair_mismatch,
        quantiles=quantiles,
        beaten=beaten,
    )


def _probability(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:  # NaN fails too
        raise NoPrediction("SICK", f"{name} {value} is outside [0, 1]")
    return value


def _conversation(chat: Chat) -> scorer_pb2.Conversation:
    return scorer_pb2.Conversation(
        turns=[scorer_pb2.Turn(role=_ROLES[message.role], text=message.text) for message in chat.messages]
    )


def _signature(tls: ClientTls | None) -> list[Signature]:
    return [] if tls is None else [signature(file) for file in tls.files]
