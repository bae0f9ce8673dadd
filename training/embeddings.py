"""One vector per prompt for the routers that compare prompts: in numpy for training, as graph nodes for serving.

Two encoders: MiniLM's sentence embedding, and the static features, which cost microseconds. Both give unit vectors,
so that a product of two of them is their cosine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service.preprocess import Passage, Preprocessor, PreprocessSpec
from training import encoder, minilm, surface, word_vectors
from training.encoder import Progress, PromptEncoder
from training.onnx_graph import GraphBuilder
from training.routers import static
from training.routers.static import StaticFeatures
from training.token_rows import TokenRows

Floats = NDArray[np.float32]
EncoderName = Literal["minilm", "static"]

_DIMENSIONS = 32
"""Columns of the static encoder's word-vector table, as in the shipped static router."""


class Embedding(Protocol):
    """Token ids to unit vectors."""

    @property
    def name(self) -> EncoderName: ...

    @property
    def preprocess(self) -> PreprocessSpec: ...

    @property
    def tokenizer_json(self) -> str: ...

    def __call__(self, rows: Sequence[Sequence[int]]) -> Floats:
        """[prompts, width] for prompts given as token ids."""
        ...

    def add(self, graph: GraphBuilder, input_ids: str, attention_mask: str) -> str:
        """The same as graph nodes: float32 [batch, width]."""
        ...


@dataclass(frozen=True, slots=True)
class MiniLmEmbedding:
    """all-MiniLM-L6-v2 as sentence-transformers defines it: the final layer's token mean."""

    model: minilm.MiniLm
    session: Any = field(init=False)

    name: EncoderName = field(default="minilm", init=False)
    preprocess = encoder.PREPROCESS

    def __post_init__(self) -> None:
        graph = GraphBuilder()
        ids, mask = (graph.input(name, ["batch", "tokens"]) for name in ("input_ids", "attention_mask"))
        built = graph.build({"embedding": (self.add(graph, ids, mask), ["batch", minilm.WIDTH])}, "embedding")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(built.SerializeToString(), options, providers=["CPUExecutionProvider"])
        object.__setattr__(self, "session", session)

    @property
    def tokenizer_json(self) -> str:
        return self.model.tokenizer_json

    def __call__(self, rows: Sequence[Sequence[int]]) -> Floats:
        ids = [np.array([row], np.int64) for row in rows]
        return np.concatenate(
            [self.session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})[0] for row in ids]
        )

    def add(self, graph: GraphBuilder, input_ids: str, attention_mask: str) -> str:
        [final] = minilm.add_encoder(graph, self.model, input_ids, attention_mask, [minilm.LAYERS])
        return _add_unit(graph, minilm.add_mean_pool(graph, final, attention_mask))


@dataclass(frozen=True, slots=True)
class StaticEmbedding:
    """The static router's features, of unit length."""

    tokenizer_json: str
    features: StaticFeatures

    name: EncoderName = field(default="static", init=False)
    preprocess = static.PREPROCESS

    def __call__(self, rows: Sequence[Sequence[int]]) -> Floats:
        vectors = self.features(TokenRows.of(rows))
        unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def add(self, graph: GraphBuilder, input_ids: str, attention_mask: str) -> str:
        return _add_unit(graph, self.features.add(graph, input_ids, attention_mask))


def embed(
    name: EncoderName, prompts: Sequence[str], *, cache: Path | None = encoder.DEFAULT_CACHE, progress: Progress | None
) -> tuple[Embedding, Floats]:
    """An encoder, and what it makes of these prompts: [prompts, width].

    Args:
        name: which encoder. MiniLM is fixed; the static one takes its word weights, directions and scales from the
            prompts.
        prompts: training's prompts.
        cache: of MiniLM's encodings.
        progress: told how far MiniLM has come.

    Raises:
        EncoderMissingError: the weights are not there.
    """
    model = minilm.load()
    if name == "minilm":
        return MiniLmEmbedding(model), PromptEncoder(cache, progress=progress).encode(prompts)
    preprocessor = Preprocessor(Tokenizer.from_str(model.tokenizer_json), static.PREPROCESS)
    passages = [Passage(prompt, cut=False) for prompt in prompts]
    rows = [encoded.input_ids for encoded in preprocessor.encode_passages(passages)]
    documents = TokenRows.of(rows)
    vectors = word_vectors.build(model.word_embeddings, documents, dimensions=_DIMENSIONS, control=minilm.CONTROL_IDS)
    features = StaticFeatures.fit(surface.attribute_table(model.vocabulary), vectors, documents)
    made = StaticEmbedding(model.tokenizer_json, features)
    return made, made(rows)


def _add_unit(graph: GraphBuilder, vectors: str) -> str:
    return graph.op("Div", vectors, graph.op("ReduceL2", vectors, graph.ints([1]), keepdims=1))
