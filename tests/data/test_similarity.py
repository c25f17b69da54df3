"""Edit distance against the table that defines it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as values

from mingshi.data.similarity import edit_distance, nearly_equal, similarity

TEXTS = values.text("abc春 ", max_size=14)


def by_the_table(first: str, second: str) -> int:
    """Wagner and Fischer (1974), row by row."""
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, start=1):
        above, row = row, [place]
        for column, other in enumerate(second, start=1):
            row.append(min(above[column] + 1, row[-1] + 1, above[column - 1] + (letter != other)))
    return row[-1]


@given(TEXTS, TEXTS)
@settings(max_examples=400, deadline=None, database=None)
def test_the_distance_is_that_of_the_table(first: str, second: str) -> None:
    assert edit_distance(first, second) == by_the_table(first, second)


def test_long_texts_cross_the_width_of_a_machine_word() -> None:
    first = "the quick brown fox jumps over the lazy dog. " * 6
    second = first.replace("quick", "slow").replace("dog", "cat")[10:]
    assert edit_distance(first, second) == by_the_table(first, second)


@given(TEXTS, TEXTS, values.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9]))
@settings(max_examples=400, deadline=None, database=None)
def test_the_short_cuts_change_no_answer(first: str, second: str, above: float) -> None:
    assert nearly_equal(first, second, above=above) == (similarity(first, second) > above)


def test_similarity_is_the_share_that_stays() -> None:
    assert similarity("", "") == 1 and similarity("abc", "") == 0
    assert similarity("kitten", "sitting") == 1 - 3 / 7
    assert nearly_equal("one two three four", "one two three fours", above=0.9)
    assert not nearly_equal("one two three four", "four three two one", above=0.9)
