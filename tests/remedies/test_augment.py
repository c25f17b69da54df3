"""Augmentation: classes become even, labels stay, nothing is there twice, and the seed says what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from mingshi.checks.bias_swaps import our_swaps
from mingshi.data.split import split
from mingshi.errors import DataError
from mingshi.remedies import edits
from mingshi.remedies.augment import Made, Method, augmented, counterfactual, edited, wanted_rows
from mingshi.remedies.repeats import without_repeats
from mingshi.remedies.weights import resampled
from mingshi.types import Example, Labelled

SWAP, DELETE = {"swap": edited(edits.swap)}, {"delete": edited(edits.delete)}
WORDS = [
    "river",
    "stone",
    "cloud",
    "window",
    "garden",
    "silver",
    "morning",
    "paper",
    "mountain",
    "letter",
    "candle",
    "forest",
]


def row(line: int, text: str, label: str, **attributes: str) -> Labelled:
    return Labelled(
        id=f"r{line}",
        source="rows.jsonl",
        line=line,
        group=f"g{line}",
        content=text,
        label=label,
        attributes=attributes,
    )


def rows(good: int, bad: int) -> list[Labelled]:
    """Texts of six words, all different."""
    texts = [" ".join(WORDS[(number * step) % 12] for step in (1, 5, 7)) + f" of day {number}" for number in range(99)]
    labels = ["good"] * good + ["bad"] * bad
    return [row(line, text, label) for line, (text, label) in enumerate(zip(texts, labels, strict=False), start=1)]


def texts_of(made: Sequence[Made]) -> list[str]:
    return [one.example.content for one in made]


def test_classes_become_even_and_every_row_gives_its_share() -> None:
    examples = rows(40, 10)
    made, record = augmented(examples, SWAP | DELETE, wanted_rows(examples, None, until=1.0))
    assert record.after == {("", "good"): 40, ("", "bad"): 40} and record.lacking == {}
    times = Counter(one.origin for one in made)  # a try that comes to nothing new is another row's turn
    assert times.keys() == set(range(40, 50)) and set(times.values()) <= {2, 3, 4}
    assert set(record.made) == {"swap", "delete"} and sum(record.made.values()) == 30
    assert all(one.example.label == examples[one.origin].label == "bad" for one in made)
    assert len({*texts_of(made), *(each.content for each in examples)}) == 80
    assert all(text.strip() for text in texts_of(made))
    assert len({one.example.id for one in made}) == 30


def test_a_ratio_and_so_many_of_each() -> None:
    examples = rows(40, 10)
    _, record = augmented(examples, SWAP, wanted_rows(examples, None, until=0.5))
    assert record.after == {("", "good"): 40, ("", "bad"): 20}
    made, _ = augmented(examples, SWAP | DELETE, wanted_rows(examples, None, each=2), most=2)
    assert Counter(one.origin for one in made) == dict.fromkeys(range(50), 2)


def test_the_seed_says_what_comes_out() -> None:
    examples = rows(30, 10)
    wanted = wanted_rows(examples, None, until=1.0)
    one, two, other = (augmented(examples, SWAP, wanted, seed=seed)[0] for seed in (1, 1, 2))
    assert one == two and texts_of(one) != texts_of(other)


def test_a_new_row_is_never_parted_from_its_own() -> None:
    """Of augmented and of repeated rows, at any seed of the split."""
    examples = rows(60, 12)
    made, _ = augmented(examples, SWAP, wanted_rows(examples, None, until=1.0))
    copies, _ = resampled(examples, None, way="over", towards="equal", cap=10)
    for seed in range(10):
        train, held = split([*examples, *(one.example for one in made)], fraction=0.3, seed=seed)
        assert lines(train).isdisjoint(lines(held)) and held
        train, held = split(copies, fraction=0.3, seed=seed)
        assert lines(train).isdisjoint(lines(held)) and len(train) + len(held) == 120


def lines(examples: Sequence[Example]) -> set[int]:
    return {each.line for each in examples}


def test_what_is_there_or_held_out_or_has_another_label_is_dropped() -> None:
    examples = [row(1, "stone river", "a"), row(2, "River, stone!", "b"), row(3, "cloud paper", "a")]
    made, record = augmented(examples, SWAP, wanted_rows(examples, None, each=1), most=1, held_out=["Paper cloud"])
    assert made == [] and sum(record.lacking.values()) == 3
    assert record.dropped.keys() == {"swap.contradicts", "swap.held_out"}


def test_a_text_that_comes_to_nothing_is_no_row() -> None:
    def rewrite(texts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
        return ["…" for _ in texts]

    made, record = augmented(rows(2, 2), {"dots": Method(rewrite=rewrite)}, {("", "bad"): 2})
    assert made == [] and set(record.dropped) == {"dots.empty"} and record.lacking == {("", "bad"): 2}


def test_counterfactuals_have_the_label_and_not_the_attributes() -> None:
    examples = [
        row(1, "She said her car broke", "bad", gender="f"),
        row(2, "他喜欢他的老师", "good", gender="m"),
        row(3, "the car broke", "bad"),
    ]
    methods = {"counterfactual": counterfactual(our_swaps())}
    made, record = augmented(examples, methods, wanted_rows(examples, None, each=1), most=1)
    assert texts_of(made) == ["He said his car broke", "她喜欢她的老师"]
    assert [one.example.label for one in made] == ["bad", "good"]
    assert all(one.example.attributes == {} and one.example.group == f"g{one.origin + 1}" for one in made)
    assert record.dropped["counterfactual.unable"] and sum(record.lacking.values()) == 1


def test_thin_cells_of_a_group_are_filled() -> None:
    examples = [
        row(1 + number, f"{WORDS[number % 12]} and {WORDS[number // 12]}", "good", who="a") for number in range(24)
    ]
    examples += [row(90 + number, f"{WORDS[number]} with a {WORDS[number + 1]}", "bad", who="b") for number in range(6)]
    _, record = augmented(examples, SWAP, wanted_rows(examples, "who", until=1.0), attribute="who")
    assert record.after == {("a", "good"): 24, ("b", "bad"): 24}


def test_without_rows_or_methods_there_is_nothing_to_do() -> None:
    for examples, methods in (([], SWAP), (rows(1, 1), {})):
        with pytest.raises(DataError):
            augmented(examples, methods, {})


def test_repeated_texts_go_but_not_those_of_another_label() -> None:
    long = "The river was grey in the morning and the boats lay still beside the old stone bridge near the market."
    examples = [
        row(1, long, "a"),
        row(2, long, "a"),
        row(3, long.upper() + "!!", "a"),
        row(4, long.replace("grey", "gray"), "a"),
        row(5, long, "b"),
        row(6, "Nothing of that kind was ever seen by any of the fishermen who came home late.", "a"),
    ]
    kept, once = without_repeats(examples)
    assert [each.line for each in kept] == [1, 5, 6]
    assert once.gone == {1: "equal", 2: "normalised", 3: "near"} and (once.before, once.after) == (6, 3)
    assert all(one < two for one, two in pairwise(sorted(once.gone)))
