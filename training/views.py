"""What the `kernel` and the `static` router see of a set of prompts: their features and difficulty heads on these."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from scorer_service.preprocess import Passage, Preprocessor
from training import corpus, difficulty, matrices, minilm, surface, word_vectors
from training import data as data_files
from training.corpus import Corpus
from training.encoder import PromptEncoder
from training.experts import Labels, View
from training.matrices import AnswerMatrix
from training.minilm import MiniLm
from training.routers import kernel, static
from training.routers.kernel import KernelFeatures
from training.routers.static import StaticFeatures
from training.token_rows import TokenRows
from training.train import Progress


@dataclass(frozen=True, slots=True)
class Material:
    """All data of a default artefact, read and tokenised.

    Attributes:
        corpus: labelled sets and sources.
        sets: the answer matrices that heads learn from; their prompts, one after the other, are the unlabelled ones.
        arena: ratings of chat answers. Its prompts are labelled ones, so that no head may learn from it.
        prompts: labelled, then unlabelled.
        rows: their token ids.
        model: the encoder, whose tokenizer and word embeddings both routers use.
    """

    corpus: Corpus
    sets: tuple[AnswerMatrix, ...]
    arena: AnswerMatrix
    prompts: tuple[str, ...]
    rows: TokenRows
    model: MiniLm

    def labels(self, folds: int, seed: int) -> Labels:
        """The labelled prompts with targets and folds."""
        return Labels.of(self.corpus.labelled, self.arena, folds, seed)


def read(data: Path, without: str = "", labels: Path | None = None) -> Material:
    """Read the data folder.

    Args:
        data: holds `train/`, and `eval/` unless there are `labels`.
        without: a labelled set to leave out, prompts and all.
        labels: a file or folder with labels of the pair, in place of `eval/`. A file is a labelled set by its name
            (`_dev` at the end does not count).

    Raises:
        CorpusError: a file is missing, or there is no such set.
        DataError: `labels` cannot be used.
        EncoderMissingError: the encoder is not there.
    """
    material = corpus.read(data) if labels is None else _with_labels(corpus.read(data, evaluation=False), labels)
    model = minilm.load()
    names = [labelled.name for labelled in material.labelled]
    if without and without not in names:
        raise corpus.CorpusError(f"there is no labelled set {without!r} to leave out: one of {', '.join(names)}")
    kept = tuple(labelled for labelled in material.labelled if labelled.name != without)
    material = dataclasses.replace(material, labelled=kept)
    *sets, arena = matrices.read_matrices(data)
    labelled = [prompt for labelled_set in material.labelled for prompt in labelled_set.prompts]
    prompts = (*labelled, *(prompt for matrix in sets for prompt in matrix.prompts))
    return Material(material, tuple(sets), arena, prompts, tokens(model, prompts), model)


def _with_labels(material: Corpus, path: Path) -> Corpus:
    files = data_files.read_labels(path)
    own = [
        dataclasses.replace(found.pair(corpus.STRONG_MODEL, corpus.WEAK_MODEL), name=found.name.removesuffix("_dev"))
        for found in files
    ]
    if twice := {labelled.name for labelled in material.labelled} & {labelled.name for labelled in own}:
        raise corpus.CorpusError(f"{path}: train/ has a labelled set {', '.join(twice)} already: rename the file")
    return dataclasses.replace(
        material,
        labelled=(*own, *material.labelled),
        sources=(*material.sources, *(found.source for found in files)),
    )


def tokens(model: MiniLm, prompts: Sequence[str]) -> TokenRows:
    """Token ids as serving makes them."""
    preprocessor = Preprocessor(Tokenizer.from_str(model.tokenizer_json), static.PREPROCESS)
    passages = [Passage(prompt, cut=False) for prompt in prompts]
    return TokenRows.of([encoded.input_ids for encoded in preprocessor.encode_passages(passages)])


def static_view(material: Material, dimensions: int) -> tuple[StaticFeatures, View]:
    """Word vectors and surface features of all prompts."""
    model, rows = material.model, material.rows
    vectors = word_vectors.build(model.word_embeddings, rows, dimensions=dimensions, control=minilm.CONTROL_IDS)
    features = StaticFeatures.fit(surface.attribute_table(model.vocabulary), vectors, rows)
    return features, _view(material, features(rows), len(features.surface.mean))


def kernel_view(material: Material, progress: Progress) -> tuple[KernelFeatures, View]:
    """MiniLM's middle layers and surface features of all prompts."""
    encoder = PromptEncoder(progress=lambda done, total: progress("encoding", done, total))
    states = encoder.layers(material.prompts, kernel.LAYERS)
    attributes = surface.attribute_table(material.model.vocabulary)
    features = KernelFeatures.fit(attributes, material.rows, states)
    return features, _view(material, features(material.rows, states), len(features.surface.mean))


def _view(material: Material, features: kernel.Floats, form: int) -> View:
    ends = np.cumsum([len(matrix.prompts) for matrix in material.sets])
    unlabelled = features[len(features) - ends[-1] :]
    parts = np.split(unlabelled, ends[:-1])
    return View(features, difficulty.fit(material.sets, parts), form)
