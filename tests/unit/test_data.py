"""Every data format is read from a file as people have it, and what cannot be read is named with its line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from google.protobuf import json_format

from pointsman.dispatcher.v1.chat_pb2 import Role
from pointsman.dispatcher.v1.decision_pb2 import (
    Decision,
    DecisionRecord,
    FeedbackRecord,
    Preference,
    RecordedMessage,
    Tier,
)
from tests import shared_data
from training import data
from training.data import Battles, Format, Grades
from training.matrices import AnswerMatrix
from training.tables import DataError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return written


ARENA = """id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie
30192,gpt-4,llama,"[""Is it right,\\nto lie?"",""And why?""]","[""a\nb""]","[""c""]",1,0,0
53567,koala,gpt-4,"[""Was \\u00e9 hier?""]","[""x""]","[""y""]",0,0,1
65089,gpt-4,llama,"[""half of one: \\ud83d""]","[""x""]","[""y""]",0,1,0
"""


def test_arena_battles_have_the_first_turn_as_prompt_and_a_tie_as_half(write: Write) -> None:
    read = data.read(write("train.csv", ARENA))
    assert read.format is Format.ARENA
    assert isinstance(read.content, Battles)
    assert read.content.prompts == ("Is it right,\nto lie?", "Was é hier?", "half of one: \ufffd")
    assert read.content.model_a == ("gpt-4", "koala", "gpt-4")
    np.testing.assert_array_equal(read.content.score_a, [1, 0.5, 0])
    assert read.models() == ("gpt-4", "koala", "llama")
    assert read.bad_rows == ""
    assert read.source.rows == 3


def test_arena_as_parquet_is_the_same(write: Write, tmp_path: Path) -> None:
    from_csv = data.read(write("a.csv", ARENA)).content
    frame = pl.DataFrame(
        {
            "prompt": ['["Is it right,\\nto lie?", "And why?"]', '["Was é hier?"]', '["half of one: \\ud83d"]'],
            "model_a": ["gpt-4", "koala", "gpt-4"],
            "model_b": ["llama", "gpt-4", "llama"],
            "winner_model_a": [1, 0, 0],
            "winner_model_b": [0, 0, 1],
            "winner_tie": [0, 1, 0],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    from_parquet = data.read(tmp_path / "a.parquet").content
    assert isinstance(from_csv, Battles)
    assert isinstance(from_parquet, Battles)
    assert from_csv.prompts == from_parquet.prompts
    np.testing.assert_array_equal(from_csv.score_a, from_parquet.score_a)


def test_bad_rows_are_named_with_the_line_on_which_they_begin_and_the_reason(write: Write) -> None:
    """Fields that span lines move everything after them: the fourth record begins on line 6."""
    bad = ARENA + '1,a,a,"[""x""]",r,r,1,0,0\n2,a,b,oops,r,r,1,0,0\n3,a,b,"[""x""]",r,r,1,1,0\n4,a\n'
    with pytest.raises(DataError) as raised:
        data.read(write("bad.csv", bad))
    message = str(raised.value)
    assert "4 of 7 rows cannot be used" in message
    for expected in (
        "line 6: model_a is model_b",
        "line 7: prompt is no JSON list of texts",
        "line 8: not exactly one of the winner columns is 1",
        "line 9: has 2 fields, and the header 9",
    ):
        assert expected in message
    assert "--max-bad-share" in message
    read = data.read(write("bad.csv", bad), max_bad_share=0.6)
    assert len(read.content.prompts) == 3
    assert "4 of 7 rows" in read.bad_rows


def test_generic_battles_name_the_winner_in_any_of_the_usual_ways(write: Write) -> None:
    rows = ["q1,A,B,a", "q2,A,B,model_b", "q3,A,B,B", "q4,A,B,tie (bothbad)", "q5,A,B, TIE "]
    content = data.read(write("b.csv", "prompt,model_a,model_b,winner\n" + "\n".join(rows))).content
    assert isinstance(content, Battles)
    np.testing.assert_array_equal(content.score_a, [1, 0, 0, 0.5, 0.5])
    with pytest.raises(DataError, match="line 2: winner is C, not a, b, tie"):
        data.read(write("b.csv", "prompt,model_a,model_b,winner\nq,A,B,C\n"))


def test_battles_become_labels_of_a_pair_from_either_side(write: Write) -> None:
    text = "prompt,model_a,model_b,winner\nq1,S,W,a\nq2,W,S,a\nq3,W,S,tie\nq4,S,other,a\n"
    read = data.read(write("b.csv", text))
    labelled = read.pair("S", "W")
    assert labelled.prompts == ("q1", "q2", "q3")
    np.testing.assert_array_equal(labelled.labels, [1, 0, 0.5])
    with pytest.raises(DataError, match="name the pair with --strong-model and --weak-model"):
        read.pair()
    with pytest.raises(DataError, match="no model 'X': it has S, W, other"):
        read.pair("X", "W")


@pytest.mark.parametrize("column", ["mixtral_score", "weak_grade"])
def test_grades_below_four_are_the_strong_models_wins_and_the_rest_ties(write: Write, column: str) -> None:
    rows = [{"prompt": f"q{grade}", "source": ["x"], column: grade} for grade in (1, 3, 4, 5)]
    read = data.read(write("g.jsonl", "\n".join(map(json.dumps, rows))))
    assert isinstance(read.content, Grades)
    np.testing.assert_array_equal(read.content.grades, [1, 3, 4, 5])
    np.testing.assert_array_equal(read.pair().labels, [1, 1, 0.5, 0.5])
    with pytest.raises(DataError, match=f"line 1: {column} is 6, not 1 to 5"):
        data.read(write("g.jsonl", json.dumps({"prompt": "q", column: 6})))


def test_a_matrix_keeps_missing_labels_missing_and_appends_options(write: Write) -> None:
    text = "prompt,choices,correct/S,correct/W,cost_usd/S\nq1,A. x,1,0,0.1\nq2,,,1,0.1\nq3,,0,0,0.1\n"
    read = data.read(write("m.csv", text))
    assert read.format is Format.MATRIX
    assert isinstance(read.content, AnswerMatrix)
    assert read.content.models == ("S", "W")
    assert read.content.prompts[0] == "q1\nA. x"
    np.testing.assert_array_equal(read.content.quality, [[1, 0], [np.nan, 1], [0, 0]])
    assert len(read.pair("S", "W").prompts) == 2
    with pytest.raises(DataError, match="line 2: correct/S is no number"):
        data.read(write("m.csv", "prompt,correct/S,correct/W\nq,yes,1\n"))


def test_an_answer_without_a_parsed_choice_is_missing(tmp_path: Path) -> None:
    frame = {"prompt": ["q1", "q2"], "correct/S": [1.0, 0.0], "correct/W": [0.0, 0.0], "parsed/S": [True, False]}
    pl.DataFrame(frame).write_parquet(tmp_path / "m.parquet")
    content = data.read(tmp_path / "m.parquet").content
    assert isinstance(content, AnswerMatrix)
    np.testing.assert_array_equal(content.quality, [[1, 0], [np.nan, 0]])


def test_columns_of_numbers_are_a_matrix_only_if_one_says_so(write: Write) -> None:
    path = write("m.csv", "prompt,S,W,note\nq1,1,0,x\nq2,0.5,0,y\n")
    with pytest.raises(DataError, match="no known format's: rename them"):
        data.read(path)
    assert data.read(path, Format.MATRIX).models() == ("S", "W")


def test_one_rating_per_row_becomes_a_matrix(write: Write) -> None:
    text = "prompt,model,score\nq1,S,8\nq1,W,6\nq2,S,5\n"
    read = data.read(write("r.csv", text))
    assert read.format is Format.RATINGS
    assert isinstance(read.content, AnswerMatrix)
    np.testing.assert_array_equal(read.content.quality, [[8, 6], [5, np.nan]])


def test_a_pair_file_needs_no_names_and_takes_lists_of_scores(write: Write) -> None:
    rows = [{"turns": ["first", "second"], "strong_scores": [9, 7], "weak_scores": [8, 8]}]
    labelled = data.read(write("p.jsonl", json.dumps(rows[0]))).pair("any", "names")
    assert labelled.prompts == ("first",)
    np.testing.assert_array_equal(labelled.gain, [0.0])


def test_lines_that_are_no_json_are_counted(write: Write) -> None:
    good = [json.dumps({"prompt": f"q{i}", "strong_score": 1, "weak_score": 0}) for i in range(8)]
    path = write("p.jsonl", "\n".join([*good, '{"prompt": "cut', "7", ""]))
    read = data.read(path, max_bad_share=0.2)
    assert "2 of 10 rows" in read.bad_rows
    assert "line 9: is no JSON; line 10: is no JSON object" in read.bad_rows


def test_errors_name_the_file_and_the_mend(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        data.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"no \.csv, \.parquet or \.jsonl file"):
        data.read(write("x.xlsx", ""))
    with pytest.raises(DataError, match="cannot be read as parquet"):
        data.read(write("x.parquet", "no parquet"))
    with pytest.raises(DataError, match="is no arena file: it lacks the columns model_a"):
        data.read(write("x.csv", "prompt,winner\nq,a\n"), Format.ARENA)
    with pytest.raises(DataError, match="has no rows"):
        data.read(write("x.csv", "prompt,strong_score,weak_score\n"))


def test_prompts_come_from_text_lines_or_from_any_files_prompt_column(write: Write) -> None:
    assert data.read_prompts(write("p.txt", "one\n\n  \ntwo\n")) == ["one", "two"]
    assert data.read_prompts(write("p.csv", "id,prompt\n1,one\n2,two\n")) == ["one", "two"]
    assert data.read_prompts(write("a.csv", ARENA))[1] == "Was é hier?"
    with pytest.raises(DataError, match="no column prompt: it has id"):
        data.read_prompts(write("p.csv", "id\n1\n"))


@shared_data.needed
def test_every_shared_file_is_read_whole() -> None:
    expected = {
        "eval/mmlu_dev.parquet": (Format.PAIR, 6990),
        "eval/gsm8k_dev.parquet": (Format.PAIR, 660),
        "eval/mt_bench_dev.jsonl": (Format.PAIR, 38),
        "train/arena_hard.parquet": (Format.RATINGS, 299),
        "train/mmlu_pro.parquet": (Format.MATRIX, 5220),
        "train/llmrouter.parquet": (Format.MATRIX, 4630),
        "train/pareto.parquet": (Format.MATRIX, 4848),
    }
    for name, (format_, prompts) in expected.items():
        read = data.read(shared_data.FOLDER / name)
        assert (read.format, len(read.content.prompts), read.bad_rows) == (format_, prompts, "")


def decision(prompt: str | None, tier: "Tier.ValueType", **feedback: Any) -> str:
    """A line as the dispatcher exports it; the same definition, so that neither side can drift alone."""
    record = DecisionRecord(request_id="r", decision=Decision(tier=tier, model="m"))
    if prompt is not None:
        said = [(Role.ROLE_SYSTEM, "be brief"), (Role.ROLE_USER, prompt), (Role.ROLE_ASSISTANT, "yes")]
        record.text.messages.extend(RecordedMessage(role=role, text=text) for role, text in said)
    if feedback:
        record.feedback.CopyFrom(FeedbackRecord(**feedback))
    return json_format.MessageToJson(record, preserving_proto_field_name=True, indent=None)


def test_preferences_in_the_decision_log_compare_the_tiers(write: Write) -> None:
    lines = [
        decision("q1", Tier.TIER_STRONG, preference=Preference.PREFERENCE_CHOSEN),
        decision("q2", Tier.TIER_WEAK, preference=Preference.PREFERENCE_CHOSEN),
        decision("q3", Tier.TIER_WEAK, preference=Preference.PREFERENCE_OTHER),
        decision("q4", Tier.TIER_STRONG, preference=Preference.PREFERENCE_TIE),
        decision("no feedback", Tier.TIER_STRONG),
        decision(None, Tier.TIER_STRONG, rating=1.0),
    ]
    read = data.read(write("decisions.jsonl", "\n".join(lines)))
    assert read.format is Format.DECISIONS
    labelled = read.pair()
    assert labelled.prompts == ("q1", "q2", "q3", "q4")
    np.testing.assert_array_equal(labelled.labels, [1, 0, 1, 0.5])


def test_a_rating_makes_a_pair_only_where_both_tiers_were_rated_on_a_prompt(write: Write) -> None:
    lines = [
        decision("q1", Tier.TIER_STRONG, rating=1.0),
        decision("q1", Tier.TIER_WEAK, rating=0.0),
        decision("q1", Tier.TIER_WEAK, rating=0.5),
        decision("q2", Tier.TIER_WEAK, rating=0.0),
    ]
    read = data.read(write("decisions.jsonl", "\n".join(lines)))
    assert isinstance(read.content, AnswerMatrix)
    np.testing.assert_array_equal(read.content.quality, [[1, 0.25], [np.nan, 0]])
    assert read.pair().prompts == ("q1",)


def test_decisions_for_models_between_the_ends_are_passed_over(write: Write) -> None:
    middle = decision("q2", Tier.TIER_MIDDLE, preference=Preference.PREFERENCE_CHOSEN)
    lines = [decision("q1", Tier.TIER_WEAK, preference=Preference.PREFERENCE_CHOSEN), middle]
    read = data.read(write("decisions.jsonl", "\n".join(lines)))
    assert read.pair().prompts == ("q1",)
    assert read.bad_rows == ""
    with pytest.raises(DataError, match="all 1 records with text and feedback are of models between"):
        data.read(write("decisions.jsonl", middle))


def test_a_decision_log_without_texts_says_what_is_missing(write: Write) -> None:
    with pytest.raises(DataError, match="none of 1 records has both text and feedback: keep texts"):
        data.read(write("decisions.jsonl", decision(None, Tier.TIER_WEAK)))
    with pytest.raises(DataError, match=r"line 1: the rating is not in \[0, 1\]"):
        data.read(write("decisions.jsonl", decision("q", Tier.TIER_WEAK, rating=7.0)))
