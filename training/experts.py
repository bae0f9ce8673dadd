"""Fits the experts of a default artefact, their gate and their calibrator, and scores each prompt held out.

Each expert is a machine fitted to one form of traffic: exams, word problems, open-ended chat. One machine over all of
it would lose the smaller sets to the largest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from training import corpus, platt
from training.corpus import GROUP_CHARACTERS, LabelledSet
from training.difficulty import Heads
from training.machine_fit import PENALTIES, SMOOTH_PENALTIES, Design, Rows
from training.matrices import AnswerMatrix
from training.routers.difficulty_kernel import DifficultyKernel, Doubles, Floats, Machine

EXPERTS: Mapping[str, tuple[str, ...]] = {
    "exam": ("mmlu",),
    "word_problem": ("gsm8k",),
    "chat": ("arena_hard", "mt_bench"),
}
"""Expert -> the labelled sets that it learns from. A set of another name has an expert of its own."""

_NEIGHBOURHOOD = 0.6
"""Rating points around the weak model's mean within which other models stand in for it."""


@dataclass(frozen=True, slots=True)
class View:
    """What a kind of router sees of the prompts.

    Attributes:
        features: of the labelled prompts, set after set, then of the unlabelled ones, [prompts, width].
        heads: difficulty heads on these features.
        form: how many of the first columns tell a prompt's form; the gate reads those.
    """

    features: Floats
    heads: Heads
    form: int

    @property
    def profiles(self) -> Floats:
        """Difficulty profiles, [prompts, heads]."""
        profiles: Floats = self.features @ self.heads.weights + self.heads.bias
        return profiles


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert's scores of all prompts.

    Attributes:
        machine: fitted to all of its labels.
        scores: of that machine, [prompts].
        held_out: of the machine fitted without each fold, [folds, prompts].
    """

    machine: Machine
    scores: Doubles
    held_out: Doubles


@dataclass(frozen=True, slots=True)
class Labels:
    """The labelled prompts of all sets, set after set.

    Attributes:
        sets: the sets.
        targets: what experts are fitted to, about 2·label − 1, [labelled].
        folds: [labelled]; prompts that begin alike share a fold.
        fold_count: number of folds.
    """

    sets: tuple[LabelledSet, ...]
    targets: Doubles
    folds: Rows
    fold_count: int

    @classmethod
    def of(cls, sets: Sequence[LabelledSet], arena: AnswerMatrix, fold_count: int, seed: int) -> "Labels":
        """Deal folds and set targets; `arena` has the ratings of more models than the pair."""
        targets = [
            chat_targets(labelled, arena) if labelled.name in EXPERTS["chat"] else 2.0 * labelled.labels - 1.0
            for labelled in sets
        ]
        folds = np.concatenate([labelled.folds(fold_count, seed) for labelled in sets])
        return cls(tuple(sets), np.concatenate(targets), folds, fold_count)

    @property
    def labels(self) -> Doubles:
        """1, one half or 0, [labelled]."""
        return np.concatenate([labelled.labels for labelled in self.sets])

    @property
    def experts(self) -> list[tuple[str, ...]]:
        """The sets of each expert that has any labels: those of `EXPERTS` in order, then sets of other names."""
        known = {name for names in EXPERTS.values() for name in names}
        present = [labelled.name for labelled in self.sets]
        own = [(name,) for name in present if name not in known]
        return [names for names in EXPERTS.values() if set(present) & set(names)] + own

    @property
    def groups(self) -> list[str]:
        """What prompts of one group begin with, [labelled]."""
        return [prompt[:GROUP_CHARACTERS] for labelled in self.sets for prompt in labelled.prompts]

    def rows(self, names: Sequence[str]) -> Rows:
        """Where the prompts of these sets are."""
        member = np.concatenate([np.full(len(labelled.prompts), labelled.name in names) for labelled in self.sets])
        return np.flatnonzero(member)

    def weights(self, balance: float) -> Doubles:
        """How much a prompt counts where sets are mixed: a set of n prompts as n^(1 − balance); mean 1."""
        sizes = np.array([len(labelled.prompts) for labelled in self.sets])
        weights = np.repeat(sizes**-balance, sizes)
        balanced: Doubles = weights / weights.mean()
        return balanced


def chat_targets(labelled: LabelledSet, arena: AnswerMatrix) -> Doubles:
    """How badly models like the weak one fare on a prompt, scaled like the other sets' targets.

    A judge's rating of a single answer is mostly noise, and a strong model's ratings crowd at the top; the mean over
    the weak model and those of its level says more about where strength is needed than the pair's own difference.
    """
    rating = labelled.weak.copy()
    level = np.nanmean(arena.quality, axis=0)
    peers = np.abs(level - level[arena.models.index(corpus.WEAK_MODEL)]) <= _NEIGHBOURHOOD
    mean_rating = dict(zip(arena.prompts, np.nanmean(arena.quality[:, peers], axis=1), strict=True))
    rating = np.array([mean_rating.get(prompt, own) for prompt, own in zip(labelled.prompts, rating, strict=True)])
    need, outcome = rating.mean() - rating, 2.0 * labelled.labels - 1.0
    slope = max(float(need @ outcome / (need @ need)), 0.0)
    scaled: Doubles = outcome.mean() + slope * need
    return scaled


def teach(view: View, labels: Labels, *, landmarks: int, seed: int) -> tuple[Expert, ...]:
    """Experts that learn from the labels, in the order of `labels.experts`."""
    profiles = view.profiles
    return tuple(
        _teach_one(view.features, profiles, labels, labels.rows(names), landmarks=landmarks, seed=seed)
        for names in labels.experts
    )


def _teach_one(features: Floats, profiles: Floats, labels: Labels, rows: Rows, *, landmarks: int, seed: int) -> Expert:
    design = Design.of(features, profiles, rows, landmarks=landmarks, seed=seed)
    groups = labels.groups
    penalty = design.choose_penalty(rows, labels.targets[rows], [groups[row] for row in rows], PENALTIES)

    def scores(kept: Rows) -> Doubles:
        return design.scores(*design.fit(kept, labels.targets[kept], penalty))

    held_out = np.stack([scores(rows[labels.folds[rows] != fold]) for fold in range(labels.fold_count)])
    weights, bias = design.fit(rows, labels.targets[rows], penalty)
    return Expert(design.machine(weights, bias), design.scores(weights, bias), held_out)


def distil(
    view: View, teachers: Sequence[Expert], labels: Labels, home: Rows, *, landmarks: int, seed: int
) -> tuple[Expert, ...]:
    """Experts that repeat the teachers' scores on labelled and unlabelled prompts.

    Args:
        view: what the students see; its prompts are those of the teachers.
        teachers: whom to repeat. A fold's student learns from the teacher that has not seen the fold.
        labels: the labelled prompts.
        home: the expert that each prompt is for, [prompts].
        landmarks: of each student, at most.
        seed: of their choice.
    """
    profiles = view.profiles
    students = []
    for number, (names, teacher) in enumerate(zip(labels.experts, teachers, strict=True)):
        labelled = labels.rows(names)
        unlabelled = np.flatnonzero(home == number)
        unlabelled = unlabelled[unlabelled >= len(labels.targets)]
        rows = np.concatenate([labelled, unlabelled])
        design = Design.of(view.features, profiles, rows, landmarks=landmarks, seed=seed)
        own = [str(row) for row in rows]
        penalty = design.choose_penalty(rows, teacher.scores[rows], own, SMOOTH_PENALTIES)
        held_out = []
        for fold, scores in enumerate(teacher.held_out):
            kept = np.concatenate([labelled[labels.folds[labelled] != fold], unlabelled])
            held_out.append(design.scores(*design.fit(kept, scores[kept], penalty)))
        weights, bias = design.fit(rows, teacher.scores[rows], penalty)
        students.append(Expert(design.machine(weights, bias), design.scores(weights, bias), np.stack(held_out)))
    return tuple(students)


@dataclass(frozen=True, slots=True)
class Gate:
    """A softmax over experts, linear in a prompt's form: [columns, experts] and [experts]."""

    weights: Floats
    bias: Floats

    @classmethod
    def fit(cls, view: View, labels: Labels, strength: float = 0.1) -> "Gate":
        """Learn which expert's set a prompt is from; sets count alike, and `strength` is sklearn's C."""
        forms = view.features[: len(labels.targets), : view.form].astype(np.float64)
        member = np.zeros(len(forms), np.int64)
        for number, names in enumerate(labels.experts):
            member[labels.rows(names)] = number
        # Surface features have unit mean square together; the regression wants it of each.
        spread = np.sqrt(view.form)
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000, tol=1e-6).fit(
            forms * spread, member
        )
        return cls((model.coef_.T * spread).astype(np.float32), model.intercept_.astype(np.float32))

    def shares(self, view: View) -> Doubles:
        """[prompts, experts]."""
        logits = (view.features[:, : view.form] @ self.weights + self.bias).astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        normal: Doubles = shares / shares.sum(axis=1, keepdims=True)
        return normal


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, and the win probability of each labelled prompt by a head that has not seen it.

    Attributes:
        head: for the artefact.
        scores: held out, before calibration, [labelled].
        probabilities: held out, [labelled].
    """

    head: DifficultyKernel
    scores: Doubles
    probabilities: Doubles


def assemble(view: View, labels: Labels, gate: Gate, experts: Sequence[Expert], balance: float) -> Fitted:
    """Mix the experts and calibrate the mixture on its held-out scores.

    Raises:
        ExportError: the scores do not rise with the labels.
    """
    count = len(labels.targets)
    held_out = np.stack([expert.held_out[labels.folds, np.arange(count)] for expert in experts], axis=1)
    scores = (gate.shares(view)[:count] * held_out).sum(axis=1)
    slope, offset = platt.fit(scores, labels.labels, labels.weights(balance))
    head = DifficultyKernel(
        heads=view.heads.weights,
        heads_bias=view.heads.bias,
        gate=gate.weights,
        gate_bias=gate.bias,
        machines=tuple(expert.machine for expert in experts),
        slope=slope,
        offset=offset,
    )
    return Fitted(head, scores, platt.sigmoid(slope * scores + offset))
