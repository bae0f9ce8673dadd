"""The `kernel` and `static` heads: numpy and graph agree, a batch changes nothing, a fit recovers what it should."""

from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
from onnx import TensorProto

from training import adapt, difficulty, minilm, surface, word_vectors
from training.adapt import AdaptError
from training.corpus import STRONG_MODEL, WEAK_MODEL
from training.export import Provenance, write
from training.machine_fit import Design
from training.onnx_graph import GraphBuilder
from training.routers import difficulty_kernel, kernel, static
from training.routers.difficulty_kernel import DifficultyKernel, Doubles, Floats
from training.routers.kernel import KernelFeatures, KernelRouter
from training.routers.static import StaticFeatures, StaticRouter
from training.token_rows import TokenRows
from training.views import tokens

RNG = np.random.default_rng(0)
WIDTH, FORM, HEADS = 12, 4, 5


def head(features: Floats, *, extra: bool = True, form: int = FORM) -> DifficultyKernel:
    """Two gated experts and, unless told otherwise, one that always counts, on these features."""
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(features.shape[1], HEADS)).astype(np.float32)
    bias = np.zeros(HEADS, np.float32)
    machines = []
    for seed in range(3 if extra else 2):
        rows = np.arange(len(features))
        design = Design.of(features, features @ weights + bias, rows, landmarks=16, seed=seed)
        machines.append(design.machine(*design.fit(rows, generator.normal(size=len(rows)), 3.0)))
    gate = generator.normal(size=(form, 2)).astype(np.float32)
    return DifficultyKernel(weights, bias, gate, np.zeros(2, np.float32), tuple(machines), 2.0, 0.1)


def session(head_: DifficultyKernel, width: int) -> onnxruntime.InferenceSession:
    graph = GraphBuilder()
    features = graph.input("features", ["batch", width], TensorProto.FLOAT)
    built = graph.build({"win_probability": (head_.add(graph, features), ["batch"])}, "head")
    return onnxruntime.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("extra", [True, False])
def test_the_graph_gives_the_probabilities_of_numpy_alone_and_in_a_batch(extra: bool) -> None:
    features = RNG.normal(size=(40, WIDTH)).astype(np.float32)
    made = head(features, extra=extra)
    run = session(made, WIDTH)
    [together] = run.run(None, {"features": features})
    alone = np.concatenate([run.run(None, {"features": features[[row]]})[0] for row in range(len(features))])
    np.testing.assert_allclose(together, made(features), rtol=0, atol=1e-6)
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_a_calibrator_that_falls_is_refused() -> None:
    made = head(RNG.normal(size=(20, WIDTH)).astype(np.float32))
    with pytest.raises(ValueError, match="slope is not positive"):
        DifficultyKernel(made.heads, made.heads_bias, made.gate, made.gate_bias, made.machines, -1.0, 0.0)


def test_with_every_prompt_a_landmark_the_fit_is_kernel_ridge_regression() -> None:
    """(K + λ·1)⁻¹(y − mean) is what K(KK + λK)⁻¹K(y − mean) comes to, up to the small stabiliser."""
    features = RNG.normal(size=(30, WIDTH)).astype(np.float32)
    targets = RNG.normal(size=30)
    design = Design.of(features, features[:, :HEADS], np.arange(30), landmarks=30, seed=0)
    weights, bias = design.fit(np.arange(30), targets, 2.0)
    exact = design.kernel @ np.linalg.solve(design.between + 2.0 * np.eye(30), (targets - targets.mean()))
    # The design's columns are in the landmarks' order, which is the prompts' own here.
    np.testing.assert_allclose(design.scores(weights, bias) - bias, exact, atol=1e-2)


def test_ridge_finds_a_line_in_tall_and_in_wide_inputs() -> None:
    line = RNG.normal(size=(60, 1))
    for rows in (200, 40):
        inputs = RNG.normal(size=(rows, 60))
        weights, bias = difficulty.ridge(inputs, inputs @ line + 3.0)
        np.testing.assert_allclose(inputs @ weights + bias, inputs @ line + 3.0, atol=0.1)


def test_values_within_tasks_lose_the_tasks_means() -> None:
    np.testing.assert_allclose(
        difficulty.within(np.array([1.0, 3.0, 10.0, 14.0]), ["a", "a", "b", "b"]), [-1, 1, -2, 2]
    )


# --- whole routers on prompts of our own -------------------------------------------------------------------------


