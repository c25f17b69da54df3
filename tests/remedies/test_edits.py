"""Edits of texts: nothing is lost between words, numbers and negations stay, each language is cut by its own rule."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mingshi.errors import DataError
from mingshi.remedies import edits
from mingshi.remedies.edits import Edit
from mingshi.remedies.lexicon import read_lexicon
from mingshi.remedies.pieces import is_guarded, is_word, pieces

pytest.importorskip("rjieba")

ENGLISH = "The film wasn't bad at all, but the 2 actors never smiled."
CHINESE = "这家餐厅的服务员态度非常好，我不喜欢他们的菜。"
LEXICON = {
    "film": ("movie",),
    "actors": ("players", "performers"),
    "bad": ("poor",),
    "非常": ("十分",),
    "餐厅": ("饭馆",),
}
EDITS: dict[str, Edit] = {
    "swap": edits.swap,
    "delete": edits.delete,
    "punctuate": edits.punctuate,
    "insert": partial(edits.insert, lexicon=LEXICON),
    "synonym": partial(edits.synonym, lexicon=LEXICON),
}


def words(text: str) -> Counter[str]:
    return Counter(piece for piece in pieces(text) if is_word(piece))


def many(name: str, text: str) -> list[str]:
    found = [EDITS[name](text, np.random.default_rng(seed)) for seed in range(40)]
    assert None not in found
    return [str(each) for each in found]


@given(st.text(max_size=60) | st.text(alphabet="他不a1 ，.-'’・々_é", max_size=30))
def test_pieces_are_the_text(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == text and all(found)


@given(st.text(alphabet="ab1 ，.他们不好-'", max_size=30), st.sampled_from(sorted(EDITS)), st.integers(0, 9))
def test_no_text_is_emptied(text: str, name: str, seed: int) -> None:
    found = EDITS[name](text, np.random.default_rng(seed))
    assert found is None or any(map(str.isalnum, found))


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_a_swap_moves_words_and_makes_none(text: str) -> None:
    found = many("swap", text)
    assert all(Counter(each) == Counter(text) for each in found)
    assert text is CHINESE or all(words(each) == words(text) for each in found)
    assert len(set(found)) > 10


@pytest.mark.parametrize(("text", "kept"), [(ENGLISH, ("wasn't", "2", "never")), (CHINESE, ("不",))])
def test_a_deletion_leaves_out_words_but_no_number_and_no_negation(text: str, kept: tuple[str, ...]) -> None:
    found = many("delete", text)
    assert all(Counter(each) < Counter(text) and all(word in each for word in kept) for each in found)
    assert not any("  " in each for each in found)


@pytest.mark.parametrize(("text", "marks"), [(ENGLISH, edits.MARKS), (CHINESE, edits.WIDE_MARKS)])
def test_marks_are_of_the_texts_own_script_and_words_stay(text: str, marks: tuple[str, ...]) -> None:
    found = many("punctuate", text)
    assert all(Counter(filter(str.isalnum, each)) == Counter(filter(str.isalnum, text)) for each in found)
    added = Counter("".join(found).replace(" ", "")) - Counter(text.replace(" ", "") * len(found))
    assert added and set(added) <= set(marks)


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [("A FILM of Actors", {"A MOVIE of Actors", "A FILM of Players", "A FILM of Performers"}), (CHINESE, None)],
)
def test_synonyms_come_from_the_lexicon_in_the_case_of_the_word(text: str, outcomes: set[str] | None) -> None:
    found = set(many("synonym", text))
    assert found == (outcomes or {CHINESE.replace("非常", "十分"), CHINESE.replace("餐厅", "饭馆")})


def test_insertions_are_synonyms_of_what_is_there() -> None:
    for text, allowed in ((ENGLISH, {"movie", "players", "performers", "poor"}), (CHINESE, {"十分", "饭馆"})):
        added = [words(each) - words(text) for each in many("insert", text)]
        assert all(sum(each.values()) == 1 for each in added)
        assert set().union(*added) == allowed


def test_the_strength_says_how_many_words_change() -> None:
    text = " ".join(f"word{chr(97 + number)}" for number in range(20))
    for strength, count in ((0.1, 2), (0.5, 10)):
        found = edits.delete(text, np.random.default_rng(0), strength=strength)
        assert found is not None and len(found.split()) == 20 - count


@pytest.mark.parametrize("text", ["", "。", "12", "不", "not 5"])
def test_what_has_no_word_to_move_cannot_be_changed(text: str) -> None:
    assert edits.swap(text, np.random.default_rng(0)) is None
    assert edits.delete(text, np.random.default_rng(0)) is None
    assert edits.synonym(text, np.random.default_rng(0), lexicon=LEXICON) is None
    assert edits.insert(text, np.random.default_rng(0), lexicon=LEXICON) is None


def test_a_lexicon_is_a_line_for_each_word(tmp_path: Path) -> None:
    path = tmp_path / "words.tsv"
    path.write_text("# ours\nFilm\tmovie\tmotion picture\n\n好\t不错\nfilm\tpicture\n", encoding="utf-8")
    assert read_lexicon(path) == {"film": ("movie", "motion picture", "picture"), "好": ("不错",)}
    path.write_text("film movie\n好\t\ntwo words\tone\nok\tok\n", encoding="utf-8")
    with pytest.raises(DataError) as refused:
        read_lexicon(path)
    assert [problem.line for problem in refused.value.problems] == [1, 2, 3, 4]
    assert "word<TAB>synonym" in str(refused.value)
    path.write_bytes("电影\t影片\n".encode("gb18030"))
    with pytest.raises(DataError, match="not UTF-8"):
        read_lexicon(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_lexicon(tmp_path / "none.tsv")


@pytest.mark.parametrize(
    "word", ["不", "不喜欢", "没有", "受不了", "无法", "别", "并非", "isn't", "NOT", "2019", "第3"]
)
def test_guarded(word: str) -> None:
    assert is_guarded(word)


@pytest.mark.parametrize("word", ["非常", "特别", "别人", "好", "knot", "nothingness"])
def test_not_guarded(word: str) -> None:
    assert not is_guarded(word)
