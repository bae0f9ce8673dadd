"""`bert`: torch and ONNX are one model, for MiniLM and any checkpoint of the family; training can be interrupted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scorer_service.scorer import open_scorer
from tests import battles, checkpoints
from training import bert_graph, embeddings, fine_tuning, fit_bert, minilm, one_pair, pair_labels, torch_bert
from training.bert_graph import CheckpointError
from training.logit_curve import LogitCurve
from training.train import no_progress

pytestmark = [pytest.mark.torch, pytest.mark.timeout(240)]

from training.fine_tuning import Examples, OtherCheckpointError, Schedule  # noqa: E402
from training.routers import bert  # noqa: E402
from training.routers.bert import HEAD, BertRouter  # noqa: E402

TEXTS = ("Why is the sky blue?", "7", "Prove that the sum of two odd numbers is even. " * 4)


def _tensors(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}


def test_the_torch_encoder_gives_the_embeddings_of_the_onnx_graph() -> None:
    model = minilm.load()
    checkpoint = minilm.checkpoint(model)
    rows = one_pair.tokenize(TEXTS, model.tokenizer_json, bert.preprocess(checkpoint, 64))
    ids, mask = fine_tuning.padded(rows, minilm.PAD)
    hidden = torch_bert.encode(_tensors(checkpoint.tensors), checkpoint.shape, ids, mask)
    pooled = torch_bert.mean_pool(hidden, mask)
    unit = (pooled / pooled.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(unit, embeddings.MiniLmEmbedding(model)(rows), atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_any_checkpoint_of_the_family_trains_and_serves(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = battles.material()
    monkeypatch.setattr("training.many_models.read", lambda *_: material)
    folder = checkpoints.bert(tmp_path / "model", family=family)
    config = fit_bert.Config(
        model=folder, labels=Path("traffic"), strong_model=battles.STRONG, weak_model=battles.WEAK,
        steps=80, batch=16, learning_rate=1e-3, max_tokens=64,
    )  # fmt: skip
    written = fit_bert.fit(tmp_path, tmp_path / "out", config, no_progress)
    scorer = open_scorer(written.directory, threads=1)  # replays the golden rows, in batches too
    assert scorer.golden_deviation < 1e-5
    assert scorer.manifest.router_kind == "bert"
    assert scorer.manifest.preprocess.max_tokens == 64
    assert scorer.manifest.calibrated_pairs == {(battles.STRONG, battles.WEAK)}


def _run(checkpoint: Path | None, *, steps: int, stop_after: int | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Fine-tune a tiny model that is made on the spot; stop in the middle if asked to."""
    start = bert_graph.load(_run.folder)  # type: ignore[attr-defined]
    generator = np.random.default_rng(1)
    rows = [tuple(generator.integers(3, 200, size).tolist()) for size in generator.integers(4, 30, 40)]
    targets = np.eye(3)[generator.integers(0, 3, 40)]
    weights = start.tensors | {HEAD[0]: np.zeros((3, start.width), np.float32), HEAD[1]: np.zeros(3, np.float32)}

    def progress(_task: str, done: int, _total: int) -> None:
        if done == stop_after:
            raise KeyboardInterrupt

    return fine_tuning.fine_tune(
        weights,
        list(weights),
        lambda tensors, ids, mask: bert.logits(start, tensors, ids, mask),
        Examples(rows, targets, np.full(40, 1 / 40)),
        schedule=Schedule(steps=steps, batch=4, learning_rate=1e-3, weight_decay=0.01, seed=seed, checkpoint_every=5),
        pad_id=0,
        checkpoint=checkpoint,
        progress=progress,
    )


def _equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_run_that_was_interrupted_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    _run.folder = checkpoints.bert(tmp_path / "model")  # type: ignore[attr-defined]
    whole = _run(None, steps=20)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "ckpt", steps=20, stop_after=13)
    assert _equal(_run(tmp_path / "ckpt", steps=20), whole)
    assert _equal(_run(None, steps=20), whole)
    assert not _equal(_run(None, steps=20, seed=1), whole)
    with pytest.raises(OtherCheckpointError, match="other settings or data"):
        _run(tmp_path / "ckpt", steps=21)


def test_minilm_learns_the_labels_it_is_shown_and_is_served(tmp_path: Path) -> None:
    """A few steps of the real thing: the loss falls, and the export is served with torch's numbers."""
    start = minilm.checkpoint(minilm.load())
    prompts = [f"{text} {number}" for number in range(6) for text in TEXTS[:2]]
    rows = one_pair.tokenize(prompts, start.tokenizer_json, bert.preprocess(start, 32))
    targets = np.tile([[0.9, 0.1, 0.0], [0.0, 0.1, 0.9]], (6, 1))
    head = np.random.default_rng(0).normal(scale=0.02, size=(3, start.width)).astype(np.float32)
    weights = start.tensors | {HEAD[0]: head, HEAD[1]: np.zeros(3, np.float32)}

    def logits(tensors: Any, ids: Any, mask: Any) -> Any:
        return bert.logits(start, tensors, ids, mask)

    tuned = fine_tuning.fine_tune(
        weights, list(weights), logits, Examples(rows, targets, np.full(12, 1 / 12)),
        schedule=Schedule(steps=8, batch=8, learning_rate=2e-4, weight_decay=0.01, seed=0),
        pad_id=start.pad_id, checkpoint=None, progress=no_progress,
    )  # fmt: skip
    odds = bert.log_odds(fine_tuning.evaluate(tuned, logits, rows, pad_id=start.pad_id))
    assert odds[::2].min() > odds[1::2].max() + 0.5
    curve = LogitCurve(1.0, 0.0)
    router = BertRouter(bert_graph.BertCheckpoint(start.shape, tuned, start.tokenizer_json, start.pad_id), 32, curve)
    served = _served(router, rows)
    np.testing.assert_allclose(served, router.win_probability(rows), atol=1e-5)


def _served(router: BertRouter, rows: Sequence[Sequence[int]]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(router.onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    ids, mask = fine_tuning.padded(rows, router.checkpoint.pad_id)
    [probability] = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    return np.asarray(probability)


def test_labels_are_the_pair_s_own_or_those_of_models_about_as_strong() -> None:
    material = battles.material()
    labels = pair_labels.of(material, folds=10, seed=0, labelled_share=0.6)
    np.testing.assert_allclose(labels.grades.sum(axis=1), 1.0)
    assert labels.weights.sum() == pytest.approx(1.0)
    assert labels.weights[labels.traffic].sum() == pytest.approx(0.6)
    own = labels.outcomes[labels.traffic]
    np.testing.assert_array_equal(own, material.matrices[-1].outcomes(battles.STRONG, battles.WEAK))


def test_a_folder_that_is_no_checkpoint_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        bert_graph.load(tmp_path)
    (checkpoints.bert(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        bert_graph.load(tmp_path)
    (checkpoints.llama(tmp_path / "llama"))
    with pytest.raises(CheckpointError, match="'llama' model"):
        bert_graph.load(tmp_path / "llama")
