"""The shipped artefact is whole, small, and served with the numbers that training gave it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tokenizers import Tokenizer

from scorer_service import artifact
from scorer_service.preprocess import Preprocessor
from scorer_service.scorer import OnnxScorer
from training import golden, surface
from training.corpus import STRONG_MODEL, WEAK_MODEL

DEFAULT = Path(artifact.__file__).parent / "artifacts" / "default"


@pytest.fixture(scope="module")
def shipped() -> artifact.ScorerArtifact:
    return artifact.load(DEFAULT)


@pytest.fixture(scope="module")
def scorer(shipped: artifact.ScorerArtifact) -> OnnxScorer:
    return OnnxScorer(shipped, threads=1)


def test_the_directory_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in DEFAULT.iterdir()) <= 8 * 2**20


def test_every_file_has_the_hash_that_the_manifest_states(shipped: artifact.ScorerArtifact) -> None:
    for name in artifact.HASHED_FILES:
        assert artifact.sha256_of(DEFAULT / name) == shipped.manifest.files[name]


def test_the_manifest_names_the_pair_the_data_and_the_quantiles(shipped: artifact.ScorerArtifact) -> None:
    manifest = shipped.manifest
    assert (manifest.strong_model, manifest.weak_model) == (STRONG_MODEL, WEAK_MODEL)
    assert manifest.calibrated_pairs == {(STRONG_MODEL, WEAK_MODEL)}
    assert len(manifest.score_quantiles) == 201
    assert list(manifest.score_quantiles) == sorted(manifest.score_quantiles)
    assert all(len(source["sha256"]) == 64 and source["licence"] for source in manifest.data.values())


def test_golden_rows_are_our_own_conversations_in_order(shipped: artifact.ScorerArtifact) -> None:
    assert [row.turns for row in shipped.golden_rows()] == golden.conversations()
    assert len(golden.conversations()) == 64


def test_token_ids_come_out_of_the_serving_preprocessor(shipped: artifact.ScorerArtifact) -> None:
    preprocessor = Preprocessor(Tokenizer.from_file(str(shipped.tokenizer_path)), shipped.manifest.preprocess)
    for row in shipped.golden_rows():
        encoded = preprocessor.encode(row.turns)
        assert (encoded.input_ids, encoded.truncated) == (row.input_ids, row.truncated)


def test_the_longest_golden_row_is_read_far_beyond_an_encoder_window(shipped: artifact.ScorerArtifact) -> None:
    longest = max(shipped.golden_rows(), key=lambda row: len(row.input_ids))
    assert len(longest.input_ids) == 8192
    assert longest.truncated


def test_serving_gives_the_probabilities_of_training(shipped: artifact.ScorerArtifact, scorer: OnnxScorer) -> None:
    """The golden probabilities were computed in numpy by the trainer; here they come from ONNX Runtime."""
    rows = shipped.golden_rows()
    preprocessor = Preprocessor(Tokenizer.from_file(str(shipped.tokenizer_path)), shipped.manifest.preprocess)
    served = scorer.score([preprocessor.encode(row.turns) for row in rows])
    np.testing.assert_allclose(served, [row.win_probability for row in rows], rtol=0, atol=1e-5)


def test_a_score_is_the_same_alone_and_in_a_batch(shipped: artifact.ScorerArtifact, scorer: OnnxScorer) -> None:
    preprocessor = Preprocessor(Tokenizer.from_file(str(shipped.tokenizer_path)), shipped.manifest.preprocess)
    encoded = [preprocessor.encode(row.turns) for row in shipped.golden_rows()]
    alone = np.concatenate([scorer.score([row]) for row in encoded])
    np.testing.assert_allclose(scorer.score(encoded), alone, rtol=0, atol=1e-6)


def test_the_graph_holds_the_surface_attributes_of_this_source_tree(shipped: artifact.ScorerArtifact) -> None:
    """A changed word list must not leave an artefact behind that was trained with the old one."""
    vocabulary = json.loads(shipped.tokenizer_path.read_text(encoding="utf-8"))["model"]["vocab"]
    table = surface.attribute_table(sorted(vocabulary, key=vocabulary.__getitem__))
    constants = {tensor.name: tensor for tensor in onnx.load(shipped.model_path).graph.initializer}
    (held,) = [tensor for name, tensor in constants.items() if name.startswith("attributes")]
    np.testing.assert_array_equal(numpy_helper.to_array(held), table)
