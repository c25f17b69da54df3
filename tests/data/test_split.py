"""A row's side of the split depends on its group and the seed alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as values

from mingshi.data.split import _place, is_held_out, sides_of, split
from mingshi.errors import RecipeError
from mingshi.types import Chat, Message, Reject


def row(line: int, group: str) -> Chat:
    turns = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    return Chat(id=f"r:{line}", source="r", line=line, group=group, messages=turns)


ROWS = [row(line, f"group {line // 3}") for line in range(3000)]


def ids(rows: list[Chat]) -> list[str]:
    return [each.id for each in rows]


def test_every_row_is_on_one_side_in_its_order() -> None:
    train, held_out = split(ROWS, fraction=0.2, seed=0)
    assert sorted(ids(train) + ids(held_out)) == sorted(ids(ROWS))
    assert [each.line for each in train] == sorted(each.line for each in train)
    assert abs(len(held_out) / len(ROWS) - 0.2) < 4 * (0.2 * 0.8 / 1000) ** 0.5


def test_a_group_is_never_cut() -> None:
    train, held_out = split(ROWS, fraction=0.3, seed=1)
    assert {each.group for each in train}.isdisjoint(each.group for each in held_out)


def test_neither_order_nor_other_rows_move_a_row() -> None:
    held_out = set(ids(split(ROWS, fraction=0.2, seed=0)[1]))
    assert set(ids(split(ROWS[::-1], fraction=0.2, seed=0)[1])) == held_out
    fewer = ROWS[:900]
    assert set(ids(split(fewer, fraction=0.2, seed=0)[1])) == held_out & set(ids(fewer))
    assert all((each.id in held_out) == is_held_out(each.group, fraction=0.2, seed=0) for each in ROWS)


def test_a_larger_fraction_holds_out_all_that_a_smaller_one_did() -> None:
    small, large = (set(ids(split(ROWS, fraction=fraction, seed=0)[1])) for fraction in (0.1, 0.4))
    assert small < large


def test_another_seed_gives_another_split() -> None:
    assert ids(split(ROWS, fraction=0.2, seed=0)[1]) != ids(split(ROWS, fraction=0.2, seed=1)[1])


def test_the_split_is_the_same_in_every_version() -> None:
    held_out = split([row(line, f"g{line}") for line in range(20)], fraction=0.25, seed=7)[1]
    assert [each.group for each in held_out] == PINNED


PINNED = ["g9", "g14"]


@given(
    groups=values.lists(values.integers(0, 5), min_size=1, max_size=12),
    fraction=values.floats(0.001, 0.999),
    seed=values.integers(-5, 5),
)
def test_with_two_groups_or_more_neither_side_is_empty(groups: list[int], fraction: float, seed: int) -> None:
    rows = [row(line, str(group)) for line, group in enumerate(groups)]
    train, held_out = split(rows, fraction=fraction, seed=seed)
    assert len(train) + len(held_out) == len(rows)
    assert train
    assert bool(held_out) == (len(set(groups)) > 1)


@given(
    groups=values.lists(values.integers(0, 5), max_size=12),
    fraction=values.floats(0.001, 0.999),
    seed=values.integers(-5, 5),
)
def test_a_split_is_that_of_all_groups_in_the_order_of_their_hashes(
    groups: list[int], fraction: float, seed: int
) -> None:
    rows = [row(line, str(group)) for line, group in enumerate(groups)]
    ordered = sorted(set(map(str, groups)), key=lambda group: (_place(group, seed), group))
    count = sum(is_held_out(group, fraction=fraction, seed=seed) for group in ordered)
    count = min(max(count, 1), len(ordered) - 1) if ordered else 0
    sides = sides_of(rows, fraction=fraction, seed=seed)
    assert {each.group for each in rows if sides.holds_out(each)} == set(ordered[:count])


def test_a_few_rows_tell_how_all_are_split() -> None:
    read: list[Chat] = []

    def rows() -> Iterator[Chat]:
        for each in ROWS:
            read.append(each)
            yield each

    sides = sides_of(rows(), fraction=0.2, seed=0)
    assert len(read) < 100
    assert [each for each in ROWS if sides.holds_out(each)] == split(ROWS, fraction=0.2, seed=0)[1]


def test_a_fraction_of_nothing_holds_nothing_out() -> None:
    assert split(ROWS, fraction=0.0, seed=0) == (ROWS, [])
    assert split([], fraction=0.5, seed=0) == ([], [])


def test_rejects_stay_with_the_training_rows() -> None:
    reject = Reject(source="r", line=9, reason="bad_json", detail="x")
    rows: list[Chat | Reject] = [*ROWS, reject]
    train, held_out = split(rows, fraction=0.5, seed=0)
    assert train[-1] is reject and reject not in held_out


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(RecipeError, match="cannot hold out"):
        split(ROWS, fraction=fraction, seed=0)
