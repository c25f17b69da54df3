"""Pieces and runs against what they are said to be, letter by letter."""

from __future__ import annotations

import random
import unicodedata

import numpy as np
import pytest

from mingshi.checks.clusters import clusters_of
from mingshi.checks.normal import normalised
from mingshi.checks.shingles import PIECE, WORDS_8, letter_shingles, one_edit_keys, word_shingles, words_of
from mingshi.data.similarity import edit_distance

from .planted import Language

MIXED = "使用Python 3.11编写一个函数，计算 fibonacci(n) 的值；Don't use recursion! ＡＢＣ"


@pytest.mark.parametrize("text", [MIXED, "", "ab", "😀 😀😀 ok", "ไทย한국어 かな", "\ud800broken surrogates"])
def test_pieces_are_the_runs_of_four_letters(text: str) -> None:
    normal = normalised(text)
    expected = {normal[at : at + PIECE] for at in range(len(normal) - PIECE + 1)}
    pieces, phrases = letter_shingles(normal)
    assert len(pieces) == len(phrases) == len(expected)
    assert (np.diff(pieces.astype(np.int64)) > 0).all()


@pytest.mark.parametrize("name", ["zh", "en"])
def test_equal_pieces_have_equal_numbers_and_others_have_not(name: str) -> None:
    language = Language(name, 3)
    for _ in range(20):
        first = normalised(language.text(80))
        second = normalised(language.edited(first) + language.text(20))
        sets = [{text[at : at + PIECE] for at in range(len(text) - PIECE + 1)} for text in (first, second)]
        shared = np.intersect1d(letter_shingles(first)[0], letter_shingles(second)[0])
        assert len(shared) == len(sets[0] & sets[1])


def test_a_piece_knows_the_phrase_that_it_begins() -> None:
    def phrases(text: str) -> dict[int, int]:
        return dict(zip(*(each.tolist() for each in letter_shingles(normalised(text))), strict=True))

    template = phrases("请根据下面的材料回答问题")  # twelve characters: three phrases of ten
    other = phrases("请根据下面的材料回答问题：月亮为什么会发光")
    same = [piece for piece in template if template[piece] and template[piece] == other[piece]]
    assert len(same) == 3
    assert sum(phrase == 0 for phrase in template.values()) == len(template) - 3


def test_words_are_words_and_characters_of_scripts_without_spaces() -> None:
    words = words_of("Don't use 递归, Ｐｙｔｈｏｎ 3!")
    assert words.wide.tolist() == [False, False, False, True, True, False, False]
    assert words.hashes[5] == words_of("python").hashes[0]
    assert words.hashes[3] == words_of("递").hashes[0]
    assert len(words_of("soft\u00adhyphen").hashes) == 1
    assert len(words_of("").hashes) == len(words_of("。！ \n").hashes) == 0
    assert words.starts[0] == 0 and (np.diff(words.starts) > 0).all() and words.starts[-1] < 1


def test_runs_take_their_length_from_the_script_of_their_first_word() -> None:
    words = words_of("one two three four five six seven eight nine")
    runs, starts = word_shingles(words)
    assert starts.tolist() == [0, 1]
    assert runs[1] == word_shingles(words_of("two three, four five: six seven Eight NINE"))[0][0]
    assert len(word_shingles(words_of("一二三四五六七八九十甲乙丙丁"))[0]) == 14 - WORDS_8[0] + 1
    mixed = words_of("a b c d e 一二三四五六七八九十")
    assert word_shingles(mixed)[1].tolist() == [0, 1, 2, 3, 4]  # from the sixth on thirteen do not fit


def test_keys_tell_texts_that_are_one_edit_apart() -> None:
    """Of all pairs of texts of three letters of an alphabet, whatever their lengths."""
    chance = random.Random(0)
    texts = sorted({"".join(chance.choices("甲乙丙", k=chance.randint(3, 5))) for _ in range(120)})
    keys = {text: [set(part.tolist()) for part in one_edit_keys(text, 0)] for text in texts}
    last = {text: int(one_edit_keys(text, 0)[1][-1]) for text in texts}
    for first in texts:
        for second in texts:
            if first < second:
                replaced = keys[first][0] & keys[second][0]
                longer = last[first] in keys[second][1] or last[second] in keys[first][1]
                assert bool(replaced or longer) == (edit_distance(first, second) == 1), (first, second)
    assert not keys[texts[0]][0] & set(one_edit_keys(texts[0], 1)[0].tolist())


def test_pieces_of_words_would_miss_what_pieces_of_letters_find() -> None:
    """One edit in 25 characters: words between spaces find no Chinese copy, runs of three words few English ones."""

    def alike(first: set[str] | set[tuple[str, ...]], second: set[str] | set[tuple[str, ...]]) -> bool:
        return len(first & second) >= 0.45 * len(first | second)  # type: ignore[operator]

    def threes(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return set(zip(words, words[1:], words[2:], strict=False))

    chinese, english = Language("zh", 5), Language("en", 5)
    found = {"spaces": 0, "threes": 0, "zh": 0, "en": 0}
    for _ in range(100):
        text = chinese.text(200)
        copy = chinese.edited(text)
        found["spaces"] += alike(set(text.split()), set(copy.split()))
        found["zh"] += jaccard(text, copy) >= 0.45
        text = english.text(200)
        copy = english.edited(text)
        found["threes"] += alike(threes(text), threes(copy))
        found["en"] += jaccard(text, copy) >= 0.45
    assert found["spaces"] == 0 and found["threes"] <= 5
    assert found["zh"] == found["en"] == 100


def jaccard(first: str, second: str) -> float:
    one, other = (letter_shingles(normalised(text))[0] for text in (first, second))
    return len(np.intersect1d(one, other)) / len(np.union1d(one, other))


def test_what_is_normalised_stays_normalised() -> None:
    text = "“Ｈｅｌｌｏ，　ＷＯＲＬＤ！” — ﬁne… Straße\u200b 你好。"
    assert normalised(text) == "helloworldfinestrasse你好"
    assert normalised(normalised(text)) == normalised(text)
    assert normalised(unicodedata.normalize("NFD", "Café")) == normalised("café")
    assert normalised("1 + 1 = 2 😀") == "1+1=2😀"


def test_clusters_are_what_pairs_join() -> None:
    pairs = np.array([[1, 4], [4, 2], [5, 6], [6, 5], *[[5, 6]] * 300])
    assert clusters_of(8, pairs).tolist() == [0, 1, 1, 3, 1, 5, 5, 7]
    assert clusters_of(3, np.empty((0, 2), dtype=np.int64)).tolist() == [0, 1, 2]
