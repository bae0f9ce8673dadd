"""Tiny but real artefacts: a word-level tokenizer and a graph that really depends on every token.

The win probability is σ(scale · mean over tokens of weight[id]); a graph of many models has one weight per token and
model, and σ of the difference of two of them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from scorer_service import artifact as artifacts
from scorer_service.artifact import Manifest, ScorerArtifact
from scorer_service.golden import GoldenRow
from scorer_service.preprocess import Encoded, Preprocessor, PreprocessSpec, Role, Turn
from scorer_service.scorer import OnnxScorer

WORDS = ("prove", "that", "the", "sum", "of", "two", "odd", "numbers", "is", "even", "hello", "there", "what", "code")
VOCABULARY = {word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
STRONG, MIDDLE, WEAK = "strong-model", "middle-model", "weak-model"
SPEC = PreprocessSpec(max_tokens=32, truncation_side="right", pad_id=0, add_special_tokens=True)
Array = npt.NDArray[Any]
GOLDEN_TEXTS = (
    "hello",
    "Prove that the sum of two odd numbers is even.",
    "日本語 ♞ ∑",
    "what is the code\n\tthere?",
    "even " * 200,
)


def tokenizer() -> Tokenizer:
    """Splits on words and punctuation, lower case, framed as [CLS] … [SEP]."""
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return made


def write(
    directory: Path,
    *,
    seed: int = 0,
    spec: PreprocessSpec = SPEC,
    many: bool = False,
    masked: bool = True,
    work: int = 0,
    golden_copies: int = 1,
) -> Path:
    """Write an artefact and return `directory`.

    Args:
        directory: made if it is not there.
        seed: of the weights.
        spec: of the preprocessing.
        many: a graph of three models instead of one pair.
        masked: false lets padding into the mean, so that a score depends on its neighbours.
        work: extra matrix products per run, about 0.1 ms each, for tests that need a slow scorer.
        golden_copies: repeats the golden rows, for tests that need a slow start.
    """
    directory.mkdir(parents=True, exist_ok=True)
    known = (STRONG, MIDDLE, WEAK) if many else (STRONG, WEAK)
    onnx.save(_graph(seed=seed, models=len(known), many=many, masked=masked, work=work), directory / artifacts.MODEL)
    tokenizer().save(str(directory / artifacts.TOKENIZER))
    (directory / artifacts.GOLDEN).write_text("")
    manifest = Manifest(
        router_kind="mf" if many else "static",
        strong_model=STRONG,
        weak_model=WEAK,
        models=known,
        preprocess=spec,
        score_quantiles=tuple(np.linspace(0.2, 0.8, 201).tolist()),
        calibrated_pairs=frozenset({(STRONG, WEAK)}),
        files={},
        data={},
        training={"seed": seed},
        metrics={},
    )
    sealed = seal(directory, manifest)
    onnx_scorer = OnnxScorer(sealed, threads=1)
    rows = [_golden(text, onnx_scorer, Preprocessor(tokenizer(), spec)) for text in GOLDEN_TEXTS] * golden_copies
    (directory / artifacts.GOLDEN).write_text("".join(row.to_json() + "\n" for row in rows), encoding="utf-8")
    seal(directory, manifest)
    return directory


def seal(directory: Path, manifest: Manifest) -> ScorerArtifact:
    """Write `manifest` with the hashes of the files as they are now."""
    files = {name: artifacts.sha256_of(directory / name) for name in artifacts.HASHED_FILES}
    manifest = dataclasses.replace(manifest, files=files)
    content = manifest.to_json().encode()
    (directory / artifacts.MANIFEST).write_bytes(content)
    return ScorerArtifact(directory=directory, version=artifacts.version_of(content), manifest=manifest)


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply `change` to the JSON of `manifest.json`, whatever comes of it."""
    path = directory / artifacts.MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_file(directory: Path, name: str, change: Callable[[str], str]) -> None:
    """Change a text file and make the manifest's hash agree with it."""
    path = directory / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(directory, lambda document: document["files"].update({name: digest}))


def user(*texts: str) -> tuple[Turn, ...]:
    """A conversation of user turns."""
    return tuple(Turn(Role.USER, text) for text in texts)


