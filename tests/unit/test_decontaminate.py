"""Contaminated rows are found by letters and by meaning, and nothing else is."""

import numpy as np
from numpy.typing import NDArray

from training import decontaminate
from training.decontaminate import Match
from training.encoder import PromptEncoder

EVALUATION = ["What is the capital of Kazakhstan?", "Why is the sky blue?", "???"]


def test_case_spaces_and_punctuation_do_not_hide_a_prompt() -> None:
    training = ["what is the  capital of kazakhstan", "Name a river.", "!!!", "Why is the sky BLUE ?"]
    assert decontaminate.find(training, EVALUATION, None) == [Match(0, 0, None), Match(3, 1, None)]


def test_letters_of_every_script_count() -> None:
    assert decontaminate.normalised("Где  поезд?") == "гдепоезд"
    assert decontaminate.find(["где поезд"], ["Где поезд?"], None) == [Match(0, 0, None)]


def test_a_cosine_at_the_threshold_counts() -> None:
    vectors = {"a": [1.0, 0.0], "b": [0.95, np.sqrt(1 - 0.95**2)], "c": [0.9, np.sqrt(1 - 0.9**2)], "far": [0.0, 1.0]}

    def encode(texts: list[str]) -> NDArray[np.float32]:
        return 7.0 * np.array([vectors[text] for text in texts], np.float32)  # of any length

    found = decontaminate.find(["b", "c", "far", "a"], ["a"], encode, near=0.9499999)  # type: ignore[arg-type]
    assert [(match.row, match.evaluation) for match in found] == [(0, 0), (3, 0)]
    assert found[1].cosine is None


def test_the_encoder_finds_a_paraphrase_and_spares_a_neighbour() -> None:
    encode = PromptEncoder(cache=None).encode
    training = ["Please tell me what the capital of Kazakhstan is.", "What is the largest lake of Kazakhstan?"]
    [match] = decontaminate.find(training, EVALUATION, encode, near=0.9)
    assert (match.row, match.evaluation) == (0, 0)
