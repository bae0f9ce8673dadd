"""The gold-label protocols: train on a few hundred labels of a benchmark, measure on the rest of it, many times.

Rows are divided by a hash of their first 300 characters into a `tune` part, on which settings were chosen, and a
`report` part, on which they are measured: labels and test rows of a reported number are both of the `report` part.
Heads come from `train/` alone; word weights and scales have seen the benchmark's prompts too, but no label of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training import corpus, difficulty, metrics, minilm, views
from training.corpus import GROUP_CHARACTERS
from training.encoder import PromptEncoder
from training.errors import TrainingError
from training.experts import View
from training.machine_fit import PENALTIES, SMOOTH_PENALTIES, Design, Rows
from training.routers.difficulty_kernel import Doubles
from training.train import Progress

Part = Literal["tune", "report"]

PROTOCOLS: Mapping[str, tuple[str, int]] = {
    "mmlu-1500": ("mmlu", 1500),
    "gsm8k-200": ("gsm8k", 200),
    "gsm8k-500": ("gsm8k", 500),
}
"""Name -> labelled set and number of labels. Half of GSM8K's rows are too few for 500 labels: that protocol takes
both parts."""

_LANDMARKS = 1024


@dataclass(frozen=True, slots=True)
class Result:
    """A protocol's numbers.

    Attributes:
        labels: that each draw trains on.
        rows: that each draw is measured on, in the mean.
        methods: per method APGR, CPT50 and CPT80: means over draws.
        gains: per method its APGR less the plain ridge's: mean over draws, with the 95 % interval of a bootstrap over
            test rows within the draws.
    """

    labels: int
    rows: float
    methods: Mapping[str, Mapping[str, float]]
    gains: Mapping[str, metrics.Interval]

    def document(self) -> Mapping[str, Any]:
        """As JSON."""
        return {
            "labels": self.labels,
            "rows": self.rows,
            "methods": self.methods,
            "gain_over_ridge": {name: asdict(gain) for name, gain in self.gains.items()},
        }


def run(data: Path, protocol: str, *, part: Part, draws: int, seed: int, progress: Progress) -> Result:
    """Measure a protocol.

    Raises:
        TrainingError: data or encoder is missing, or the part has too few rows.
    """
    name, count = PROTOCOLS[protocol]
    material = views.read(data)
    _, kernel = views.kernel_view(material, progress)
    _, static = views.static_view(material, 32)
    start = 0
    for labelled in material.corpus.labelled:
        if labelled.name == name:
            break
        start += len(labelled.prompts)
    prompts = [prompt[:GROUP_CHARACTERS] for prompt in labelled.prompts]
    rows = np.arange(len(prompts)) if protocol == "gsm8k-500" else part_rows(prompts, part)
    if len(rows) < 1.2 * count:
        raise TrainingError(f"{protocol} needs more than {1.2 * count:.0f} rows, and part {part} has {len(rows)}")
    own = slice(start, start + len(prompts))
    unlabelled = np.arange(sum(len(each.prompts) for each in material.corpus.labelled), len(kernel.features))
    near = np.sort(np.random.default_rng(seed).permutation(unlabelled)[:4000])
    keep = np.concatenate([np.arange(own.start, own.stop), near])
    views_ = [View(view.features[keep], view.heads, view.form) for view in (kernel, static)]
    final = PromptEncoder().layers(labelled.prompts, [minilm.LAYERS])[:, 0].astype(np.float64)
    embeddings = final / np.linalg.norm(final, axis=1, keepdims=True)
    targets = 2.0 * labelled.labels - 1.0
    measured = []
    for draw in range(draws):
        seen, rest = draw_rows(prompts, rows, count, seed + draw)
        scores = _scores(views_, embeddings, targets, prompts, seen=seen, seed=seed + draw)
        scores["length"] = metrics.length_scores(labelled.prompts)
        on_rest = {method: values[rest] for method, values in scores.items()}
        measured.append(measure(on_rest, labelled.gain[rest], seed=seed + draw))
        progress(protocol, draw + 1, draws)
    return summarise(count, measured)


@dataclass(frozen=True, slots=True)
class Draw:
    """What one draw says.

    Attributes:
        rows: that it was measured on.
        numbers: per method APGR, CPT50 and CPT80.
        over_ridge: per method its APGR less the ridge's on each of the same bootstrap samples of the rows.
    """

    rows: int
    numbers: Mapping[str, tuple[float, float, float]]
    over_ridge: Mapping[str, Doubles]


def measure(scores: Mapping[str, Doubles], gain: Doubles, *, seed: int, samples: int = 200) -> Draw:
    """Measure every method on the same rows: `scores` and `gain` are of these, [rows]."""
    resampling = metrics.Resampling(len(gain), samples, seed)
    ridge = metrics.ranking_draws(scores["ridge"], gain, resampling).apgr
    numbers, over_ridge = {}, {}
    for method, values in scores.items():
        curve = metrics.pgr_curve(values, gain)
        numbers[method] = (curve.apgr(), curve.cpt(0.5), curve.cpt(0.8))
        over_ridge[method] = metrics.ranking_draws(values, gain, resampling).apgr - ridge
    return Draw(len(gain), numbers, over_ridge)


def summarise(labels: int, draws: Sequence[Draw]) -> Result:
    """Means over the draws, each of which trained on so many labels; samples of all draws make one interval."""
    names = list(draws[0].numbers)
    mean = {name: np.mean([draw.numbers[name] for draw in draws], axis=0) for name in names}
    methods = {
        name: dict(zip(("apgr", "cpt50", "cpt80"), map(float, values), strict=True)) for name, values in mean.items()
    }
    gains = {
        name: metrics.interval(
            methods[name]["apgr"] - methods["ridge"]["apgr"], np.concatenate([draw.over_ridge[name] for draw in draws])
        )
        for name in names
        if name != "ridge"
    }
    return Result(labels, float(np.mean([draw.rows for draw in draws])), methods, gains)


def _scores(
    sight: Sequence[View], embeddings: Doubles, targets: Doubles, groups: Sequence[str], *, seen: Rows, seed: int
) -> dict[str, Doubles]:
    """Scores of all rows of the set by routers that were fitted to `seen`; `sight` is what kernel and static see."""
    count = len(targets)
    teacher, student = (
        Design.of(view.features, view.profiles, seen, landmarks=_LANDMARKS, seed=seed) for view in sight
    )
    penalty = teacher.choose_penalty(seen, targets[seen], [groups[row] for row in seen], PENALTIES)
    taught = teacher.scores(*teacher.fit(seen, targets[seen], penalty))
    lessons = np.concatenate([seen, np.arange(count, len(taught))])
    own = [str(row) for row in lessons]
    penalty = student.choose_penalty(lessons, taught[lessons], own, SMOOTH_PENALTIES)
    repeated = student.scores(*student.fit(lessons, taught[lessons], penalty))
    weights, bias = difficulty.ridge(embeddings[seen], targets[seen, None])
    return {"kernel": taught[:count], "static": repeated[:count], "ridge": (embeddings @ weights + bias)[:, 0]}


def draw_rows(groups: Sequence[str], rows: Rows, count: int, seed: int) -> tuple[Rows, NDArray[np.int64]]:
    """Draw `count` rows to train on; the rest is what begins like none of these."""
    dealt = corpus.folds([groups[row] for row in rows], len(rows), seed)
    order = np.argsort(dealt, kind="stable")
    seen, rest = order[:count], order[count:]
    return rows[seen], rows[rest[~np.isin(dealt[rest], dealt[seen])]]


def part_rows(groups: Sequence[str], part: Part) -> Rows:
    """The rows of a part: which one a row is of depends on its group alone, not on the other rows."""
    odd = np.array([hashlib.sha256(group.encode()).digest()[1] % 2 for group in groups])
    return np.flatnonzero(odd == (part == "report"))
