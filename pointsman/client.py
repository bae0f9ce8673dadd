"""Typed clients for the dispatcher and the scorer, for asyncio and for threads.

    async with DispatcherClient("127.0.0.1:50052", tenant="research") as client:
        answer = await client.complete("Why is the sky blue?", max_tokens=200)
        print(answer.content, answer.decision.model, answer.decision.cost_nano_usd)

        async with client.stream_complete("Write a haiku about rain.") as stream:
            async for text in stream:
                print(text, end="", flush=True)
        print(stream.decision.cost_nano_usd)

`SyncDispatcherClient` is the same without `async` and `await`; `BudgetClient` looks at budgets and changes policies.
Every call has a deadline, which also holds all its tries: a call that is UNAVAILABLE is tried again after the time that
the service names. A call that fails raises `PointsmanCallError`.
"""

from pointsman._async import AnswerStream, DispatcherClient
from pointsman._budgets import Budget, BudgetClient, Override, Policy, PolicyChange, PolicyValue, WindowBudget
from pointsman._calls import PointsmanCallError
from pointsman._scoring import ScorerClient
from pointsman._sync import SyncAnswerStream, SyncDispatcherClient
from pointsman.enums import (
    AlphaSource,
    CostSource,
    FinishReason,
    LeftOut,
    Preference,
    Reason,
    Role,
    ScorerTask,
    StageResult,
    Strategy,
    Tier,
    UsageSource,
)
from pointsman.runtime.channels import ClientTls
from pointsman.runtime.status import Violation
from pointsman.values import (
    Answer,
    AnswerRanking,
    AnswerScore,
    Candidate,
    Conversation,
    Decision,
    Explanation,
    Message,
    Messages,
    Sampling,
    Score,
    ScorerInfo,
    Stage,
    Usage,
)

__all__ = [
    "AlphaSource",
    "Answer",
    "AnswerRanking",
    "AnswerScore",
    "AnswerStream",
    "Budget",
    "BudgetClient",
    "Candidate",
    "ClientTls",
    "Conversation",
    "CostSource",
    "Decision",
    "DispatcherClient",
    "Explanation",
    "FinishReason",
    "LeftOut",
    "Message",
    "Messages",
    "Override",
    "PointsmanCallError",
    "Policy",
    "PolicyChange",
    "PolicyValue",
    "Preference",
    "Reason",
    "Role",
    "Sampling",
    "Score",
    "ScorerClient",
    "ScorerInfo",
    "ScorerTask",
    "Stage",
    "StageResult",
    "Strategy",
    "SyncAnswerStream",
    "SyncDispatcherClient",
    "Tier",
    "Usage",
    "UsageSource",
    "Violation",
    "WindowBudget",
]
