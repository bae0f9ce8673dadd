"""How artefacts route a benchmark, measured on what the scorer service serves.

Every probability here comes from `scorer_service.scorer`, with the artefact's own preprocessing and graph. Beside each
artefact stand a random order, the prompts' length, and an oracle that knows the answers.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scorer_service.preprocess import NoUserText, Role, Turn
from scorer_service.scorer import ConversationScorer, open_scorer
from training import metrics, rankings, sketch
from training.corpus import GROUP_CHARACTERS, LabelledSet
from training.metrics import Interval, NoGapError, Resampling
from training.rankings import Comparison, Prices, Ranking
from training.reliability import Reliability, brier, brier_skill, calibration_error_by_chance, reliability
from training.tables import DataError

Floats = NDArray[np.float64]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) while prompts are scored."""

LENGTH, ORACLE = "prompt length", "oracle"

_BLOCK = 256

_SEEN_SHARE = 0.02
"""Of a benchmark's prompts: a few common ones, such as a greeting, are in every file."""

_TEMPLATE_SHARE = 0.05
"""An opening that more prompts than this have is a template's."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Labelled prompts that routers are judged by.

    Attributes:
        name: in the report; `published` finds the paper's rows by it.
        labelled: prompts with both models' quality.
        sha256: of the file.
        strong_model, weak_model: where the file names them.
    """

    name: str
    labelled: LabelledSet
    sha256: str
    strong_model: str | None = None
    weak_model: str | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far an artefact's probabilities can be believed on this benchmark."""

    brier: float
    skill: Interval
    plot: Reliability
    error_by_chance: float
    """The calibration error that a perfect predictor exceeds 1 time in 20 at this number of prompts."""


