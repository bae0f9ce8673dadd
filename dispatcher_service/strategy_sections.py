"""The tables of the configuration file that say more of a tenant's `strategy`, and the policies that they become."""

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from dispatcher_service.routing import NEVER_STRONG
from dispatcher_service.strategy_policies import CascadePolicy, EnsemblePolicy, OnNoScore, StrategyName
from dispatcher_service.upstream_sections import Name, Seconds, Section

MOST_MODELS = 8
"""That an ensemble asks: scorers compare no more answers unless they are told to."""

_Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class CascadeSection(Section):
    """`cascade` of a tenant."""

    thresholds: Annotated[tuple[_Fraction, ...], Field(min_length=1)]
    easy_alpha: _Fraction | None = None
    hard_alpha: _Fraction | None = None
    on_no_score: OnNoScore = OnNoScore.GO_ON
    min_seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 1.0
    scorer: str = ""


class EnsembleSection(Section):
    """`ensemble` of a tenant."""

    deadline: Seconds = 30.0
    fuse_with: Name | None = None
    scorer: str = ""


def cascade_policy(section: CascadeSection | None) -> CascadePolicy | None:
    """Freeze a section that has no problems."""
    if section is None:
        return None
    return CascadePolicy(
        thresholds=section.thresholds,
        easy_alpha=section.easy_alpha or 0.0,
        hard_alpha=NEVER_STRONG if section.hard_alpha is None else section.hard_alpha,
        on_no_score=section.on_no_score,
        min_seconds=section.min_seconds,
        scorer=section.scorer,
    )


def ensemble_policy(section: EnsembleSection | None) -> EnsemblePolicy:
    """Freeze a section."""
    section = section or EnsembleSection()
    return EnsemblePolicy(deadline=section.deadline, fuse_with=section.fuse_with or "", scorer=section.scorer)


def strategy_problems(
    strategy: StrategyName,
    *,
    models: Collection[str],
    cascade: CascadeSection | None,
    ensemble: EnsembleSection | None,
    routing_keys: Sequence[str],
    embedded: bool,
) -> Iterator[str]:
    """What does not fit a tenant's strategy, one line each: the key, beginning with a dot, and the mend.

    Args:
        strategy: the tenant's.
        models: its models.
        cascade: its table of that name.
        ensemble: its table of that name.
        routing_keys: those keys of it that say how a model is chosen before any is called.
        embedded: whether the scorer is in the dispatcher's own process, where no answers are judged.
    """
    if cascade is not None and strategy is not StrategyName.CASCADE:
        yield ".cascade: only for strategy = 'cascade': remove it, or set that"
    if ensemble is not None and strategy is not StrategyName.ENSEMBLE:
        yield ".ensemble: only for strategy = 'ensemble': remove it, or set that"
    if strategy is StrategyName.ROUTE:
        return
    for key in routing_keys:
        yield f".{key}: only for strategy = 'route': remove it"
    if embedded:
        yield f".strategy: {strategy.value!r} needs a scorer service that judges answers: set scorer.address to one"
    if strategy is StrategyName.ENSEMBLE and len(models) > MOST_MODELS:
        yield f".models: an ensemble asks {MOST_MODELS} at most: remove {len(models) - MOST_MODELS}"
    if ensemble is not None and ensemble.fuse_with is not None and ensemble.fuse_with not in models:
        yield f".ensemble.fuse_with: {ensemble.fuse_with!r} is none of the tenant's models: name one of them"
    if strategy is StrategyName.CASCADE:
        yield from _cascade_problems(cascade, len(models))


def _cascade_problems(section: CascadeSection | None, models: int) -> Iterator[str]:
    if section is None:
        yield ".cascade: missing: add it with its thresholds"
        return
    if len(section.thresholds) != models - 1:
        yield f".cascade.thresholds: write {models - 1}: one for each model but the last, in the order of their price"
    easy = 0.0 if section.easy_alpha is None else section.easy_alpha
    if section.hard_alpha is not None and easy > section.hard_alpha:
        yield ".cascade.easy_alpha: above hard_alpha, so that a prompt could be both: lower it"
