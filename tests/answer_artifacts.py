"""Tiny but real artefacts that judge answers: graphs that depend on every token of prompt and answers, and on marks.

An answer's strength is the mean of weight[id] over its tokens, plus that of the prompt's, plus marks · rate. Kind
`answer` gives σ(strength); kind `ranker` σ(first − second + bias), where answers that agree differ by a tenth only: the
bias prefers the first, so that averaging both orders is seen.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from scorer_service import artifact as artifacts
from scorer_service.artifact import Manifest, ScorerArtifact, Task
from scorer_service.golden import GoldenAnswer, GoldenRow
from scorer_service.judge import OUTPUT, SIDES, OnnxJudge
from scorer_service.marks import NAMES
from scorer_service.preprocess import AnswerPreprocessor, PreprocessSpec
from tests.artifacts import VOCABULARY, seal, tokenizer, user
from training.onnx_graph import GraphBuilder

SPEC = PreprocessSpec(
    max_tokens=16, truncation_side="right", pad_id=0, add_special_tokens=True, version=3, answer_tokens=24
)
GOLDEN = (
    ("what is the sum of two odd numbers?", "even", "the sum is odd"),
    ("hello", "hello there", "what"),
    ("what is 3 + 4?", "3 + 4 = 7", "3 + 4 = 8. The answer is 8"),
    ("prove that " * 40, "even " * 60, "code"),
    ("日本語", "♞ ∑", "odd"),
)
BIAS = 0.4
"""What a ranker adds for the first answer."""


def write_answer(directory: Path, *, seed: int = 0, spec: PreprocessSpec = SPEC) -> Path:
    """Write an artefact of kind `answer` and return `directory`."""
    return _write(directory, "answer", seed, spec)


def write_ranker(directory: Path, *, seed: int = 0, spec: PreprocessSpec = SPEC) -> Path:
    """Write an artefact of kind `ranker` and return `directory`."""
    return _write(directory, "ranker", seed, spec)


def _write(directory: Path, kind: str, seed: int, spec: PreprocessSpec) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        router_kind=kind,
        strong_model="",
        weak_model="",
        models=(),
        preprocess=spec,
        score_quantiles=tuple(np.linspace(0.1, 0.9, 201).tolist()),
        calibrated_pairs=frozenset(),
        files={},
        data={},
        training={"seed": seed},
        metrics={},
    )
    onnx.save(_graph(manifest.task, seed), directory / artifacts.MODEL)
    tokenizer().save(str(directory / artifacts.TOKENIZER))
    (directory / artifacts.GOLDEN).write_text("")
    rows = _golden(seal(directory, manifest), spec)
    (directory / artifacts.GOLDEN).write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    seal(directory, manifest)
    return directory


def _golden(sealed: ScorerArtifact, spec: PreprocessSpec) -> list[GoldenRow]:
    judge, preprocessor = OnnxJudge(sealed, threads=1), AnswerPreprocessor(tokenizer(), spec)
    rows = []
    for prompt, *answers in GOLDEN:
        texts = answers[: len(judge.sides)]
        [encoded] = preprocessor.encode([preprocessor.passages(user(prompt), texts)])
        golden = tuple(
            GoldenAnswer(
                text=text,
                input_ids=answer.encoded.input_ids,
                truncated=answer.encoded.truncated,
                marks=answer.marks.values,
                conclusion=answer.marks.conclusion,
            )
            for text, answer in zip(texts, encoded.answers, strict=True)
        )
        rows.append(
            GoldenRow(
                turns=user(prompt),
                input_ids=encoded.prompt.input_ids,
                truncated=encoded.prompt.truncated,
                win_probability=float(judge.together([encoded])[0]),
                answers=golden,
            )
        )
    return rows


def _graph(task: Task, seed: int) -> onnx.ModelProto:
    generator = np.random.default_rng(seed)
    weights = generator.normal(scale=2.0, size=(len(VOCABULARY), 1)).astype(np.float32)
    weights[VOCABULARY["[PAD]"]] = 5.0  # Padding that leaks into a score must be seen.
    rates = generator.normal(scale=0.2, size=(len(NAMES), 1)).astype(np.float32)
    graph = GraphBuilder()

    def mean(ids: str, mask: str) -> str:
        kept = graph.cast(graph.op("Unsqueeze", mask, graph.ints([2])))
        values = graph.op("Mul", graph.op("Gather", graph.floats(weights), ids), kept)
        sums, counts = (graph.op("ReduceSum", value, graph.ints([1]), keepdims=0) for value in (values, kept))
        return graph.op("Div", sums, counts)

    prompt = mean(graph.input("input_ids", ["batch", "tokens"]), graph.input("attention_mask", ["batch", "tokens"]))

    def strength(side: str) -> str:
        tokens = f"{side}_tokens"
        words = mean(graph.input(f"{side}_ids", ["batch", tokens]), graph.input(f"{side}_mask", ["batch", tokens]))
        marks = graph.input(f"{side}_marks", ["batch", len(NAMES)], TensorProto.FLOAT)
        return graph.op("Add", graph.op("Mul", words, prompt), graph.op("MatMul", marks, graph.floats(rates)))

    logits = [strength(side) for side in SIDES[task]]
    if task is Task.RANK_ANSWERS:
        conclusions = [graph.input(f"{side}_conclusion", ["batch"]) for side in SIDES[task]]
        alike = graph.op("Unsqueeze", graph.op("Equal", *conclusions), graph.ints([1]))
        rate = graph.op("Where", alike, graph.floats(0.1), graph.floats(1.0))
        logits = [graph.op("Add", graph.op("Mul", graph.op("Sub", *logits), rate), graph.floats(BIAS))]
    probability = graph.op("Squeeze", graph.op("Sigmoid", logits[0]), graph.ints([1]))
    return graph.build({OUTPUT[task]: (probability, ["batch"])}, "tiny")
