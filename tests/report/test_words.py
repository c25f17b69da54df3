"""Both languages say the same things, and numbers are set for people."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

import mingshi.report
from mingshi.directions import is_better_higher
from mingshi.report.marks import visible_html, visible_text
from mingshi.report.numbers import duration, figure, places, share
from mingshi.report.summary import metric_name
from mingshi.report.words import WORDS, Both, either, plain, word

SOURCES = sorted(path for folder in mingshi.report.__path__ for path in Path(folder).glob("*.*"))


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_both_languages_say_every_sentence_with_the_same_values() -> None:
    assert [key for key, text in WORDS.items() if not text.en.strip() or not text.zh.strip()] == []
    assert [key for key, text in WORDS.items() if fields(text.en) != fields(text.zh)] == []


def test_what_is_said_in_chinese_is_chinese() -> None:
    bare = {"page.language", "verdict.join", "verdict.end", "origin.commit", "numbers.interval"}
    assert [k for k, text in WORDS.items() if k not in bare and not re.search(r"[\u4e00-\u9fff]", text.zh)] == []
    assert [key for key, text in WORDS.items() if re.search(r"[\u4e00-\u9fff]", text.en)] == []


def test_every_sentence_is_used_and_every_sentence_used_is_there() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES if not path.name.startswith("words"))
    named = set(re.findall(r'"([a-z]+\.[a-z.]+)"', code))
    families = set(re.findall(r'f"([a-z]+)\.\{|"([a-z]+)\." ~|either\("([a-z]+)"', code))
    looked_up = {family for found in families for family in found if family}
    assert [key for key in WORDS if key not in named and key.split(".")[0] not in looked_up] == []
    assert set(re.findall(r'word\(\s*"([a-z.]+)"[,)]', code)) <= set(WORDS)


def test_a_value_may_itself_be_in_both_languages() -> None:
    assert word("asked.rank", kind=Both("all", "全部"), rank=8) == Both("all, rank 8", "全部，秩 8")
    assert either("data", "test") == WORDS["data.test"]
    assert either("data", "elsewhere") == plain("elsewhere")


def test_a_text_without_translation_is_printed_once() -> None:
    assert plain("a<b").html() == "a&lt;b"
    assert Both("yes", "是").html() == '<span class="en" lang="en">yes</span><span class="zh" lang="zh-CN">是</span>'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0002, "2×10⁻⁴"),
        (-0.00012345, "−1.23×10⁻⁴"),
        (0.01, "0.01"),
        (2.0, "2"),
        (1234567, "1,234,567"),
        (1234.5, "1,234" if round(1234.5) == 1234 else "1,235"),
        (float("nan"), "–"),
        (None, "–"),
        (True, "–"),
        ("7", "–"),
        (0, "0"),
        (0.0, "0"),
    ],
)
def test_numbers_are_set_for_people(value: object, text: str) -> None:
    assert figure(value) == text


def test_decimals_and_signs_are_as_asked_for() -> None:
    assert figure(-0.5, 2) == "−0.50"
    assert figure(0.194, 3, signed=True) == "+0.194"
    assert places(2.41) == 2 and places(0.118) == 3 and places(138.0) == 0 and places(0.0) == 2
    assert share(1, 8) == Both("12.5 %", "12.5%") and share(1, 0).en == "– %"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.71, "0.7 s"), (59.4, "59.4 s"), (61, "1 min 1 s"), (3599.6, "1 h 0 min"), (90_000, "25 h 0 min")],
)
def test_times_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds).en == text


def test_unseen_characters_become_their_codes_and_seen_ones_stay() -> None:
    seen = "naïve 你好，世界！ עברית العربية ❤️ 🙂 ⠿\u3000\t\n"
    assert visible_text(seen) == visible_html(seen) == seen
    assert visible_text("a\u202eb\x1b[0m\x9b\u200b") == "a<U+202E>b<U+001B>[0m<U+009B><U+200B>"
    assert visible_html("<\x00\ud800>") == "&lt;<i>U+0000</i><i>U+D800</i>&gt;"


def test_a_metric_of_one_class_names_the_class_and_keeps_its_direction() -> None:
    """`f1.好评` and `f1.差评` are two metrics, and neither is the headline F1."""
    assert metric_name("f1.好评", "f1.好评") == Both("F1 of 好评", "好评 的 F1")
    assert metric_name("recall.positive", "recall.positive") == Both("recall of positive", "positive 的 召回率")
    assert is_better_higher("f1.好评") is True
