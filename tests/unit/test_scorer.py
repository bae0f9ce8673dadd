"""The served path: direct numbers, batch invariance, golden replay."""

from itertools import permutations
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from scorer_service import artifact as artifacts
from scorer_service.artifact import ArtifactError, load
from scorer_service.onnx_session import ENCODER_STRETCH, STATIC_STRETCH
from scorer_service.onnx_session import runs as padded_little
from scorer_service.preprocess import Encoded, pad
from scorer_service.scorer import OnnxScorer, open_scorer
from tests.artifacts import MIDDLE, STRONG, VOCABULARY, WEAK, edit_file, edit_manifest, user, write


def _inputs(seed: int, count: int, longest: int = 32) -> list[Encoded]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, size=count)
    return [Encoded(tuple(generator.integers(1, len(VOCABULARY), size=n).tolist()), truncated=False) for n in lengths]


def test_a_score_is_what_the_graph_gives(tmp_path: Path) -> None:
    scorer = OnnxScorer(load(write(tmp_path)), threads=1)
    session = onnxruntime.InferenceSession(str(tmp_path / artifacts.MODEL), providers=["CPUExecutionProvider"])
    for encoded in _inputs(seed=1, count=10):
        ids = np.array([encoded.input_ids], dtype=np.int64)
        [direct] = session.run(["win_probability"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        assert scorer.score([encoded])[0] == pytest.approx(direct[0], abs=1e-7)


def test_a_score_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    scorer = OnnxScorer(load(write(tmp_path)), threads=2)
    inputs = _inputs(seed=2, count=200)
    alone = np.concatenate([scorer.score([encoded]) for encoded in inputs])
    assert np.ptp(alone) > 0.3  # else there would be nothing to mix up
    np.testing.assert_allclose(scorer.score(inputs), alone, atol=1e-6, rtol=0)
    np.testing.assert_allclose(scorer.score(inputs[::-1]), alone[::-1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("stretch", [ENCODER_STRETCH, STATIC_STRETCH])
def test_runs_keep_padding_and_size_bounded(stretch: float) -> None:
    lengths = np.random.default_rng(3).integers(1, 5000, size=300).tolist()
    runs = list(padded_little(lengths, stretch=stretch))
    assert sorted(row for run in runs for row in run) == list(range(300))
    for run in runs:
        taken = [lengths[row] for row in run]
        assert max(taken) <= stretch * min(taken)
        assert max(taken) * len(taken) <= 8_192
    assert list(padded_little([])) == []


def test_an_input_longer_than_a_run_allows_runs_alone() -> None:
    assert list(padded_little([9_000, 9_000])) == [[0], [1]]


def test_many_models_score_any_pair(tmp_path: Path) -> None:
    scorer = OnnxScorer(load(write(tmp_path, many=True)), threads=1)
    [encoded] = _inputs(seed=4, count=1)
    pairs = list(permutations((STRONG, MIDDLE, WEAK), 2))
    scores = dict(zip(pairs, scorer.score([encoded] * len(pairs), pairs), strict=True))
    for strong, weak in pairs:
        assert scores[strong, weak] + scores[weak, strong] == pytest.approx(1, abs=1e-6)
    assert scorer.score([encoded])[0] == scores[STRONG, WEAK]
    by_model = scorer.score_models([encoded] * 2, [(STRONG, WEAK), (MIDDLE, STRONG)]).model_win_probabilities
    assert by_model is not None
    over_strong = [0.5, scores[MIDDLE, STRONG], scores[WEAK, STRONG]]
    over_middle = [scores[STRONG, MIDDLE], 0.5, scores[WEAK, MIDDLE]]
    np.testing.assert_allclose(by_model, [over_strong, over_middle], atol=1e-6)


def test_a_graph_of_one_pair_scores_it_whatever_is_asked(tmp_path: Path) -> None:
    scorer = OnnxScorer(load(write(tmp_path)), threads=1)
    inputs = _inputs(seed=5, count=2)
    asked = scorer.score_models(inputs, [("a", "b"), ("c", "d")])
    np.testing.assert_array_equal(asked.win_probability, scorer.score(inputs))
    assert asked.model_win_probabilities is None


def test_golden_rows_are_replayed_at_open(tmp_path: Path) -> None:
    scorer = open_scorer(write(tmp_path), threads=1)
    assert 0 <= scorer.golden_deviation <= 1e-6
    passage = scorer.preprocessor.passage(user("hello"))
    scored = scorer.score([passage])
    golden = scorer.artifact.golden_rows()[0]
    assert scored.scores.win_probability[0] == pytest.approx(golden.win_probability, abs=1e-6)
    assert scored.encoded[0].input_ids == golden.input_ids
    assert scored.tokenization_seconds > 0
    assert scored.inference_seconds > 0


def _refusal(directory: Path) -> str:
    with pytest.raises(ArtifactError) as raised:
        open_scorer(directory, threads=1)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_golden_probability_that_moved_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    golden = load(tmp_path).golden_rows()[1].win_probability
    edit_file(tmp_path, artifacts.GOLDEN, lambda text: text.replace(repr(golden), repr(golden + 3e-4)))
    assert "golden.jsonl line 2: win probability" in _refusal(tmp_path)


def test_a_graph_that_lets_padding_in_is_refused(tmp_path: Path) -> None:
    assert "in a batch" in _refusal(write(tmp_path, masked=False))


def test_a_tokenizer_that_gives_other_ids_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    edit_file(tmp_path, artifacts.TOKENIZER, lambda text: text.replace('"Lowercase"', '"NFC"'))
    assert "golden.jsonl line 2: the text becomes other token ids" in _refusal(tmp_path)


def test_a_tokenizer_that_does_not_parse_is_refused(tmp_path: Path) -> None:
    edit_file(write(tmp_path), artifacts.TOKENIZER, lambda _: "{}")
    assert "tokenizer.json cannot be used" in _refusal(tmp_path)


def test_a_graph_that_does_not_parse_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / artifacts.MODEL).write_bytes(b"no graph")
    digest = artifacts.sha256_of(tmp_path / artifacts.MODEL)
    edit_manifest(tmp_path, lambda document: document["files"].update({artifacts.MODEL: digest}))
    assert "model.onnx cannot be loaded" in _refusal(tmp_path)


def test_a_graph_with_other_outputs_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path) / artifacts.MODEL
    model = onnx.load(path)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "score"
    onnx.save(model, path)
    edit_manifest(tmp_path, lambda document: document["files"].update({artifacts.MODEL: artifacts.sha256_of(path)}))
    assert "gives ['score'], which is not the format's" in _refusal(tmp_path)


def test_models_that_the_graph_cannot_choose_between_are_refused(tmp_path: Path) -> None:
    edit_manifest(write(tmp_path), lambda document: document["models"].append(MIDDLE))
    assert "lists 3 models" in _refusal(tmp_path)


def test_a_value_that_is_no_probability_never_leaves_the_scorer(tmp_path: Path) -> None:
    path = write(tmp_path) / artifacts.MODEL
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Log"  # NaN for negative numbers
    onnx.save(model, path)
    scorer = OnnxScorer(load_unchecked(tmp_path), threads=1)
    with pytest.raises(ArithmeticError, match="outside"):
        scorer.score(_inputs(seed=6, count=20))


def load_unchecked(directory: Path) -> artifacts.ScorerArtifact:
    """The artefact although its graph's hash is another."""
    path = directory / artifacts.MODEL
    edit_manifest(directory, lambda document: document["files"].update({artifacts.MODEL: artifacts.sha256_of(path)}))
    return load(directory)


def test_padding_ids_do_not_reach_the_score(tmp_path: Path) -> None:
    scorer = OnnxScorer(load(write(tmp_path)), threads=1)
    short, long = Encoded((5,), truncated=False), Encoded((6,) * 30, truncated=False)
    ids, mask = pad([short, long], pad_id=0)
    session = onnxruntime.InferenceSession(str(tmp_path / artifacts.MODEL), providers=["CPUExecutionProvider"])
    [padded] = session.run(["win_probability"], {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(padded, scorer.score([short, long]), atol=1e-6)
