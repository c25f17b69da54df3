"""Swapping he and she in texts that a classifier is asked about: what is changed, counted, and said of it."""

from __future__ import annotations

import math

import pytest

from mingshi.checks.bias_probes import counterfactuals, probed
from mingshi.checks.bias_swaps import our_swaps, swaps_of


def test_texts_without_a_word_of_a_pair_have_no_counterfactual() -> None:
    texts = ["She sings.", "The band plays.", "他唱歌。", "He thanked her.", "其他人在唱。"]
    found = counterfactuals(texts, our_swaps())
    assert [(one.place, one.text, one.side) for one in found] == [
        (0, "He sings.", 1),
        (2, "她唱歌。", 0),
        (3, "She thanked him.", None),
    ]
    named = counterfactuals(["Emily sings.", "emily"], swaps_of([("Emily", "James")]))
    assert [(one.place, one.text) for one in named] == [(0, "James sings.")]


def test_a_shift_is_of_her_less_of_him_whoever_the_text_spoke_of() -> None:
    """Women are given 0.3 more of `good`; the text that speaks of both is counted and has no direction."""
    others = counterfactuals(["he", "she", "he likes her", "she x"], our_swaps())
    before = [
        {"bad": 0.6, "good": 0.4},
        {"bad": 0.2, "good": 0.8},
        {"bad": 0.9, "good": 0.1},
        {"bad": 0.3, "good": 0.7},
    ]
    after = [{"bad": 0.3, "good": 0.7}, {"bad": 0.5, "good": 0.5}, {"bad": 0.8, "good": 0.2}, {"bad": 0.6, "good": 0.4}]
    found = probed(others, before, after, texts=9)
    assert found.texts == 9 and found.changed.count == 4 and found.changed.value == pytest.approx(3 / 4)
    assert found.changed.low < 3 / 4 < found.changed.high
    assert found.shifts["good"].value == pytest.approx(0.3) == -found.shifts["bad"].value
    assert found.shifts["good"].count == 3


def test_where_nothing_can_be_swapped_there_is_nothing_to_say() -> None:
    found = probed([], [], [], texts=5)
    assert found.changed.count == 0 and math.isnan(found.changed.value) and found.shifts == {}