@dataclass(frozen=True, slots=True)
class ArtifactResult:
    """An artefact on one benchmark.

    Attributes:
        ranking: with the artefact's name.
        calibration: of its win probabilities.
        kind, version: of the artefact.
        probabilities: [prompts].
        warnings: why its numbers may not be what they seem; each is one sentence.
    """

    ranking: Ranking
    calibration: Calibration
    kind: str
    version: str
    probabilities: Floats
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Everything measured on one benchmark."""

    name: str
    prompts: int
    strong_quality: float
    weak_quality: float
    wins: float
    ties: float
    losses: float
    artifacts: tuple[ArtifactResult, ...]
    baselines: tuple[Ranking, ...]
    comparisons: tuple[Comparison, ...]


def named_artifacts(directories: Sequence[Path]) -> dict[str, ConversationScorer]:
    """Open artefacts, each under its directory's name, or its path where two have the same.

    Raises:
        ArtifactError: one cannot be served.
    """
    short = [directory.resolve().name for directory in directories]
    unique = len(set(short)) == len(short)
    return {
        name if unique else str(directory): open_scorer(directory)
        for name, directory in zip(short, directories, strict=True)
    }


def evaluate(
    benchmark: Benchmark,
    scorers: dict[str, ConversationScorer],
    prices: Prices,
    *,
    draws: int = 1000,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> BenchmarkResult:
    """Measure artefacts and baselines on one benchmark.

    Raises:
        DataError: the strong model is not better on it, so that there is nothing to measure.
    """
    labelled = benchmark.labelled
    gain, labels = labelled.gain, labelled.labels
    resampling = Resampling(len(gain), draws, seed, alike(labelled.prompts))

    def ranking(name: str, scores: Floats) -> Ranking:
        return rankings.measure(name, scores, gain, resampling, prices)

    try:
        baselines = (
            rankings.of_random_order(gain, prices, seed),
            ranking(LENGTH, metrics.length_scores(labelled.prompts)),
            ranking(ORACLE, metrics.oracle_scores(gain)),
        )
    except NoGapError as error:
        raise DataError(f"{benchmark.name}: {error}") from error
    results = []
    for name, scorer in scorers.items():
        pair, warnings = _pair(scorer, benchmark)

        def told(done: int, total: int, name: str = name) -> None:
            progress(f"{name} on {benchmark.name}", done, total)

        probabilities = win_probabilities(scorer, labelled.prompts, pair, told)
        calibration = Calibration(
            brier(probabilities, labels),
            brier_skill(probabilities, labels, resampling),
            reliability(probabilities, labels),
            calibration_error_by_chance(probabilities, labels, seed=seed),
        )
        manifest = scorer.manifest
        results.append(
            ArtifactResult(
                ranking(name, probabilities),
                calibration,
                manifest.router_kind,
                scorer.artifact.version,
                probabilities,
                warnings,
            )
        )
    judged = [*(result.ranking for result in results), baselines[1]]
    pairs = itertools.combinations(judged, 2)
    return BenchmarkResult(
        name=benchmark.name,
        prompts=len(gain),
        strong_quality=float(labelled.strong.mean()),
        weak_quality=float(labelled.weak.mean()),
        wins=float(np.mean(gain > 0)),
        ties=float(np.mean(gain == 0)),
        losses=float(np.mean(gain < 0)),
        artifacts=tuple(results),
        baselines=baselines,
        comparisons=tuple(rankings.compare(first, second) for first, second in pairs),
    )


def alike(prompts: Sequence[str]) -> NDArray[np.int64]:
    """A number per prompt, equal for prompts that do not tell independently of one another.

    Those that begin alike, as questions about one passage do. Where an opening is a template's, which many have, only
    equal prompts go together, such as battles on one prompt.
    """
    _, groups, sizes = np.unique(
        np.array([prompt[:GROUP_CHARACTERS] for prompt in prompts], object), return_inverse=True, return_counts=True
    )
    if sizes.max() > max(1, _TEMPLATE_SHARE * len(prompts)):
        _, groups = np.unique(np.array(prompts, object), return_inverse=True)
    return groups.astype(np.int64)


def win_probabilities(
    scorer: ConversationScorer,
    prompts: Sequence[str],
    pair: tuple[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Floats:
    """What serving says of each prompt as a conversation of one user turn: [prompts].

    Raises:
        DataError: a prompt has no text.
    """
    # Prompts of like length in one block run without padding.
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    probabilities = np.empty(len(prompts))
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        try:
            passages = [scorer.preprocessor.passage([Turn(Role.USER, prompts[row])]) for row in rows]
        except NoUserText as error:
            raise DataError("a prompt has no text: leave it out") from error
        pairs = [pair] * len(rows) if pair else []
        probabilities[rows] = scorer.score(passages, pairs).scores.win_probability
        progress(start + len(rows), len(order))
    return probabilities


def _seen(sources: Mapping[str, Any], benchmark: Benchmark) -> Iterator[str]:
    """What of a benchmark an artefact was trained on, by its manifest's `data`."""
    for name, source in sources.items():
        if not isinstance(source, Mapping):
            continue
        if source.get("sha256") == benchmark.sha256:
            yield (
                f"was trained on {name}, which is this very file: the number shows memory and is no result. Its "
                "manifest holds the number on rows kept out"
            )
            continue
        found = sketch.overlap(str(source.get("prompt_sketch", "")), benchmark.labelled.prompts)
        if found.share >= _SEEN_SHARE:
            yield (
                f"has seen about {found.share:.0%} of these prompts in {name} ({found.seen} of {found.comparable} that "
                "can be compared): as far as it has, the number shows memory and is no result"
            )


def _pair(scorer: ConversationScorer, benchmark: Benchmark) -> tuple[tuple[str, str] | None, tuple[str, ...]]:
    """The pair to score the benchmark with (`None`: the artefact's own), and what is amiss with the result."""
    manifest = scorer.manifest
    warnings = list(_seen(manifest.data, benchmark))
    pair = None
    if benchmark.strong_model is not None and benchmark.weak_model is not None:
        asked = benchmark.strong_model, benchmark.weak_model
        if scorer.onnx.takes_pairs and set(asked) <= set(manifest.models):
            pair = asked
            if asked not in manifest.calibrated_pairs:
                warnings.append(f"has no calibrator for {asked[0]} / {asked[1]}: its probabilities are raw")
        elif asked != (manifest.strong_model, manifest.weak_model):
            warnings.append(f"scores {manifest.strong_model} / {manifest.weak_model}, not {asked[0]} / {asked[1]}")
    return pair, tuple(warnings)