def _golden(text: str, scorer: OnnxScorer, preprocessor: Preprocessor) -> GoldenRow:
    encoded: Encoded = preprocessor.encode(user(text))
    return GoldenRow(
        turns=user(text),
        input_ids=encoded.input_ids,
        truncated=encoded.truncated,
        win_probability=float(scorer.score([encoded])[0]),
    )


def _graph(*, seed: int, models: int, many: bool, masked: bool, work: int) -> onnx.ModelProto:
    """σ of the difference between the strong and the weak column of the mean token weights."""
    generator = np.random.default_rng(seed)
    weights = generator.normal(scale=2.0, size=(len(VOCABULARY), models)).astype(np.float32)
    weights[VOCABULARY["[PAD]"]] = 5.0  # Padding that leaks into a score must be seen.
    constants: dict[str, Array] = {
        "weights": weights,
        "token_axis": np.array([1], dtype=np.int64),
        "last_axis": np.array([2], dtype=np.int64),
        "first": np.array([0], dtype=np.int64),
        "last": np.array([models - 1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["token_weights"]),
        *_mean(masked),
        *_slow(work, constants),
    ]
    inputs = ["input_ids", "attention_mask"]
    if many:
        # [batch] indices -> [batch, 1], the column of each row.
        inputs += ["strong_model", "weak_model"]
        for side in ("strong", "weak"):
            nodes.append(helper.make_node("Unsqueeze", [f"{side}_model", "token_axis"], [f"{side}_column"]))
            nodes.append(helper.make_node("GatherElements", ["strength", f"{side}_column"], [side], axis=1))
        nodes.append(helper.make_node("Sub", ["strength", "strong"], ["ahead_of_strong"]))
        nodes.append(helper.make_node("Sigmoid", ["ahead_of_strong"], ["wins_over_strong"]))
    else:
        nodes.append(helper.make_node("Gather", ["strength", "first"], ["strong"], axis=1))
        nodes.append(helper.make_node("Gather", ["strength", "last"], ["weak"], axis=1))
    nodes.append(helper.make_node("Sub", ["strong", "weak"], ["difference"]))
    nodes.append(helper.make_node("Sigmoid", ["difference"], ["column"]))
    nodes.append(helper.make_node("Squeeze", ["column", "token_axis"], ["win_probability"]))
    outputs = [helper.make_tensor_value_info("win_probability", TensorProto.FLOAT, ["batch"])]
    if many:
        outputs.append(helper.make_tensor_value_info("wins_over_strong", TensorProto.FLOAT, ("batch", models)))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64, ["batch", "tokens"] if "model" not in name else ["batch"]
            )
            for name in inputs
        ],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _mean(masked: bool) -> Sequence[onnx.NodeProto]:
    """[batch, tokens, models] -> `mean` [batch, models], over the tokens that the mask keeps or over all."""
    if not masked:
        return [helper.make_node("ReduceMean", ["token_weights", "token_axis"], ["mean"], keepdims=0)]
    return [
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last_axis"], ["mask_column"]),
        helper.make_node("Mul", ["token_weights", "mask_column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "token_axis"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "token_axis"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
    ]


def _slow(work: int, constants: dict[str, Array]) -> Sequence[onnx.NodeProto]:
    """`mean` -> `strength`, the same numbers after `work` products of a 192×192 matrix with itself."""
    if not work:
        return [helper.make_node("Identity", ["mean"], ["strength"])]
    constants["identity"] = np.eye(192, dtype=np.float32)
    constants["trips"] = np.array(work, dtype=np.int64)
    constants["zero"] = np.array(0.0, dtype=np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["condition"], ["again"]),
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("condition", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [192, 192]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("product", TensorProto.FLOAT, [192, 192]),
        ],
    )
    return [
        # Depends on the input, so that it is not folded away when the graph is loaded.
        helper.make_node("ReduceSum", ["mean"], ["anything"], keepdims=0),
        helper.make_node("Mul", ["anything", "zero"], ["nothing"]),
        helper.make_node("Add", ["identity", "nothing"], ["start"]),
        helper.make_node("Loop", ["trips", "", "start"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end"], ["one"], keepdims=0),
        helper.make_node("Mul", ["mean", "one"], ["strength"]),
    ]
