"""What RouteLLM reports (arXiv 2406.18665v4, tables 1 to 3), to stand beside what is measured here.

The paper evaluates on whole benchmarks, whose prompts and labels are those of the files here as far as these go; a
sample of them has its own sampling error, which the intervals show.
"""

from dataclasses import dataclass
from typing import Final

SOURCE: Final = "RouteLLM, arXiv 2406.18665v4, tables 1-3"

_ARENA = "65k battles"
_GOLD = f"{_ARENA} + 1,500 MMLU labels"
_JUDGE = f"{_ARENA} + ~109k judged"


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A router of the paper on one benchmark; shares are in [0, 1]."""

    router: str
    labels: str
    """What it was trained on."""
    cpt50: float
    cpt80: float
    apgr: float


RESULTS: Final[dict[str, tuple[PublishedRow, ...]]] = {
    "mmlu": (
        PublishedRow("SW ranking", _GOLD, 0.3540, 0.7155, 0.603),
        PublishedRow("Causal LLM (8B)", _GOLD, 0.3549, 0.7031, 0.600),
        PublishedRow("Matrix factorization", _GOLD, 0.3546, 0.7140, 0.597),
        PublishedRow("BERT", _GOLD, 0.4130, 0.7220, 0.572),
        PublishedRow("Matrix factorization", _ARENA, 0.4500, 0.7686, 0.524),
    ),
    "gsm8k": (
        PublishedRow("Causal LLM (8B)", _JUDGE, 0.3364, 0.6326, 0.622),
        PublishedRow("SW ranking", _JUDGE, 0.4121, 0.7220, 0.568),
        PublishedRow("Matrix factorization", _JUDGE, 0.3882, 0.7262, 0.565),
        PublishedRow("BERT", _JUDGE, 0.4476, 0.7909, 0.531),
        PublishedRow("SW ranking", _ARENA, 0.5443, 0.8211, 0.475),
    ),
    "mt_bench": (
        PublishedRow("Matrix factorization", _JUDGE, 0.1340, 0.3131, 0.802),
        PublishedRow("SW ranking", _JUDGE, 0.2321, 0.3604, 0.759),
        PublishedRow("BERT", _JUDGE, 0.1958, 0.3402, 0.751),
        PublishedRow("Causal LLM (8B)", _JUDGE, 0.3150, 0.4875, 0.679),
        PublishedRow("SW ranking", _ARENA, 0.3785, 0.5899, 0.610),
    ),
}
"""By benchmark: the rows with augmented training data, best first, and the best one without."""


def rows(benchmark: str) -> tuple[PublishedRow, ...]:
    """The paper's rows for a benchmark of this name, such as `mmlu` or `mmlu_dev`; none for others."""
    name = benchmark.lower().replace("-", "_")
    if name.startswith("mmlu_pro"):  # other questions
        return ()
    return next((found for key, found in RESULTS.items() if name == key or name.startswith(key + "_")), ())
