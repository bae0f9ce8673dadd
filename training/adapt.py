"""Adapts an artefact to one's own traffic: the old score, scaled to what the labels bear out, plus one more expert.

What is reported is held out throughout: no prompt is judged by an expert, a scale or a calibrator that has seen it or
a prompt that begins like it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service import artifact
from scorer_service.artifact import ScorerArtifact
from scorer_service.preprocess import Passage, Preprocessor
from training import corpus, data, expert_report, export, made_with, metrics, platt
from training.corpus import LabelledSet
from training.errors import TrainingError
from training.fit_kernel import weighted_quantiles
from training.machine_fit import PENALTIES, Design
from training.routers import static
from training.routers.difficulty_kernel import DifficultyKernel, Doubles, Floats
from training.routers.static import StaticRouter
from training.token_rows import TokenRows

FEWEST_LABELS = 100
_FOLDS = 5
_CHOICES = (*PENALTIES, 300.0, 1000.0)
"""Stronger penalties than for a default: a hundred labels often bear out no more than the old score."""


class AdaptError(TrainingError):
    """The artefact or the labels cannot be adapted from. The message says what to bring instead."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """What an adaptation wrote, and what it is worth.

    Attributes:
        artifact: the new one.
        before: numbers of the old artefact on the labelled prompts.
        after: held-out numbers of the new one on the same prompts.
    """

    artifact: ScorerArtifact
    before: Mapping[str, Any]
    after: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fit:
    """An adapted head: `scale` times the old score, plus its last machine.

    `held_out` are scores of the prompts that it was fitted to, `slope` and `offset` the calibrator of these.
    """

    head: DifficultyKernel
    scale: float
    held_out: Doubles
    slope: float
    offset: float

    @property
    def probabilities(self) -> Doubles:
        """Held-out and calibrated, [prompts]."""
        return platt.sigmoid(self.slope * self.held_out + self.offset)


@dataclass(frozen=True, slots=True)
class Examples:
    """What an expert learns from. All are [examples].

    Attributes:
        prompts: the prompts.
        labels: P(the strong model's answer is better), a tie counting one half: of the prompt, or right in the mean.
        weights: how much each counts, of mean 1; `None` counts all alike.
    """

    prompts: tuple[str, ...]
    labels: Doubles
    weights: Doubles | None = None

    @property
    def groups(self) -> list[str]:
        """Prompts that begin alike are of one group, which no split divides."""
        return [prompt[: corpus.GROUP_CHARACTERS] for prompt in self.prompts]

    def weights_of(self, rows: NDArray[np.int64]) -> Doubles | None:
        """The weights of some examples."""
        return None if self.weights is None else self.weights[rows]


def adapt(old: Path, labels: Path, unlabelled: Path | None, out: Path, *, seed: int = 0) -> Adapted:
    """Write the artefact adapted to these labels.

    Args:
        old: directory of a `static` artefact; untouched unless it is `out`.
        labels: correctness or reward of both models, or battles, in any format that `data.read` knows.
        unlabelled: prompts of the same traffic. They set the quantiles from which shares of strong calls become alphas.
        out: directory of the new artefact.
        seed: of every random choice.

    Raises:
        TrainingError: the artefact is of another kind, there are too few labels, or they are all ties.
        ArtifactError: `old` cannot be read.
    """
    loaded = artifact.load(old)
    router = read_router(loaded)
    manifest = loaded.manifest
    dataset = data.read(labels)
    labelled = dataset.pair(manifest.strong_model, manifest.weak_model)
    _refuse(labelled, labels)
    features = router.features(tokens(router, labelled.prompts))
    fitted = fit(router.head, features, Examples(labelled.prompts, labelled.labels), seed)
    reference = fitted.probabilities
    if unlabelled is not None:
        reference = fitted.head(router.features(tokens(router, data.read_prompts(unlabelled)))).astype(np.float64)
    before = expert_report.judge(router.head(features).astype(np.float64), labelled, None, 1000)
    after = expert_report.judge(fitted.probabilities, labelled, None, 1000)
    provenance = export.Provenance(
        strong_model=manifest.strong_model,
        weak_model=manifest.weak_model,
        score_quantiles=weighted_quantiles(reference, np.ones(len(reference)), export.QUANTILES),
        data={**manifest.data, dataset.source.name: dataset.source.document()},
        training={
            "adapted_from": loaded.version,
            "before": manifest.training,
            "seed": seed,
            "versions": made_with.versions(),
        },
        metrics={"protocol": f"{_FOLDS}-fold cross-validation over the labels adapted to", "own": after},
    )
    new = StaticRouter(router.tokenizer_json, router.features, fitted.head)
    return Adapted(export.write(new, provenance, out), before, after)


def fit(head: DifficultyKernel, features: Floats, examples: Examples, seed: int, *, landmarks: int = 1024) -> Fit:
    """Add an expert for these prompts to a head.

    Args:
        head: the old one.
        features: of the examples, [examples, width].
        examples: to learn from.
        seed: of folds and landmarks.
        landmarks: of the new expert, at most.

    Raises:
        ExportError: held-out scores do not rise with the labels.
    """
    rows, groups = np.arange(len(examples.prompts)), examples.groups
    targets = 2.0 * examples.labels - 1.0
    old = head.score(features)
    design = Design.of(features, head.profile(features), rows, landmarks=landmarks, seed=seed)

    def learn(seen: NDArray[np.int64]) -> tuple[float, Doubles, float]:
        mass = examples.weights_of(seen)
        scale = _scale(old[seen], targets[seen], mass)
        rest = targets[seen] - scale * old[seen]
        penalty = design.choose_penalty(seen, rest, [groups[row] for row in seen], _CHOICES, mass)
        return scale, *design.fit(seen, rest, penalty, mass)

    folds = corpus.folds(groups, _FOLDS, seed)
    held_out = np.empty(len(rows))
    for fold in range(_FOLDS):
        scale, weights, bias = learn(rows[folds != fold])
        held_out[folds == fold] = (scale * old + design.scores(weights, bias))[folds == fold]
    weights = np.ones(len(rows)) if examples.weights is None else examples.weights
    slope, offset = platt.fit(held_out, examples.labels, weights)
    scale, weights, bias = learn(rows)
    scaled = (
        dataclasses.replace(machine, weights=scale * machine.weights, bias=scale * machine.bias)
        for machine in head.machines
    )
    machines = (*scaled, design.machine(weights, bias))
    adapted = dataclasses.replace(head, machines=machines, slope=slope, offset=offset)
    return Fit(adapted, scale, held_out, slope, offset)


def learning_curve(
    old: Path, benchmark: Path, sizes: Sequence[int], draws: int, *, seed: int = 0, progress: Callable[[int, int], None]
) -> list[Mapping[str, float]]:
    """APGR on the rest of a file after adapting to so many of its rows, drawn at random.

    Returns:
        Per size `labels`, `before` and `after` (means over draws, each on the rows not drawn), `spread` (sd of after)
        and `better` (share of draws in which adapting helped). Sizes that leave no rest are skipped.
    """
    loaded = artifact.load(old)
    router, manifest = read_router(loaded), loaded.manifest
    labelled = data.read(benchmark).pair(manifest.strong_model, manifest.weak_model)
    features = router.features(tokens(router, labelled.prompts))
    old_scores, profiles = router.head.score(features), router.head.profile(features)
    sizes = [size for size in sizes if size <= 0.9 * len(labelled.prompts)]
    curve: list[Mapping[str, float]] = []
    for place, size in enumerate(sizes):
        before, after = np.empty(draws), np.empty(draws)
        for draw in range(draws):
            # Whole groups in a random order: what begins alike stays on one side.
            dealt = labelled.folds(len(labelled.prompts), seed + draw)
            order = np.argsort(dealt, kind="stable")
            seen, rest = order[:size], order[size:]
            rest = rest[~np.isin(dealt[rest], dealt[seen])]
            scores = old_scores[rest]
            before[draw] = metrics.apgr(scores, labelled.gain[rest])
            try:
                fitted = fit(router.head, features[seen], _examples(labelled, seen), seed)
            except export.ExportError:
                # These labels bear nothing out: `adapt` refuses them, and the old artefact stays.
                after[draw] = before[draw]
            else:
                scores = fitted.scale * scores + fitted.head.machines[-1](features[rest], profiles[rest])
                after[draw] = metrics.apgr(scores, labelled.gain[rest])
            progress(place * draws + draw + 1, len(sizes) * draws)
        curve.append(
            {
                "labels": size,
                "before": float(before.mean()),
                "after": float(after.mean()),
                "spread": float(after.std()),
                "better": float((after > before).mean()),
            }
        )
    return curve


def _scale(old: Doubles, targets: Doubles, mass: Doubles | None) -> float:
    """How much of the old score the labels bear out: least squares, between nothing and all of it."""
    centred = old - np.average(old, weights=mass)
    weighted = centred if mass is None else centred * mass
    return float(np.clip(weighted @ targets / max(float(weighted @ centred), 1e-9), 0.0, 1.0))


def _examples(labelled: LabelledSet, rows: NDArray[np.int64]) -> Examples:
    return Examples(tuple(labelled.prompts[row] for row in rows), labelled.labels[rows])


def read_router(loaded: ScorerArtifact) -> StaticRouter:
    """The router of a `static` artefact.

    Raises:
        AdaptError: it is of another kind, or of an older version.
    """
    if loaded.manifest.router_kind != static.KIND:
        raise AdaptError(f"{loaded.manifest.router_kind} artefacts cannot be adapted: give a static one")
    try:
        return static.read(loaded)
    except KeyError as error:
        raise AdaptError("the artefact is of an older version of static: train it again") from error


def _refuse(labelled: LabelledSet, path: Path) -> None:
    if len(labelled.prompts) < FEWEST_LABELS:
        raise AdaptError(
            f"{path} has {len(labelled.prompts)} prompts with labels of both models: bring {FEWEST_LABELS} or more"
        )
    if labelled.gain.sum() <= 0.0:
        raise AdaptError(f"in {path} the strong model is not better than the weak one: there is nothing to route for")


def tokens(router: StaticRouter, prompts: Sequence[str]) -> TokenRows:
    """Token ids as serving makes them."""
    preprocessor = Preprocessor(Tokenizer.from_str(router.tokenizer_json), router.preprocess)
    passages = [Passage(prompt, cut=False) for prompt in prompts]
    return TokenRows.of([encoded.input_ids for encoded in preprocessor.encode_passages(passages)])
