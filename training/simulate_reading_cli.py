"""The options of `pointsman simulate` for strategies that read answers."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Standard library only, as for `simulate_cli`.
from dispatcher_service import routing
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy


class UsageError(Exception):
    """Options that cannot be used together, or a value out of range. One line with the mend."""


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("strategies that read answers, with --stream: in place of a share")
    group.add_argument(
        "--strategy",
        default="route",
        choices=["route", "cascade", "ensemble"],
        help="cascade asks the weak model first, ensemble both at once (default: route)",
    )
    group.add_argument("--answer-artifact", type=Path, help="of kind answer, for a cascade: its quantiles are used")
    group.add_argument("--threshold", type=float, help="from this acceptance probability on the weak answer is given")
    group.add_argument("--easy-alpha", type=float, default=0.0, help="below it, weak without a check (default: 0)")
    group.add_argument("--hard-alpha", type=float, help="from it on, strong at once (default: never)")
    group.add_argument("--ranker-artifact", type=Path, help="of kind ranker, for an ensemble: its quantiles are used")


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
    if not 0 <= arguments.threshold <= 1 or not 0 <= arguments.easy_alpha <= hard_alpha <= 1:
        raise UsageError("--threshold, --easy-alpha and --hard-alpha are in [0, 1], and easy is not above hard")
    acceptances = _quantiles(arguments.answer_artifact, "answer", "--answer-artifact")
    policy = CascadePolicy(
        thresholds=(arguments.threshold,),
        easy_alpha=arguments.easy_alpha,
        hard_alpha=routing.NEVER_STRONG if arguments.hard_alpha is None else arguments.hard_alpha,
    )
    share = sum(acceptance < arguments.threshold for acceptance in acceptances) / len(acceptances)
    return Reading(
        name=f"cascade {arguments.threshold:g}", policy=policy, acceptances=acceptances, strong_call_share=share
    )


def _ensemble(arguments: argparse.Namespace) -> Reading:
    preferences = _quantiles(arguments.ranker_artifact, "ranker", "--ranker-artifact")
    return Reading(name="ensemble", policy=EnsemblePolicy(), preferences=preferences, strong_call_share=1.0)


def _quantiles(directory: Path, kind: str, option: str) -> Sequence[float]:
    """Those of an artefact of a kind that judges answers."""
    from scorer_service import artifact

    manifest = artifact.load(directory).manifest
    wanted = {"answer": artifact.Task.SCORE_ANSWER, "ranker": artifact.Task.RANK_ANSWERS}[kind]
    if manifest.task is not wanted:
        raise UsageError(f"{option} is to {manifest.task.value}: give one of kind {kind!r}")
    return manifest.score_quantiles
