"""Rows with several answers: where their numbers may stand, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from mingshi.data.formats import read_rows
from mingshi.types import Answered, Reject


def one(row: dict[str, Any]) -> Answered | Reject:
    (outcome,) = read_rows([{"prompt": "Why?", **row}], format="answers", on_bad_row="skip")
    assert isinstance(outcome, Answered | Reject)
    return outcome


def numbers(row: dict[str, Any]) -> list[tuple[str, float]]:
    outcome = one(row)
    assert isinstance(outcome, Answered), outcome
    return [(answer.text, answer.score) for answer in outcome.answers]


@pytest.mark.parametrize(
    "row",
    [
        {"answers": ["a", "b"], "ranks": [1, 2]},
        {"answers": ["a", "b"], "scores": [-1, -2]},
        {"answers": '["a", "b"]', "scores": "[-1, -2]"},
        {"answers": [{"text": "a", "rank": 1}, {"text": "b", "rank": "2"}]},
        {"answers": [{"text": "a", "score": -1.0, "by": "anna"}, {"text": "b", "score": -2}]},
    ],
)
def test_a_rank_is_a_score_below_zero_wherever_it_stands(row: dict[str, Any]) -> None:
    assert numbers(row) == [("a", -1.0), ("b", -2.0)]


def test_who_wrote_an_answer_is_kept() -> None:
    outcome = one({"answers": [{"text": "a", "score": 1, "by": "anna"}, {"text": "b", "score": 2}]})
    assert isinstance(outcome, Answered) and [answer.by for answer in outcome.answers] == ["anna", ""]
    outcome = one({"answer": "a", "score": "0.5", "by": "model-1"})
    assert isinstance(outcome, Answered) and (outcome.answers[0].score, outcome.answers[0].by) == (0.5, "model-1")


@pytest.mark.parametrize(
    ("row", "reason", "says"),
    [
        ({"answers": ["a", "b"]}, "missing_field", "no 'scores' and no 'ranks'"),
        ({"answers": []}, "no_answer", "answers: an empty list"),
        ({"answers": ["a", "b"], "scores": [1]}, "wrong_length", "scores: 1 numbers for 2 answers"),
        ({"answers": ["a", "b"], "scores": [1, None]}, "wrong_type", "scores[1]: null, not a number"),
        ({"answers": ["a", "b"], "scores": [1, True]}, "wrong_type", "scores[1]: true or false"),
        ({"answers": ["a", "b"], "scores": [1, float("nan")]}, "not_finite", "scores[1]"),
        ({"answers": ["a", "b"], "ranks": [1, 10**400]}, "not_finite", "ranks[1]"),
        ({"answers": ["a", 5], "ranks": [1, 2]}, "wrong_type", "answers[1]"),
        ({"answers": [{"score": 1}, "b"]}, "missing_field", "answers[0]: no 'text'"),
        ({"answer": "a", "score": "good"}, "wrong_type", "score: text, not a number"),
        ({"prompt": " ", "answers": ["a", "b"], "ranks": [1, 2]}, "empty_prompt", "prompt"),
    ],
)
def test_a_bad_row_is_told_where_and_what(row: dict[str, Any], reason: str, says: str) -> None:
    outcome = one(row)
    assert isinstance(outcome, Reject) and outcome.reason == reason and says in outcome.detail, outcome
