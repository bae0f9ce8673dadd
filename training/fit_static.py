"""Trains the `static` router: reads the corpus, fits, cross-validates and hands over to the export."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service import artifact
from scorer_service.preprocess import Passage, Preprocessor
from training import corpus, export, metrics, minilm, surface, word_vectors
from training.corpus import Corpus
from training.routers import static
from training.routers.static import LinearHead, StaticFeatures, StaticRouter
from training.token_rows import TokenRows
from training.train import Progress

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the static router is trained; goes into the manifest."""

    seed: int = 0
    dimensions: int = 32
    """Columns of the word-vector table. More make the artefact larger and did not rank better."""
    ridge: float = 10.0
    """Weight of the squared norm of the head, in labelled prompts."""
    set_balance: float = 0.5
    """A set of n prompts counts as n^(1 - set_balance): 0 lets the largest set decide alone, 1 makes sets equal."""
    folds: int = 10


def fit(data: Path, out: Path, config: Config, _progress: Progress) -> artifact.ScorerArtifact:
    """Train on every labelled prompt of the data folder and write the artefact.

    Raises:
        corpus.CorpusError: a data file is missing.
        minilm.EncoderMissingError: the word embeddings are not there.
        export.ExportError: the graph does not agree with training.
    """
    material = corpus.read(data)
    model = minilm.load()
    tokenize = _tokenizer(model)
    labelled = [prompt for labelled_set in material.labelled for prompt in labelled_set.prompts]
    rows = TokenRows.of(tokenize(labelled))
    documents = TokenRows.of(tokenize([*labelled, *material.unlabelled]))
    vectors = word_vectors.build(
        model.word_embeddings, documents, dimensions=config.dimensions, control=minilm.CONTROL_IDS
    )
    features = StaticFeatures.fit(surface.attribute_table(model.vocabulary), vectors, rows)
    labels = np.concatenate([labelled_set.labels for labelled_set in material.labelled])
    weights = _weights(material, config)

    inputs = features(rows).astype(np.float64)
    held_out = _cross_validate(inputs, labels, weights, material, config)
    slope, offset = _platt(held_out, labels, weights)
    direction, centre = _ridge(inputs, labels, weights, config.ridge)
    head = LinearHead(direction.astype(np.float32), slope, float(offset - slope * centre))
    router = StaticRouter(model.tokenizer_json, features, head)
    probabilities = _sigmoid(slope * held_out + offset)
    provenance = export.Provenance(
        strong_model=corpus.STRONG_MODEL,
        weak_model=corpus.WEAK_MODEL,
        score_quantiles=_weighted_quantiles(probabilities, weights, export.QUANTILES),
        data={source.name: source.document() for source in material.sources},
        training={"config": asdict(config), "versions": _versions()},
        metrics=_metrics(material, probabilities, config),
    )
    return export.write(router, provenance, out)


def _tokenizer(model: minilm.MiniLm) -> "_Tokenize":
    return _Tokenize(Preprocessor(Tokenizer.from_str(model.tokenizer_json), static.PREPROCESS))


@dataclass(frozen=True, slots=True)
class _Tokenize:
    preprocessor: Preprocessor

    def __call__(self, prompts: Sequence[str]) -> list[tuple[int, ...]]:
        passages = [Passage(prompt, cut=False) for prompt in prompts]
        return [encoded.input_ids for encoded in self.preprocessor.encode_passages(passages)]


def _weights(material: Corpus, config: Config) -> Floats:
    """One weight per labelled prompt, of mean 1."""
    sizes = np.array([len(labelled_set.prompts) for labelled_set in material.labelled])
    weights = np.repeat(sizes**-config.set_balance, sizes)
    balanced: Floats = weights / weights.mean()
    return balanced


def _ridge(inputs: Floats, labels: Floats, weights: Floats, penalty: float) -> tuple[Floats, float]:
    """Weighted ridge regression on 2·label − 1.

    Returns:
        The direction, and what it gives at the weighted mean less the mean target: score = x @ direction − centre.
    """
    share = weights / weights.sum()
    mean = share @ inputs
    targets = 2.0 * labels - 1.0
    centred = inputs - mean
    gram = (centred * weights[:, None]).T @ centred + penalty * np.eye(inputs.shape[1])
    direction = np.linalg.solve(gram, (centred * weights[:, None]).T @ (targets - share @ targets))
    return direction, float(mean @ direction - share @ targets)


def _cross_validate(inputs: Floats, labels: Floats, weights: Floats, material: Corpus, config: Config) -> Floats:
    """The score of every labelled prompt by a head that has not seen it, nor a prompt that begins like it."""
    fold = np.concatenate([labelled_set.folds(config.folds, config.seed) for labelled_set in material.labelled])
    scores = np.empty(len(labels))
    for held in range(config.folds):
        seen = fold != held
        direction, centre = _ridge(inputs[seen], labels[seen], weights[seen], config.ridge)
        scores[~seen] = inputs[~seen] @ direction - centre
    return scores


def _platt(scores: Floats, labels: Floats, weights: Floats) -> tuple[float, float]:
    """Slope and offset of the logistic curve from score to label, by Newton's method.

    Raises:
        export.ExportError: the slope is not positive, so that higher scores do not win more often.
    """
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    curve = np.zeros(2)
    for _ in range(50):
        probability = _sigmoid(design @ curve)
        gradient = design.T @ (weights * (labels - probability))
        hessian = (design * (weights * probability * (1.0 - probability))[:, None]).T @ design
        step = np.linalg.solve(hessian, gradient)
        curve += step
        if np.abs(step).max() < 1e-10:
            break
    if curve[0] <= 0.0:
        raise export.ExportError("held-out scores do not rise with the labels: there is nothing to route on")
    return float(curve[0]), float(curve[1])


def _sigmoid(logit: Floats) -> Floats:
    probability: Floats = 1.0 / (1.0 + np.exp(-logit))
    return probability


def _weighted_quantiles(values: Floats, weights: Floats, count: int) -> list[float]:
    order = np.argsort(values)
    mass = np.cumsum(weights[order]) - 0.5 * weights[order]
    quantiles = np.interp(np.linspace(0.0, 1.0, count), mass / weights.sum(), values[order])
    return [float(value) for value in quantiles]


def _metrics(material: Corpus, probabilities: Floats, config: Config) -> Mapping[str, Any]:
    """Held-out numbers per set."""
    report: dict[str, Any] = {"protocol": f"{config.folds}-fold cross-validation over all labelled prompts"}
    end = 0
    for labelled_set in material.labelled:
        start, end = end, end + len(labelled_set.prompts)
        held_out = probabilities[start:end]
        labels = labelled_set.labels
        base = float(np.mean((labels - labels.mean()) ** 2))
        report[labelled_set.name] = {
            "labels": len(labels),
            "apgr": round(metrics.apgr(held_out, labelled_set.gain), 4),
            "brier": round(float(np.mean((labels - held_out) ** 2)), 5),
            "brier_of_base_rate": round(base, 5),
        }
    return report


def _versions() -> Mapping[str, str]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
