"""Fine-tunes `causal_lm`: the last layers of a decoder learn to grade the weak model's answer from the prompt alone."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorer_service.artifact import ScorerArtifact
from training import export, fine_tuning, llama_checkpoint, llama_graph, many_models, one_pair, pair_labels
from training.bert_graph import CheckpointError, Tensors
from training.corpus import STRONG_MODEL, WEAK_MODEL
from training.fine_tuning import Examples, Schedule, Tensor
from training.llama_checkpoint import FINAL_NORM, LlamaCheckpoint
from training.routers import causal_lm
from training.routers.causal_lm import HEAD, CausalLmRouter
from training.train import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How `causal_lm` is fine-tuned; goes into the manifest. Steps and window are for two cores without a GPU."""

    seed: int = 0
    model: Path | None = None
    """Folder of a Llama-family checkpoint in the Hugging Face layout; None is SmolLM2-135M-Instruct."""
    labels: Path | None = None
    """File or folder with labels of the pair that will be served."""
    strong_model: str = STRONG_MODEL
    weak_model: str = WEAK_MODEL
    labelled_share: float = 0.7
    """Share of the examples drawn from `labels`."""
    max_tokens: int = 256
    layers: int | None = None
    """Keep so many layers from the bottom; None keeps all. Time per prompt goes with it."""
    trained_layers: int = 4
    """The last so many layers are trained, with the final norm and the label tokens' rows; the rest stays frozen."""
    steps: int = 300
    batch: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    eight_bits: bool = True
    """Store the matrices in 8 bits: a quarter of the size, and no score depends on its neighbours."""
    calibration_folds: int = 2
    """Of ten folds of the labels; they are kept back from training."""
    checkpoint: Path | None = None
    """File to go on from after an interruption; None keeps nothing."""


def fit(data: Path, out: Path, config: Config, progress: Progress) -> ScorerArtifact:
    """Fine-tune and write the artefact.

    Raises:
        TrainingError: data, checkpoint or result is not what it should be.
    """
    start = _cut(llama_checkpoint.load(config.model) if config.model else llama_checkpoint.smollm2(), config.layers)
    material = many_models.read(data, config.labels, (config.strong_model, config.weak_model))
    labels = pair_labels.of(material, folds=10, seed=config.seed, labelled_share=config.labelled_share)
    kept = one_pair.kept_back(labels, config.calibration_folds)
    rows = one_pair.tokenize(labels.prompts, start.tokenizer_json, causal_lm.preprocess(start, config.max_tokens))

    def logits(weights: Mapping[str, Tensor], ids: Tensor, mask: Tensor) -> Tensor:
        return causal_lm.logits(start, weights, ids, mask)

    def upper_logits(weights: Mapping[str, Tensor], hidden: Tensor, mask: Tensor) -> Tensor:
        return causal_lm.upper_logits(start, weights, hidden, mask, first)

    frozen = start.tensors | {HEAD: causal_lm.label_rows(start)}
    first = max(0, start.shape.layers - config.trained_layers)
    last = range(first, start.shape.layers)
    trained = [FINAL_NORM, HEAD, *(name for layer in last for name in llama_checkpoint.names(layer).values())]
    chance = np.where(kept, 0.0, labels.weights)
    tuned = frozen | fine_tuning.fine_tune(
        frozen,
        trained,
        upper_logits,
        Examples(rows, labels.grades, chance / chance.sum()),
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
        frozen=lambda weights, ids: causal_lm.lower_states(start, weights, ids, first),
    )
    if config.eight_bits:
        # What is calibrated and claimed is what the graph multiplies with.
        tuned = _rounded(tuned)
    held_out = [rows[row] for row in np.flatnonzero(kept)]
    found = fine_tuning.evaluate(tuned, logits, held_out, pad_id=start.pad_id, progress=progress)
    curve, provenance = one_pair.calibrate(material, labels, kept, causal_lm.log_odds(found), config)
    router = CausalLmRouter(start, tuned, config.max_tokens, curve, config.eight_bits)
    return export.write(router, provenance, out)


def _cut(checkpoint: LlamaCheckpoint, layers: int | None) -> LlamaCheckpoint:
    """The checkpoint without its upper layers."""
    if layers is None:
        return checkpoint
    if not 0 < layers <= checkpoint.shape.layers:
        raise CheckpointError(f"layers={layers}: the checkpoint has {checkpoint.shape.layers}")
    dropped = {
        name for layer in range(layers, checkpoint.shape.layers) for name in llama_checkpoint.names(layer).values()
    }
    tensors = {name: value for name, value in checkpoint.tensors.items() if name not in dropped}
    return dataclasses.replace(checkpoint, shape=dataclasses.replace(checkpoint.shape, layers=layers), tensors=tensors)


def _rounded(tensors: Tensors) -> Tensors:
    return {
        name: llama_graph.rounded(value) if llama_graph.is_matrix(name) and name != HEAD else value
        for name, value in tensors.items()
    }
