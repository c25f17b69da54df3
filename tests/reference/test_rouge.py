"""On texts without CJK characters our ROUGE is rouge-score's own; on Chinese, what it says of characters."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from mingshi.evals.rouge import KINDS, rouge

REFERENCE = RougeScorer(list(KINDS))
STEMMING = RougeScorer(list(KINDS), use_stemmer=True)
LATIN = st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=40)
INFLECTED = st.lists(
    st.sampled_from(
        [
            "running",
            "runs",
            "Ran",
            "generously",
            "generic",
            "ties",
            "dying",
            "dies",
            "its",
            "was\n",
            "national",
            "GPT-2's",
        ]
    ),
    max_size=14,
)
CHINESE = st.text("我爱北京的天安门，。！？ \n", max_size=30)
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


@settings(max_examples=150, deadline=None)
@given(INFLECTED, INFLECTED)
def test_stems_score_as_in_the_reference(reference: list[str], prediction: list[str]) -> None:
    one, other = " ".join(reference), " ".join(prediction)
    wanted = {kind: score.fmeasure for kind, score in STEMMING.score(one, other).items()}
    assert rouge(one, other, stem=True) == pytest.approx(wanted, abs=1e-12)


class ByCharacter:
    """A tokeniser in one line: whatever is no punctuation and no space."""

    def tokenize(self, text: str) -> list[str]:
        return [letter for letter in text if letter.isalnum()]


@settings(max_examples=150, deadline=None)
@given(CHINESE, CHINESE)
def test_chinese_scores_are_the_references_of_characters(reference: str, prediction: str) -> None:
    lines = [re.sub("([。！？])", r"\1\n", text) for text in (reference, prediction)]
    found = RougeScorer(list(KINDS), tokenizer=ByCharacter()).score(*lines)
    assert rouge(reference, prediction) == pytest.approx(
        {kind: score.fmeasure for kind, score in found.items()}, abs=1e-12
    )


@given(CHINESE.filter(lambda text: len(ByCharacter().tokenize(text)) > 1))
def test_the_same_chinese_text_scores_one_and_said_again_and_again_it_does_not(text: str) -> None:
    assert set(rouge(text, text).values()) == {1.0}
    assert all(value < 0.6 for value in rouge(text, text * 4).values())


def test_a_character_said_six_times_counts_once() -> None:
    scores = rouge("的猫", "的的的的的的猫")  # two of seven characters are hits, both of two are found
    assert scores["rouge1"] == pytest.approx(4 / 9)
