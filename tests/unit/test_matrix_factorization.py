"""`mf`: training moves the factors the right way, and a pair of the full model is one linear layer."""

from pathlib import Path

import numpy as np
import pytest

from tests import battles
from training import export, fit_mf, many_models, pair_curves
from training.embeddings import EncoderName
from training.fit_mf import Config, Decided
from training.routers.matrix_factorization import Factors, MatrixFactorizationRouter, with_constant
from training.train import no_progress

SETTINGS = Config(steps=300, batch=128, dimensions=16, encoder="static")


def _factors(seed: int = 0) -> Factors:
    generator = np.random.default_rng(seed)
    models = generator.standard_normal((5, 4))
    unit = models / np.linalg.norm(models, axis=1, keepdims=True)
    projection = generator.standard_normal((7, 4))
    return Factors(projection.astype(np.float32), unit.astype(np.float32), np.ones(4, np.float32))


def test_a_pair_is_one_linear_layer_of_the_full_model() -> None:
    factors = _factors()
    embeddings = np.random.default_rng(1).standard_normal((20, 6)).astype(np.float32)
    full = factors.strengths(embeddings)
    for strong, weak in ((0, 1), (4, 2), (3, 0)):
        layer = with_constant(embeddings) @ factors.pair(strong, weak)
        np.testing.assert_allclose(layer, full[:, strong] - full[:, weak], atol=1e-5)


def test_a_strength_is_the_paper_s_formula() -> None:
    factors = _factors()
    prompt = np.random.default_rng(2).standard_normal(6).astype(np.float32)
    hidden = factors.projection.T @ np.append(prompt, 1.0)
    expected = factors.weights @ (factors.models[3] * hidden)
    assert factors.strengths(prompt[None])[0, 3] == pytest.approx(expected, abs=1e-5)


def test_the_gradient_is_that_of_the_mean_log_loss() -> None:
    generator = np.random.default_rng(3)
    weights = fit_mf._Weights(*(generator.standard_normal(shape) for shape in ((6, 3), (4, 3), (3,))))
    inputs = generator.standard_normal((8, 6))
    won, lost = np.array([0, 1, 2, 3, 0, 1, 2, 3]), np.array([1, 2, 3, 0, 2, 3, 0, 1])

    def loss() -> float:
        unit = weights.models / np.linalg.norm(weights.models, axis=1, keepdims=True)
        delta = inputs @ weights.projection @ (weights.weights * unit).T
        rows = np.arange(len(inputs))
        return float(np.mean(np.log1p(np.exp(delta[rows, lost] - delta[rows, won]))))

    for array, gradient in zip(weights.arrays(), weights.gradient(inputs, won, lost), strict=True):
        for place in np.ndindex(array.shape):
            kept, step = array[place], 1e-5
            array[place] = kept + step
            above = loss()
            array[place] = kept - step
            below = loss()
            array[place] = kept
            assert gradient[place] == pytest.approx((above - below) / (2 * step), abs=1e-8)


def test_ties_and_missing_answers_are_no_decided_battles() -> None:
    material = battles.material()
    decided = Decided.of(material)
    quality = np.concatenate([np.nan_to_num(m.quality, nan=-1.0).sum(1) for m in material.matrices])
    assert len(decided.counts) == len(quality) == len(material.prompts)
    for place, matrix in ((0, material.matrices[0]), (len(material.prompts) - 1, material.matrices[-1])):
        row = matrix.quality[0 if place == 0 else -1]
        right, wrong = int((row == 1).sum()), int((row == 0).sum())
        assert decided.counts[place] == right * wrong


def test_training_learns_and_gives_the_same_numbers_for_the_same_seed() -> None:
    material = battles.material()
    _, vectors = battles.embedded("static", tuple(material.prompts))
    folds = material.folds(20, 0)
    first, second = (fit_mf.factorize(material, vectors, folds, SETTINGS, no_progress) for _ in range(2))
    np.testing.assert_array_equal(first.projection, second.projection)
    np.testing.assert_array_equal(first.models, second.models)
    # Stronger models win more on average, in the order of the Bradley-Terry fit.
    mean = first.strengths(vectors).mean(axis=0)
    assert np.corrcoef(mean, material.ratings)[0, 1] > 0.9


@pytest.mark.parametrize("encoder", ["static", "minilm"])
def test_an_export_serves_the_numbers_of_training_for_every_model(encoder: EncoderName, tmp_path: Path) -> None:
    material = battles.material()
    embedding, vectors = battles.embedded(encoder, tuple(material.prompts))
    factors = fit_mf.factorize(material, vectors, material.folds(20, 0), SETTINGS, no_progress)
    strengths = [rows.astype(np.float64) for rows in material.split(factors.strengths(vectors))]
    curves = pair_curves.fit(strengths, material.matrices, material.models, material.pair)
    router = MatrixFactorizationRouter(embedding, factors, curves, material.models, *material.pair)
    provenance = many_models.provenance(material, SETTINGS, curves, strengths)
    written = export.write(router, provenance, tmp_path / "mf")
    battles.assert_served(router, written)
    assert written.manifest.models == material.models
    assert material.pair in written.manifest.calibrated_pairs
    assert material.pair[::-1] in written.manifest.calibrated_pairs
