"""On texts without CJK characters our ROUGE is rouge-score's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from mingshi.evals.rouge import KINDS, rouge

REFERENCE = RougeScorer(list(KINDS))
LATIN = st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=40)
WORDS = st.lists(st.sampled_from(["the", "cat", "Cat's", "sat\n", "on", "a", "mat.", "café", "3.5"]), max_size=14)

PAIRS = [
    ("The quick brown fox jumps over the lazy dog.", "The quick brown dog jumps on the log."),
    ("Return the sum.\nRaise ValueError if empty.", "Raises an error if empty.\nReturns the sum of values."),
    ("def add(a, b): return a+b", "def add(x,y):\n    return x + y"),
    ("naïve café", "naive cafe"),
    ("", "something"),
]


def expected(reference: str, prediction: str) -> dict[str, float]:
    return {kind: score.fmeasure for kind, score in REFERENCE.score(reference, prediction).items()}


@pytest.mark.parametrize(("reference", "prediction"), PAIRS)
def test_english_scores_are_the_references(reference: str, prediction: str) -> None:
    assert rouge(reference, prediction) == pytest.approx(expected(reference, prediction), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(WORDS, WORDS)
def test_any_words_score_as_in_the_reference(reference: list[str], prediction: list[str]) -> None:
    one, other = " ".join(reference), " ".join(prediction)
    assert rouge(one, other) == pytest.approx(expected(one, other), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(LATIN, LATIN)
def test_any_text_below_the_cjk_blocks_scores_as_in_the_reference(reference: str, prediction: str) -> None:
    assert rouge(reference, prediction) == pytest.approx(expected(reference, prediction), abs=1e-12)
