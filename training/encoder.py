"""Prompts -> MiniLM features, each prompt encoded once in its life.

A prompt is encoded alone and on one thread, so that its numbers depend neither on its neighbours nor on how many
cores there are: training twice gives the same artefact.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scorer_service.preprocess import Preprocessor, PreprocessSpec, Role, Turn
from training import minilm
from training.onnx_graph import GraphBuilder

CACHED_LAYERS = (2, 3, 4, 5, 6)
"""Hidden states whose token means are kept: the middle ones carry difficulty, the last is the sentence embedding."""

PREPROCESS = PreprocessSpec(max_tokens=256, truncation_side="right", pad_id=minilm.PAD, add_special_tokens=True)
"""The window is the one that the encoder's authors trained with; the rest of a prompt is not read."""

DEFAULT_CACHE = Path(".cache/encoded")

_REVISION = 1
"""Raise when the numbers of an encoding change, so that old cache files are not read."""

Progress = Callable[[int, int], None]
"""Called with (done, total) while prompts are encoded."""


class PromptEncoder:
    """Token means of MiniLM's hidden states, cached in one SQLite file per encoder.

    Not thread-safe. Raises `minilm.EncoderMissingError` when the encoder's package is not there.
    """

    def __init__(self, cache: Path | None = DEFAULT_CACHE, *, progress: Progress | None = None) -> None:
        """
        Args:
            cache: folder of the cache; None keeps nothing.
            progress: told now and then how far a long encoding has come.
        """
        self._model = minilm.load()
        self._preprocessor = Preprocessor(Tokenizer.from_str(self._model.tokenizer_json), PREPROCESS)
        self._progress = progress
        self._session: onnxruntime.InferenceSession | None = None
        self._store = None if cache is None else _open_store(cache, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Sha256 over everything that decides an encoding: weights, tokenizer, window, layers, revision."""
        # The window is written out: fields of the spec that it does not use leave a cache as it is.
        window = (
            f"PreprocessSpec(max_tokens={PREPROCESS.max_tokens}, truncation_side={PREPROCESS.truncation_side!r}, "
            f"pad_id={PREPROCESS.pad_id}, add_special_tokens={PREPROCESS.add_special_tokens}, "
            f"version={PREPROCESS.version})"
        )
        parts = f"{minilm.WEIGHTS_SHA256!r}, {minilm.TOKENIZER_SHA256!r}, {window}, {CACHED_LAYERS!r}, {_REVISION!r}"
        return hashlib.sha256(f"({parts})".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Sentence embeddings, as sentence-transformers defines them: final-layer token mean, unit norm. [n, 384]."""
        final = self.layers(texts, (minilm.LAYERS,))[:, 0]
        unit: NDArray[np.float32] = final / np.linalg.norm(final, axis=1, keepdims=True)
        return unit

    def layers(self, texts: Sequence[str], layers: Sequence[int]) -> NDArray[np.float32]:
        """Token means of hidden states. [n, len(layers), 384].

        Raises:
            ValueError: a layer that is not kept (see `CACHED_LAYERS`), or a prompt without text (`NoUserText`).
        """
        columns = [CACHED_LAYERS.index(layer) for layer in layers]
        states = np.empty((len(texts), len(CACHED_LAYERS), minilm.WIDTH), np.float32)
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        missing: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            found = self._read(key)
            if found is None:
                missing.setdefault(key, []).append(row)
            else:
                states[row] = found
        self._encode_missing(texts, missing, states)
        return states[:, columns]

    def _encode_missing(
        self, texts: Sequence[str], missing: dict[bytes, list[int]], states: NDArray[np.float32]
    ) -> None:
        rows = list(missing.items())
        if rows and self._session is None:
            self._session = _session(self._model)
        # Blocks bound the work that an interruption loses.
        for start in range(0, len(rows), 256):
            block = rows[start : start + 256]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                encoded = list(pool.map(self._run, [texts[places[0]] for _, places in block]))
            for (_, places), state in zip(block, encoded, strict=True):
                states[places] = state
            if self._store is not None:
                self._store.executemany(
                    "INSERT OR REPLACE INTO encoded VALUES (?, ?)",
                    [(key, state.tobytes()) for (key, _), state in zip(block, encoded, strict=True)],
                )
                self._store.commit()
            if self._progress is not None:
                self._progress(start + len(block), len(rows))

    def _run(self, text: str) -> NDArray[np.float32]:
        assert self._session is not None
        ids = np.array([self._preprocessor.encode([Turn(Role.USER, text)]).input_ids], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        states: NDArray[np.float32] = self._session.run(None, feed)[0][0]
        return states

    def _read(self, key: bytes) -> NDArray[np.float32] | None:
        if self._store is None:
            return None
        row = self._store.execute("SELECT states FROM encoded WHERE prompt = ?", (key,)).fetchone()
        return None if row is None else np.frombuffer(row[0], np.float32).reshape(len(CACHED_LAYERS), minilm.WIDTH)


def _open_store(folder: Path, fingerprint: str) -> sqlite3.Connection:
    folder.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(folder / f"minilm-{fingerprint[:16]}.sqlite")
    store.execute("CREATE TABLE IF NOT EXISTS encoded (prompt BLOB PRIMARY KEY, states BLOB NOT NULL)")
    return store


def _session(model: minilm.MiniLm) -> onnxruntime.InferenceSession:
    """A graph that returns the token means of every cached layer: [batch, layers, 384]."""
    graph = GraphBuilder()
    ids = graph.input("input_ids", ["batch", "tokens"])
    mask = graph.input("attention_mask", ["batch", "tokens"])
    pools = [
        graph.op("Unsqueeze", minilm.add_mean_pool(graph, hidden, mask), graph.ints([1]))
        for hidden in minilm.add_encoder(graph, model, ids, mask, CACHED_LAYERS)
    ]
    states = graph.op("Concat", *pools, axis=1)
    built = graph.build({"states": (states, ["batch", len(CACHED_LAYERS), minilm.WIDTH])}, "minilm_layers")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(built.SerializeToString(), options, providers=["CPUExecutionProvider"])
