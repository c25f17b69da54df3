"""Token F1 and normalised match as SQuAD has them, variety and length; Chinese beside English."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mingshi.evals import rouge
from mingshi.evals.answers import closest_length, distinct, normalised_match, token_f1
from mingshi.evals.tokens import Tokens

ENGLISH = st.text(st.sampled_from("abTheX the an .,-'\n"), max_size=40)


def squad_tokens(text: str) -> list[str]:
    """The official script's normalisation, said once more."""
    kept = "".join(each for each in text.lower() if each not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def squad_f1(reference: str, prediction: str) -> float:
    wanted, given_ = squad_tokens(reference), squad_tokens(prediction)
    if not wanted or not given_:
        return float(wanted == given_)
    same = sum((Counter(wanted) & Counter(given_)).values())
    if not same:
        return 0.0
    precision, recall = same / len(given_), same / len(wanted)
    return 2 * precision * recall / (precision + recall)


@settings(max_examples=200, deadline=None)
@given(ENGLISH, ENGLISH)
def test_english_answers_score_as_squad_scores_them(reference: str, prediction: str) -> None:
    assert token_f1(reference, prediction) == pytest.approx(squad_f1(reference, prediction), abs=1e-12)
    assert normalised_match(reference, prediction) == float(squad_tokens(reference) == squad_tokens(prediction))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_overlap_is_symmetric_bounded_and_whole_for_the_same_text(one: str, other: str) -> None:
    assert 0.0 <= token_f1(one, other) == token_f1(other, one) <= 1.0
    assert token_f1(one, one) == normalised_match(one, one) == 1.0


def test_chinese_answers_overlap_by_characters_whatever_their_width_and_punctuation() -> None:
    assert normalised_match("北京，中国。", "北京中国！") == 1.0
    assert normalised_match("２０２６年", "2026年") == 1.0
    assert token_f1("我爱北京", "我爱上海") == pytest.approx(0.5)
    assert token_f1("是", "") == 0.0 and token_f1("。", "") == 1.0


def test_variety_is_the_share_of_n_grams_that_differ() -> None:
    assert distinct(["a", "b", "a", "b"], 1) == 0.5
    assert distinct(["a", "b", "a", "b"], 2) == pytest.approx(2 / 3)
    assert distinct(["a"], 2) is None and distinct([], 1) is None


def test_the_nearest_reference_gives_the_length_and_the_shorter_of_two_as_near() -> None:
    assert closest_length(5, [9, 4, 6]) == 4
    assert closest_length(5, [6]) == 6


def test_chinese_words_are_rjiebas_and_the_signature_says_so() -> None:
    pytest.importorskip("rjieba")
    assert Tokens("word").tokenize("我爱北京天安门。GPT-2训练") == ["我", "爱", "北京", "天安门", "gpt", "2", "训练"]
    assert rouge.signature("rouge1", cut="word").startswith("rouge1|tok:rjieba-0.")
    by_words = rouge.rouge("我爱北京", "我爱上海", cut="word")
    assert by_words["rouge1"] == pytest.approx(2 / 3)  # two of three words
    assert rouge.rouge("我爱北京", "我爱北京", cut="word")["rougeL"] == 1.0


def test_stems_are_those_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    theirs = RougeScorer(list(rouge.KINDS), use_stemmer=True)
    for reference, prediction in (("He was running quickly", "runs quick"), ("flies and ties", "fly tied")):
        expected = {kind: found.fmeasure for kind, found in theirs.score(reference, prediction).items()}
        assert rouge.rouge(reference, prediction, stem=True) == pytest.approx(expected, abs=1e-12)
    assert "|stem:porter|" in rouge.signature("rougeL", stem=True)


def test_of_several_references_the_best_counts_as_in_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    references, prediction = ["a cat sat here", "the dog lay there", ""], "a dog lay here"
    expected = RougeScorer(list(rouge.KINDS)).score_multi(references, prediction)
    found = rouge.rouge(references, prediction)
    assert found == pytest.approx({kind: score.fmeasure for kind, score in expected.items()}, abs=1e-12)


def test_a_repeated_answer_is_punished() -> None:
    assert rouge.rouge("的猫", "的的的的的的猫")["rouge1"] == pytest.approx(4 / 9)
