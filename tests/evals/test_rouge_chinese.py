"""ROUGE on Chinese, and exact match; English is checked against the reference in tests/reference."""

from __future__ import annotations

import pytest

from mingshi.evals.rouge import exact_match, rouge, signature
from mingshi.evals.tokens import Tokens


def test_identical_chinese_texts_score_one_and_unrelated_ones_nothing() -> None:
    text = "今天天气很好。我们去公园散步吧！"
    assert rouge(text, text) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0, "rougeLsum": 1.0}
    assert set(rouge(text, "抱歉").values()) == {0.0}


def test_a_chinese_character_is_a_token_beside_latin_words() -> None:
    found = Tokens().tokenize("用GPT-2训练3个epoch，ＯＫ？𠀀 かな 한글")
    assert found == ["用", "gpt", "2", "训", "练", "3", "个", "epoch", "𠀀", "か", "な", "한", "글"]


def test_scores_of_a_chinese_pair_are_those_counted_by_hand() -> None:
    scores = rouge("我爱北京", "我爱上海")  # two of four characters, one of three pairs, a common 我爱
    assert scores["rouge1"] == pytest.approx(0.5)
    assert scores["rouge2"] == pytest.approx(1 / 3)
    assert scores["rougeL"] == pytest.approx(0.5)


def test_a_chinese_sentence_ends_without_a_line_break() -> None:
    swapped = rouge("猫在睡觉。狗在跑步！", "狗在跑步！猫在睡觉。")
    assert swapped["rougeLsum"] == 1.0
    assert swapped["rougeL"] == 0.5


def test_texts_without_tokens_score_nothing() -> None:
    assert set(rouge("", "").values()) == set(rouge("答案", "……！").values()) == {0.0}


def test_exact_match_forgives_width_and_outer_space_only() -> None:
    assert exact_match("42", " ４２\n") == 1.0
    assert exact_match("Yes", "yes") == 0.0
    assert exact_match("a b", "a  b") == 0.0


def test_the_signature_names_the_tokenizer_and_the_library() -> None:
    assert signature("rougeL").startswith("rougeL|tok:cjk-char|stem:no|rouge_score:0.")
