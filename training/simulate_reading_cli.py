"""The options of `pointsman simulate` for strategies that read answers."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Standard library only, as for `simulate_cli`.
from dispatcher_service import routing
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy
from training.errors import UsageError

if TYPE_CHECKING:
    from training.strategy_rows import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A strategy that reads answers, and what is known of those who do.

    Attributes:
        name: for tables and plots.
        policy: as a tenant's.
        acceptances: quantiles of the artefact that scores answers; empty where none does.
        preferences: of the artefact that ranks them, likewise.
        strong_call_share: of about how many calls the strong model is asked.
    """

    name: str
    policy: CascadePolicy | EnsemblePolicy
    acceptances: Sequence[float] = ()
    preferences: Sequence[float] = ()
    strong_call_share: float

    @property
    def stages(self) -> int:
        """How many thresholds it has."""
        return len(self.policy.thresholds) if isinstance(self.policy, CascadePolicy) else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("strategies that read answers, with --stream: in place of a share")
    group.add_argument(
        "--strategy",
        default="route",
        choices=["route", "cascade", "ensemble"],
        help="cascade asks the cheapest model first, ensemble all at once (default: route)",
    )
    group.add_argument("--answer-artifact", type=Path, help="of kind answer, for a cascade")
    group.add_argument(
        "--threshold",
        type=float,
        nargs="+",
        metavar="ACCEPTANCE",
        help="from this acceptance probability on a model's answer is given; one for each model but the dearest",
    )
    group.add_argument("--easy-alpha", type=float, default=0.0, help="below it, cheapest without a check (default: 0)")
    group.add_argument("--hard-alpha", type=float, help="from it on, strong at once (default: never)")
    group.add_argument("--ranker-artifact", type=Path, help="of kind ranker, for an ensemble")


def reading(arguments: argparse.Namespace) -> Reading | None:
    """The strategy that was asked for; nothing for plain routing.

    Raises:
        UsageError: options do not fit.
        ArtifactError: an artefact cannot be used.
    """
    strategy = arguments.strategy
    if strategy == "route":
        return None
    if strategy == "ensemble" and arguments.ranker_artifact is None:
        raise UsageError("--strategy ensemble needs --ranker-artifact")
    if strategy == "cascade" and (arguments.answer_artifact is None or arguments.threshold is None):
        raise UsageError("--strategy cascade needs --answer-artifact and --threshold: 'pointsman calibrate' sets one")
    if arguments.log is not None or arguments.share is not None:
        raise UsageError(f"--strategy {strategy} goes with --stream, and holds no --share: leave the other out")
    return _cascade(arguments) if strategy == "cascade" else _ensemble(arguments)


def _cascade(arguments: argparse.Namespace) -> Reading:
    hard_alpha = 1.0 if arguments.hard_alpha is None else arguments.hard_alpha
    thresholds = tuple(arguments.threshold)
    if not all(0 <= threshold <= 1 for threshold in thresholds) or not 0 <= arguments.easy_alpha <= hard_alpha <= 1:
        raise UsageError("--threshold, --easy-alpha and --hard-alpha are in [0, 1], and easy is not above hard")
    acceptances = _quantiles(arguments.answer_artifact, "answer", "--answer-artifact")
    policy = CascadePolicy(
        thresholds=thresholds,
        easy_alpha=arguments.easy_alpha,
        hard_alpha=routing.NEVER_STRONG if arguments.hard_alpha is None else arguments.hard_alpha,
    )
    share = sum(acceptance < thresholds[0] for acceptance in acceptances) / len(acceptances)
    name = " ".join(["cascade", *(f"{threshold:g}" for threshold in thresholds)])
    return Reading(name=name, policy=policy, acceptances=acceptances, strong_call_share=share)


def _ensemble(arguments: argparse.Namespace) -> Reading:
    preferences = _quantiles(arguments.ranker_artifact, "ranker", "--ranker-artifact")
    return Reading(name="ensemble", policy=EnsemblePolicy(), preferences=preferences, strong_call_share=1.0)


def cost(policy: CascadePolicy | EnsemblePolicy, rows: "Scored") -> float:
    """Of a call in the mean on answered prompts, in USD."""
    from training.strategy_plans import Ensemble, Hybrid

    if isinstance(policy, EnsemblePolicy):
        return float(Ensemble().run(rows).cost.mean())
    plan = Hybrid(policy.thresholds, policy.easy_alpha, policy.hard_alpha)
    return float(plan.run(rows).cost.mean())


def _quantiles(directory: Path, kind: str, option: str) -> Sequence[float]:
    """Those of an artefact of a kind that judges answers."""
    from scorer_service import artifact

    manifest = artifact.load(directory).manifest
    wanted = {"answer": artifact.Task.SCORE_ANSWER, "ranker": artifact.Task.RANK_ANSWERS}[kind]
    if manifest.task is not wanted:
        raise UsageError(f"{option} is to {manifest.task.value}: give one of kind {kind!r}")
    return manifest.score_quantiles
