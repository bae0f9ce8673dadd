"""Golden rows: conversations, and answers to them, with what a served artefact must make of them."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scorer_service.preprocess import Role, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenAnswer:
    """One answer of a golden row: its text, and the token ids and marks that preprocessing must make of it."""

    text: str
    input_ids: tuple[int, ...]
    truncated: bool
    marks: tuple[float, ...]
    conclusion: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRow:
    """One line of `golden.jsonl`: a conversation with what it must give for the artefact's own pair.

    Attributes:
        turns: the conversation.
        input_ids: its token ids.
        truncated: whether the window cut it.
        win_probability: of the pair; where answers are judged, the probability that the graph gives.
        answers: the answers that are judged; none where the artefact predicts.
    """

    turns: tuple[Turn, ...]
    input_ids: tuple[int, ...]
    truncated: bool
    win_probability: float
    answers: tuple[GoldenAnswer, ...] = ()

    def to_json(self) -> str:
        """The line, without its newline."""
        document = {
            "turns": [{"role": turn.role.value, "text": turn.text} for turn in self.turns],
            "input_ids": list(self.input_ids),
            "truncated": self.truncated,
            "win_probability": self.win_probability,
        }
        if self.answers:
            document["answers"] = [asdict(answer) for answer in self.answers]
        return json.dumps(document, ensure_ascii=False, allow_nan=False)


def parse_golden_row(document: Mapping[str, Any]) -> GoldenRow:
    """Read one line's JSON.

    Raises:
        ValueError, KeyError, TypeError: it is no golden row.
    """
    probability = float(document["win_probability"])
    if not math.isfinite(probability):
        raise ValueError("win_probability is not finite")
    return GoldenRow(
        turns=tuple(Turn(Role(turn["role"]), str(turn["text"])) for turn in document["turns"]),
        input_ids=tuple(map(int, document["input_ids"])),
        truncated=bool(document["truncated"]),
        win_probability=probability,
        answers=tuple(
            GoldenAnswer(
                text=str(answer["text"]),
                input_ids=tuple(map(int, answer["input_ids"])),
                truncated=bool(answer["truncated"]),
                marks=tuple(map(float, answer["marks"])),
                conclusion=int(answer["conclusion"]),
            )
            for answer in document.get("answers", ())
        ),
    )
