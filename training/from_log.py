"""The loop closed: decisions and opinions of a log become an artefact, measured against the running one, and a plan.

The log is cut in time: the new artefact learns from what came first, and is measured beside the running one on what
came later, as it would have been used. What is measured is what is written; it is not fitted again to all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service import artifact
from scorer_service.artifact import ScorerArtifact
from scorer_service.scorer import open_scorer
from training import adapt, evaluate, export, log_records, made_with, metrics, opinions
from training.adapt import Examples
from training.errors import TrainingError
from training.fit_kernel import weighted_quantiles
from training.log_records import LogRecords
from training.metrics import Interval
from training.opinions import Decided, Lessons
from training.routers.static import StaticRouter

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

HELD_OUT = 0.2
_DRAWS = 1000


class LogError(TrainingError):
    """The log says too little to train or to measure on. The message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The new artefact beside the running one, on the same later part of the log, weighted alike.

    Attributes:
        labels: opinions that were measured on.
        effective: as many of equal weight say as much.
        apgr_running, apgr_new: of each.
        apgr_gain: new less running, paired.
        brier_gain: mean squared error of the new probabilities less the running ones', paired: below 0 is better.
    """

    labels: int
    effective: float
    apgr_running: Interval
    apgr_new: Interval
    apgr_gain: Interval
    brier_gain: Interval

    @property
    def worse(self) -> bool:
        """True if the new artefact ranks worse beyond chance."""
        return self.apgr_gain.high < 0.0


@dataclass(frozen=True, slots=True)
class Trained:
    """What training on a log gave.

    Attributes:
        artifact: as written.
        running: version of the one that it is measured against.
        records, passed_over: of the log; see `LogRecords`.
        learnt: what it learnt from.
        compared: on the later part.
    """

    artifact: ScorerArtifact
    running: str
    records: int
    passed_over: int
    learnt: Lessons
    compared: Compared


def train(
    log: Path, running: Path, out: Path, *, base: Path | None = None, held_out: float = HELD_OUT, seed: int = 0
) -> Trained:
    """Adapt an artefact to a log, write it, and measure it beside the running one.

    Args:
        log: a file or folder of exports.
        running: directory of the artefact that is served; untouched.
        out: directory of the new artefact.
        base: directory of the `static` artefact to adapt; the running one if it is `None`. Each adaptation adds an
            expert, so that one who goes around again starts from the same base as before, with the longer log.
        held_out: share of the opinions, the latest ones, to measure on.
        seed: of every random choice.

    Raises:
        TrainingError: the log cannot be read, says too little, or its labels bear nothing out.
        ArtifactError: `running` or `base` cannot be read.
    """
    records = log_records.read(log)
    loaded = artifact.load(base or running)
    router = adapt.read_router(loaded)
    version = artifact.load(running).version
    served = evaluate.win_probabilities(open_scorer(running), records.prompts)
    earlier, later = _cut(records, held_out)
    learnt = opinions.lessons(_decided(records, earlier, served, version))
    _require(learnt, adapt.FEWEST_LABELS, "to learn from")
    rows = earlier[learnt.rows]
    features = router.features(adapt.tokens(router, [records.prompts[row] for row in earlier]))
    examples = Examples(tuple(records.prompts[row] for row in rows), learnt.labels, learnt.weights)
    fitted = adapt.fit(router.head, features[learnt.rows], examples, seed)
    # What alphas follow from is the traffic itself, not the part of it that somebody spoke of.
    reference = fitted.head(features).astype(np.float64)
    provenance = export.Provenance(
        strong_model=loaded.manifest.strong_model,
        weak_model=loaded.manifest.weak_model,
        score_quantiles=weighted_quantiles(reference, np.ones(len(reference)), export.QUANTILES),
        data={**loaded.manifest.data, records.source.name: records.source.document()},
        training={
            "from_log": _account(records, learnt),
            "adapted_from": loaded.version,
            "before": loaded.manifest.training,
            "seed": seed,
            "versions": made_with.versions(),
        },
        metrics={"protocol": "5-fold cross-validation over the opinions learnt from", "log": _own(fitted, examples)},
    )
    new = StaticRouter(router.tokenizer_json, router.features, fitted.head)
    written = export.write(new, provenance, out)
    seen = set(examples.groups)
    compared = _compare(records, later, (served, version), written, seen)
    return Trained(written, version, len(records.prompts), records.passed_over, learnt, compared)


def _cut(records: LogRecords, held_out: float) -> tuple[Rows, Rows]:
    """Records before and after the moment that leaves `held_out` of the opinions for later."""
    spoken = np.flatnonzero(~np.isnan(records.rating) | ~np.isnan(records.preference))
    if len(spoken) < 2:
        raise LogError(f"{len(spoken)} of {len(records.prompts)} records have an opinion: call RecordFeedback")
    first_later = spoken[min(len(spoken) - 1, int((1.0 - held_out) * len(spoken)))]
    moment = records.seconds[first_later]
    return np.flatnonzero(records.seconds < moment), np.flatnonzero(records.seconds >= moment)


def _decided(records: LogRecords, rows: Rows, served: Floats, version: str) -> Decided:
    """Some records; those that no prediction took part in stand where the running artefact's would put them."""
    decider = [records.scorer_version[row] or version for row in rows]
    _, group = np.unique(
        [f"{records.tenant[row]}\0{by}" for row, by in zip(rows, decider, strict=True)], return_inverse=True
    )
    logged = records.win_probability[rows]
    return Decided(
        group=group.astype(np.int64),
        win_probability=np.where(np.isnan(logged), served[rows], logged),
        strong=records.strong[rows],
        by_chance=records.by_chance[rows],
        rating=records.rating[rows],
        preference=records.preference[rows],
    )


