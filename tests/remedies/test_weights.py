"""Weights and resampling: independence is reached, the record is true, and a biased classifier becomes less so."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from mingshi.checks.bias_mentions import MISSING
from mingshi.checks.bias_outcomes import demographic_parity_difference, outcomes
from mingshi.errors import DataError
from mingshi.remedies.weights import Way, cell_of, resampled, reweighed
from mingshi.types import Labelled

COUNTS = {("a", "good"): 70, ("a", "bad"): 30, ("b", "good"): 20, ("b", "bad"): 80}


def rows(counts: dict[tuple[str, str], int]) -> list[Labelled]:
    cells = [cell for cell, count in counts.items() for _ in range(count)]
    return [
        Labelled(
            id=f"r{line}",
            source="rows.jsonl",
            line=line,
            group="",
            content="text",
            label=label,
            attributes={"who": group} if group else {},
        )
        for line, (group, label) in enumerate(cells, start=1)
    ]


def test_weights_are_those_of_kamiran_and_calders() -> None:
    weights, record = reweighed(rows(COUNTS), "who")
    assert record.weights["a", "good"] == pytest.approx(0.5 * 0.45 / 0.35)
    assert record.weights["b", "good"] == pytest.approx(0.5 * 0.45 / 0.10)
    assert sum(weights) == pytest.approx(200)
    assert record.effective == pytest.approx(sum(weights) ** 2 / sum(weight**2 for weight in weights))
    assert record.effective < 200


def test_weighted_labels_are_independent_of_groups_and_as_frequent_as_before() -> None:
    counts = {("a", "x"): 5, ("a", "y"): 50, ("b", "x"): 17, ("b", "y"): 3, ("c", "x"): 9, ("c", "y"): 90}
    examples = rows(counts)
    weights, _ = reweighed(examples, "who")
    weighed = Counter[tuple[str, str]]()
    for example, weight in zip(examples, weights, strict=True):
        weighed[cell_of(example, "who")] += weight  # type: ignore[assignment]
    for group in "abc":
        assert weighed[group, "x"] / (weighed[group, "x"] + weighed[group, "y"]) == pytest.approx(31 / 174)
        assert weighed[group, "x"] + weighed[group, "y"] == pytest.approx(counts[group, "x"] + counts[group, "y"])


def test_rows_that_do_not_say_are_a_group() -> None:
    _, record = reweighed(rows({("a", "x"): 4, ("", "x"): 2, ("", "y"): 2}), "who")
    assert {group for group, _ in record.weights} == {"a", MISSING}


@pytest.mark.parametrize(("way", "size"), [("over", 80), ("under", 20)])
def test_cells_become_equal(way: Way, size: int) -> None:
    made, record = resampled(rows(COUNTS), "who", way=way)
    assert set(Counter(cell_of(example, "who") for example in made).values()) == {size}
    assert record.before == COUNTS and set(record.after.values()) == {size} and record.capped == ()


@pytest.mark.parametrize("way", ["over", "under"])
def test_labels_become_independent_of_groups(way: Way) -> None:
    counts = {("a", "good"): 700, ("a", "bad"): 300, ("b", "good"): 100, ("b", "bad"): 400}
    _, record = resampled(rows(counts), "who", way=way, towards="independent")
    shares = [
        record.after[group, "good"] / (record.after[group, "good"] + record.after[group, "bad"]) for group in "ab"
    ]
    assert shares == pytest.approx([800 / 1500, 800 / 1500], abs=0.005)
    changed = [
        (record.after[cell] >= count) if way == "over" else (record.after[cell] <= count)
        for cell, count in counts.items()
    ]
    assert all(changed)


def test_no_row_comes_more_often_than_the_cap_and_the_record_says_so() -> None:
    made, record = resampled(rows({("a", "x"): 1000, ("b", "x"): 10}), "who", way="over", cap=3)
    assert record.after == {("a", "x"): 1000, ("b", "x"): 30} and record.capped == (("b", "x"),)
    assert max(Counter((example.source, example.line) for example in made).values()) == 3
    _, record = resampled(rows({("a", "x"): 1000, ("b", "x"): 10}), "who", way="under", cap=4)
    assert record.after == {("a", "x"): 250, ("b", "x"): 10} and record.capped == (("a", "x"),)


def test_copies_have_ids_of_their_own_and_rows_stay_in_order() -> None:
    made, _ = resampled(rows(COUNTS), "who", way="over", cap=10)
    assert len({example.id for example in made}) == len(made)
    assert [example.line for example in made] == sorted(example.line for example in made)
    assert {example.line for example in made} == set(range(1, 201))


def test_the_seed_says_which_rows() -> None:
    one, two, other = (resampled(rows(COUNTS), "who", way="under", seed=seed)[0] for seed in (1, 1, 2))
    assert one == two != other


@pytest.mark.parametrize("options", [{"cap": 0.5}, {"cap": float("nan")}])
def test_a_cap_below_one_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="cap"):
        resampled(rows(COUNTS), "who", way="over", **options)


def test_without_rows_there_is_nothing_to_do() -> None:
    with pytest.raises(DataError):
        reweighed([], "who")
    with pytest.raises(DataError):
        resampled([], "who", way="over")


def planted(count: int, generator: np.random.Generator, *, bias: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (two of merit, one that tells the group), labels, groups: group 0 is favoured by `bias`."""
    group = generator.integers(0, 2, count)
    merit = generator.normal(size=(count, 2))
    favour = np.where(group == 0, bias, -bias)
    label = merit.sum(axis=1) * 0.7 + favour + generator.logistic(size=count) > 0
    return np.column_stack([merit, group + generator.normal(scale=0.2, size=count)]), label, group


def test_reweighing_takes_most_of_a_planted_bias_from_a_classifier() -> None:
    """Its demographic parity difference falls by 70 % or more; accuracy is measured on rows without the bias."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    features, label, group = planted(4000, generator, bias=0.5)
    examples = [
        Labelled(
            id=str(line), source="s", line=line, group="", content="", label=str(good), attributes={"who": str(who)}
        )
        for line, (good, who) in enumerate(zip(label, group, strict=True))
    ]
    weights, _ = reweighed(examples, "who")
    fresh, truth, whose = planted(4000, generator, bias=0.0)

    def measured(weight: list[float] | None) -> tuple[float, float]:
        said = LogisticRegression().fit(features, label, sample_weight=weight).predict(fresh)
        found = outcomes([*map(str, truth)], [*map(str, said)], [*map(str, whose)], positive="True")
        return demographic_parity_difference(found), float((said == truth).mean())

    (before, right_before), (after, right_after) = measured(None), measured(weights)
    assert before > 0.1
    assert after < 0.3 * before
    assert right_after >= right_before - 0.01