def prompts(count: int) -> list[str]:
    """Sums of few or many numbers: the strong model is better on those of medium length."""
    generator = np.random.default_rng(2)
    return [
        f"Question {row}: "
        + " plus ".join(str(number) for number in generator.integers(1, 99, size=1 + row % 30))
        + " ?"
        for row in range(count)
    ]


def qualities(count: int) -> tuple[Doubles, Doubles]:
    length = 1 + np.arange(count) % 30
    return (length < 22).astype(np.float64), (length < 8).astype(np.float64)


def static_router(texts: list[str]) -> StaticRouter:
    model = minilm.load()
    rows = tokens(model, texts)
    vectors = word_vectors.build(model.word_embeddings, rows, dimensions=8, control=minilm.CONTROL_IDS)
    features = StaticFeatures.fit(surface.attribute_table(model.vocabulary), vectors, rows)
    return StaticRouter(model.tokenizer_json, features, head(features(rows), form=len(features.surface.mean)))


def provenance() -> Provenance:
    return Provenance(
        strong_model=STRONG_MODEL,
        weak_model=WEAK_MODEL,
        score_quantiles=list(np.linspace(0.0, 1.0, 201)),
        data={},
        training={},
        metrics={},
    )


def test_kernel_with_its_encoder_in_the_graph_serves_what_numpy_says() -> None:
    """On a short row, one that just fills the encoder's window, and one beyond it; padded together and alone."""
    model, texts = minilm.load(), prompts(24)
    rows = tokens(model, texts)
    states = RNG.normal(size=(len(texts), len(kernel.LAYERS), minilm.WIDTH)).astype(np.float32)
    features = KernelFeatures.fit(surface.attribute_table(model.vocabulary), rows, states)
    router = KernelRouter(model, features, head(features(rows, states), form=len(features.surface.mean)))
    ids = [[minilm.CLS, *RNG.integers(1996, 9000, size=size), minilm.SEP] for size in (3, 254, 400)]
    padded = np.zeros((3, 402), np.int64)
    for place, row in enumerate(ids):
        padded[place, : len(row)] = row
    run = onnxruntime.InferenceSession(router.onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    [together] = run.run(None, {"input_ids": padded, "attention_mask": (padded > 0).astype(np.int64)})
    [alone] = run.run(None, {"input_ids": padded[:1, :5], "attention_mask": np.ones((1, 5), np.int64)})
    np.testing.assert_allclose(together, router.win_probability(ids), rtol=0, atol=1e-5)
    np.testing.assert_allclose(alone, together[:1], rtol=0, atol=1e-6)


def test_a_static_router_comes_back_out_of_its_artefact(tmp_path: Path) -> None:
    router = static_router(prompts(40))
    again = static.read(write(router, provenance(), tmp_path / "static"))
    rows = TokenRows.of([[101, 2054, 2003, 1016, 102], [101, 102]])
    np.testing.assert_allclose(again.head(again.features(rows)), router.head(router.features(rows)), atol=1e-6)
    with pytest.raises(KeyError):
        difficulty_kernel.read({})


def labels(path: Path, count: int) -> Path:
    strong, weak = qualities(count)
    pl.DataFrame({"prompt": prompts(count), "strong_correct": strong, "weak_correct": weak}).write_parquet(path)
    return path


def test_adapting_learns_traffic_that_the_old_artefact_knows_nothing_of(tmp_path: Path) -> None:
    write(static_router(prompts(40)), provenance(), tmp_path / "old")
    file = labels(tmp_path / "own.parquet", 300)
    adapted = adapt.adapt(tmp_path / "old", file, None, tmp_path / "new")
    assert adapted.after["apgr"]["value"] > adapted.before["apgr"]["value"] + 0.1
    assert adapted.after["brier_skill"]["low"] > 0.0
    again = adapt.adapt(tmp_path / "old", file, None, tmp_path / "again")
    golden = [[row.win_probability for row in made.artifact.golden_rows()] for made in (adapted, again)]
    np.testing.assert_allclose(golden[0], golden[1], rtol=0, atol=1e-6)


def test_too_few_labels_are_refused_with_their_number(tmp_path: Path) -> None:
    write(static_router(prompts(40)), provenance(), tmp_path / "old")
    with pytest.raises(AdaptError, match="has 60 prompts"):
        adapt.adapt(tmp_path / "old", labels(tmp_path / "own.parquet", 60), None, tmp_path / "new")
