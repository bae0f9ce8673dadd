"""Fine-tunes `bert` on labels of the pair, and on what models like the pair did in `train/`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorer_service.artifact import ScorerArtifact
from training import bert_graph, export, fine_tuning, many_models, minilm, one_pair, pair_labels
from training.corpus import STRONG_MODEL, WEAK_MODEL
from training.fine_tuning import Examples, Schedule
from training.routers import bert
from training.routers.bert import HEAD, LABELS, BertRouter
from training.train import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How `bert` is fine-tuned; goes into the manifest. Steps and window are for two cores without a GPU."""

    seed: int = 0
    model: Path | None = None
    """Folder of a BERT-family checkpoint in the Hugging Face layout; None is all-MiniLM-L6-v2."""
    labels: Path | None = None
    """File or folder with labels of the pair that will be served."""
    strong_model: str = STRONG_MODEL
    weak_model: str = WEAK_MODEL
    labelled_share: float = 0.5
    """Share of the examples drawn from `labels`."""
    max_tokens: int = 256
    steps: int = 400
    batch: int = 16
    learning_rate: float = 3e-5
    """Three times the paper's, whose run is five times as long."""
    weight_decay: float = 0.01
    calibration_folds: int = 2
    """Of ten folds of the labels; they are kept back from training."""
    checkpoint: Path | None = None
    """File to go on from after an interruption; None keeps nothing."""


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Fine-tune and write the artefact.

    Raises:
        TrainingError: data, checkpoint or result is not what it should be.
    """
    start = bert_graph.load(config.model) if config.model else minilm.checkpoint(minilm.load())
    material = many_models.read(data, config.labels, (config.strong_model, config.weak_model))
    labels = pair_labels.of(material, folds=10, seed=config.seed, labelled_share=config.labelled_share)
    kept = one_pair.kept_back(labels, config.calibration_folds)
    rows = one_pair.tokenize(labels.prompts, start.tokenizer_json, bert.preprocess(start, config.max_tokens))
    shares = np.stack([labels.grades[:, :3].sum(axis=1), labels.grades[:, 3], labels.grades[:, 4]], axis=1)
    head = np.random.default_rng(config.seed).normal(scale=0.02, size=(len(LABELS), start.width))
    weights = start.tensors | {HEAD[0]: head.astype(np.float32), HEAD[1]: np.zeros(len(LABELS), np.float32)}
    chance = np.where(kept, 0.0, labels.weights)
    trained = fine_tuning.fine_tune(
        weights,
        list(weights),
        lambda tensors, ids, mask: bert.logits(start, tensors, ids, mask),
        Examples(rows, shares, chance / chance.sum()),
        schedule=Schedule(
            steps=config.steps,
            batch=config.batch,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            seed=config.seed,
        ),
        pad_id=start.pad_id,
        checkpoint=config.checkpoint,
        progress=progress,
    )
    tuned = bert_graph.BertCheckpoint(start.shape, trained, start.tokenizer_json, start.pad_id)
    found = fine_tuning.evaluate(
        trained,
        lambda tensors, ids, mask: bert.logits(start, tensors, ids, mask),
        [rows[row] for row in np.flatnonzero(kept)],
        pad_id=start.pad_id,
        progress=progress,
    )
    odds = bert.log_odds(found)
    curve, provenance = one_pair.calibrate(material, labels, kept, odds, config)
    return export.write(BertRouter(tuned, config.max_tokens, curve), provenance, out)
