"""`sw`: the fit inside the graph is the logistic regression over all battles that the paper solves per prompt."""

import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tests import battles, shared_data
from training import export, fit_sw, many_models, matrices, pair_curves, tiers
from training.corpus import STRONG_MODEL, WEAK_MODEL
from training.embeddings import EncoderName
from training.many_models import Material
from training.onnx_graph import GraphBuilder
from training.routers.similarity_ranking import Ranking, SimilarityRankingRouter, add_ranking, tier_pairs


def _ranking(material: Material, encoder: EncoderName = "static") -> Ranking:
    """With every battle at the same weight, as in the paper."""
    place = {model: index for index, model in enumerate(material.models)}
    tier = tiers.tiers(material.ratings)
    wins = [fit_sw.tier_wins(m, tier[[place[model] for model in m.models]], 10) for m in material.matrices]
    _, vectors = battles.embedded(encoder, tuple(material.prompts))
    return Ranking.of(vectors, np.concatenate(wins), tier)


def _battles(
    material: Material, ranking: Ranking
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Every battle one by one: +1 and −1 at its tiers, the first side's share of the win, its prompt."""
    tier = dict(zip(material.models, ranking.tiers, strict=True))
    rows, shares, prompts = [], [], []
    answered = [(matrix, quality) for matrix in material.matrices for quality in matrix.quality]
    for prompt, (matrix, quality) in enumerate(answered):
        for a, b in itertools.combinations(range(len(matrix.models)), 2):
            row = np.zeros(10)
            row[tier[matrix.models[a]]] += 1.0
            row[tier[matrix.models[b]]] -= 1.0
            if row.any() and not np.isnan(quality[a] - quality[b]):
                rows.append(row)
                shares.append(0.5 + 0.5 * np.sign(quality[a] - quality[b]))
                prompts.append(prompt)
    return np.array(rows), np.array(shares), np.array(prompts)


def test_the_graph_solves_the_logistic_regression_over_all_battles() -> None:
    material = battles.material()
    ranking = _ranking(material)
    asked = ranking.vectors[::200]
    graph = GraphBuilder()
    value = add_ranking(graph, ranking, graph.input("vectors", ["batch", asked.shape[1]], 1))
    model = graph.build({"strengths": (value, ["batch", 10])}, "ranking")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [served] = session.run(None, {"vectors": asked})
    stronger, weaker = tier_pairs(10).T
    rows, shares, prompts = _battles(material, ranking)
    assert len(rows) > 5_000
    for vector, strengths in zip(asked, served, strict=True):
        similar = ranking.vectors @ vector
        weights = (10.0 * 10.0 ** (similar / similar.max()))[prompts]
        # A tie is half a win for each side; the last tier stands at 0, since only differences matter.
        solver = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000, solver="newton-cholesky")
        both = np.concatenate([weights * shares, weights * (1.0 - shares)])
        solver.fit(np.tile(rows[:, :-1], (2, 1)), np.repeat([1, 0], len(rows)), both)
        direct = np.append(solver.coef_[0], 0.0)
        expected = 1.0 / (1.0 + np.exp(direct[weaker] - direct[stronger]))
        given = 1.0 / (1.0 + np.exp(strengths[weaker] - strengths[stronger]))
        np.testing.assert_allclose(given, expected, atol=1e-4, rtol=0)


def test_two_tiers_have_the_odds_of_their_weighted_wins() -> None:
    """One dimension, by hand: weights 10·10^1 and 10·10^0, so that 100 wins weigh against 10 losses."""
    vectors = np.eye(2, dtype=np.float32)
    wins = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], np.float32)
    ranking = Ranking.of(vectors, wins, np.array([0, 1]))
    [[strong, weak]] = ranking.strengths(vectors[:1])
    assert strong - weak == pytest.approx(np.log(10.0), abs=1e-4)
    [[strong, weak]] = ranking.strengths(vectors[1:])
    assert strong - weak == pytest.approx(-np.log(10.0), abs=1e-4)


def test_wins_are_counted_by_tier_and_ties_by_halves() -> None:
    matrix = matrices.AnswerMatrix("m", ("p",), ("a", "b", "c", "d"), np.array([[1.0, 1.0, 0.0, np.nan]]))
    # a and b share tier 0, c stands in tier 1, d, which has no label, in tier 2.
    counted = fit_sw.tier_wins(matrix, np.array([0, 0, 1, 2]), 3)
    assert tier_pairs(3).tolist() == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_array_equal(counted, [[[2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    tied = matrices.AnswerMatrix("m", ("p",), ("a", "c"), np.array([[0.5, 0.5]]))
    np.testing.assert_array_equal(fit_sw.tier_wins(tied, np.array([0, 1]), 2), [[[0.5, 0.5]]])


@pytest.mark.parametrize("encoder", ["static", "minilm"])
def test_an_export_serves_the_numbers_of_training_for_every_model(encoder: EncoderName, tmp_path: Path) -> None:
    material = battles.material()
    embedding, _ = battles.embedded(encoder, tuple(material.prompts))
    ranking = _ranking(material, encoder)
    strengths = material.split(ranking.strengths(ranking.vectors))
    curves = pair_curves.fit(strengths, material.matrices, material.models, material.pair)
    router = SimilarityRankingRouter(embedding, ranking, curves, material.models, *material.pair)
    provenance = many_models.provenance(material, fit_sw.Config(), curves, strengths)
    battles.assert_served(router, export.write(router, provenance, tmp_path / "sw"))


def test_a_small_ranking_keeps_every_labelled_prompt_and_gives_them_their_share() -> None:
    material = battles.material()
    config = fit_sw.Config(prompts=50, labelled_share=0.25)
    kept = fit_sw._kept(material, config)
    assert kept.sum() == 50 + 240
    assert kept[-240:].all()
    wins = fit_sw._weighted_wins(material, config, material.split(kept))
    assert wins[50:].sum() / wins.sum() == pytest.approx(0.25, abs=1e-4)
    assert fit_sw._kept(material, fit_sw.Config()).all()


@shared_data.needed
def test_the_shared_data_hold_far_more_than_fifty_thousand_battles() -> None:
    found = many_models.read(shared_data.FOLDER, None, (STRONG_MODEL, WEAK_MODEL))
    assert found.battles > 3_000_000
    assert len(found.models) == 98
    assert found.models.index(STRONG_MODEL) < found.models.index(WEAK_MODEL)
