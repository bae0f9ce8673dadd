"""The client of the scorer."""

from collections.abc import Sequence
from typing import Self

from pointsman import _translation as translation
from pointsman._calls import call_errors
from pointsman.runtime.channels import ClientTls, open_channel
from pointsman.scorer.v1 import scorer_pb2, scorer_pb2_grpc
from pointsman.values import (
    AnswerRanking,
    AnswerScore,
    Messages,
    Score,
    ScorerInfo,
)


class ScorerClient:
    """Calls the scorer over one channel that all calls share. Make it in a running event loop."""

    def __init__(self, address: str, *, tls: ClientTls | None = None, timeout: float = 10.0) -> None:
        """Connects on the first call. `timeout` is in seconds, for every call; `tls` as for `DispatcherClient`."""
        self._channel = open_channel(address, tls=tls)
        self._stub = scorer_pb2_grpc.ScorerServiceStub(self._channel)
        self._timeout = timeout

    async def score(
        self, conversation: Messages, *, scorer: str = "", strong_model: str = "", weak_model: str = ""
    ) -> Score:
        """The win probability of one conversation; what is left empty is the service's default.

        Raises:
            PointsmanCallError: there is no prediction.
        """
        request = translation.score_request(conversation, scorer, strong_model, weak_model)
        with call_errors():
            return translation.score(await self._stub.Score(request, timeout=self._timeout))

    async def batch_score(
        self,
        conversations: Sequence[Messages],
        *,
        scorer: str = "",
        strong_model: str = "",
        weak_model: str = "",
    ) -> list[Score]:
        """The win probabilities of many conversations, in their order.

        Raises:
            PointsmanCallError: one conversation cannot be scored, or there are more than the scorer's limit.
        """
        request = scorer_pb2.BatchScoreRequest(
            requests=[translation.score_request(each, scorer, strong_model, weak_model) for each in conversations]
        )
        with call_errors():
            response = await self._stub.BatchScore(request, timeout=self._timeout)
        return [translation.score(each) for each in response.responses]

    async def score_answer(self, conversation: Messages, answer: str, *, scorer: str = "") -> AnswerScore:
        """How likely an answer to a conversation is acceptable.

        Raises:
            PointsmanCallError: there is no verdict.
        """
        request = scorer_pb2.ScoreAnswerRequest(
            conversation=translation.scored_conversation(conversation), answer=answer, scorer=scorer
        )
        with call_errors():
            return translation.answer_score(await self._stub.ScoreAnswer(request, timeout=self._timeout))

    async def rank_answers(self, conversation: Messages, answers: Sequence[str], *, scorer: str = "") -> AnswerRanking:
        """Which of some answers to a conversation is best.

        Raises:
            PointsmanCallError: there is no ranking.
        """
        request = scorer_pb2.RankAnswersRequest(
            conversation=translation.scored_conversation(conversation), answers=answers, scorer=scorer
        )
        with call_errors():
            return translation.answer_ranking(await self._stub.RankAnswers(request, timeout=self._timeout))

    async def list_scorers(self) -> list[ScorerInfo]:
        """Every scorer that is served, the default first.

        Raises:
            PointsmanCallError: the service did not answer.
        """
        with call_errors():
            response = await self._stub.ListScorers(scorer_pb2.ListScorersRequest(), timeout=self._timeout)
        return [translation.scorer_info(each) for each in response.scorers]

    async def close(self) -> None:
        """Close the channel; calls in flight are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