def _compare(
    records: LogRecords, later: Rows, running: tuple[Floats, str], written: ScorerArtifact, seen: set[str]
) -> Compared:
    """Measure on later opinions on prompts that the new artefact has not learnt from."""
    served, version = running
    lessons = opinions.lessons(_decided(records, later, served, version))
    rows = later[lessons.rows]
    prompts = [records.prompts[row] for row in rows]
    fresh = np.array([group not in seen for group in Examples(tuple(prompts), lessons.labels).groups], bool)
    if fresh.sum() < 2:
        raise LogError(
            f"{int(fresh.sum())} of {len(rows)} later opinions are on prompts that were not learnt from: collect more"
        )
    kept = np.flatnonzero(fresh)
    prompts, labels, weights = [prompts[row] for row in kept], lessons.labels[kept], lessons.weights[kept]
    old, new = served[rows[kept]], evaluate.win_probabilities(open_scorer(written.directory), prompts)
    gain = 2.0 * labels - 1.0
    if float(weights @ gain) <= 0.0:
        raise LogError("in the later part of the log the strong model is not better than the weak one")
    resampling = metrics.Resampling(len(kept), _DRAWS, groups=evaluate.alike(prompts), weights=weights)
    drawn_old, drawn_new = (metrics.ranking_draws(scores, gain, resampling).apgr for scores in (old, new))
    apgr_old, apgr_new = (metrics.pgr_curve(scores, gain, weights).apgr() for scores in (old, new))
    better = (new - labels) ** 2 - (old - labels) ** 2
    drawn = resampling.statistics(lambda counts: (counts @ better) / counts.sum(axis=1))
    return Compared(
        labels=len(kept),
        effective=float(weights.sum() ** 2 / (weights**2).sum()),
        apgr_running=metrics.interval(apgr_old, drawn_old),
        apgr_new=metrics.interval(apgr_new, drawn_new),
        apgr_gain=metrics.interval(apgr_new - apgr_old, drawn_new - drawn_old),
        brier_gain=metrics.interval(float(np.average(better, weights=weights)), drawn),
    )


def _require(lessons: Lessons, fewest: int, what: str) -> None:
    if len(lessons.rows) >= fewest:
        return
    raise LogError(
        f"{len(lessons.rows)} opinions {what}, and {fewest} are needed; {lessons.one_sided} ratings were left out "
        f"because one model answered all prompts like theirs, and {lessons.not_by_chance} because an earlier turn or a "
        "failure chose the model: ask for preferences, which compare both answers, or send some calls with an alpha of "
        "0 or 1"
    )


def _account(records: LogRecords, learnt: Lessons) -> Mapping[str, Any]:
    """For the manifest."""
    return {
        "records": len(records.prompts),
        "opinions": records.opinions,
        "learnt_from": len(learnt.rows),
        "effective": round(learnt.effective, 1),
        "one_sided": learnt.one_sided,
        "not_by_chance": learnt.not_by_chance,
        "cut_weights": learnt.cut,
    }


def _own(fitted: adapt.Fit, examples: Examples) -> Mapping[str, Any]:
    gain = 2.0 * examples.labels - 1.0
    weights = np.ones(len(gain)) if examples.weights is None else examples.weights
    positive = float(weights @ gain) > 0.0
    return {
        "labels": len(gain),
        "apgr": round(metrics.pgr_curve(fitted.held_out, gain, weights).apgr(), 4) if positive else None,
    }
