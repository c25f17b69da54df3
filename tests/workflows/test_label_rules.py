"""What a round takes, what ends it, and which rows a person should see first."""

from __future__ import annotations

import numpy as np

from mingshi.workflows import label_rules as rules


def shares(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows)


def known(right: list[bool], truth: list[int] | None = None) -> rules.Known:
    """Two classes; by default half of the rows of each."""
    truth_N = np.array(truth if truth is not None else [number % 2 for number in range(len(right))])
    told_N = np.where(right, truth_N, 1 - truth_N)
    return rules.Known(shares_NC=np.stack([1.0 - told_N, told_N], axis=1), truth_N=truth_N)


def test_every_class_gives_the_same_part_of_its_rows_however_sure_it_is() -> None:
    sure, unsure = np.linspace(0.9, 1.0, 100), np.linspace(0.6, 0.7, 100)
    shares_NC = np.concatenate([np.stack([sure, 1 - sure], 1), np.stack([1 - unsure, unsure], 1)])
    taken, last = rules.taken(shares_NC, part=0.3, floor=0.5)
    assert taken[70:100].all() and taken[170:].all() and taken.sum() == 60
    assert last == [float(sure[70]), float(unsure[70])]


def test_thresholds_fall_as_the_part_rises_and_never_under_the_floor() -> None:
    sure = np.linspace(0.5, 1.0, 200)
    shares_NC = np.stack([sure, 1 - sure], axis=1)
    falling = [rules.taken(shares_NC, part=part, floor=0.7)[1][0] for part in (0.1, 0.3, 0.5, 0.9)]
    assert falling == sorted(falling, reverse=True) and 0.7 <= falling[-1] < 0.703


def test_rows_that_are_equally_sure_are_not_all_taken_for_it() -> None:
    taken, last = rules.taken(np.tile([1.0, 0.0], (10, 1)), part=0.25, floor=0.6)
    assert taken.sum() == 3 and last[0] == 1.0 and np.isnan(last[1])


def test_a_teacher_that_guesses_is_found_and_one_that_knows_is_not() -> None:
    coin = np.random.default_rng(0).random(200) < 0.5
    assert rules.guesses(known(coin.tolist()))
    assert not rules.guesses(known([number % 10 > 0 for number in range(200)]))
    assert rules.guesses(known([True] * 9 + [False], truth=[0] * 9 + [1])), "as good as the commonest class"


def test_worse_is_more_than_a_standard_error_behind() -> None:
    best = known([True] * 180 + [False] * 20)
    assert not rules.worse(best, best)
    assert not rules.worse(known([True] * 179 + [False] * 21), best)
    assert rules.worse(known([True] * 165 + [False] * 35), best)
    assert not rules.worse(known([True] * 190 + [False] * 10), best)


def test_a_class_that_dies_out_is_named_and_a_rare_one_is_not() -> None:
    truth = np.array([0] * 50 + [1] * 45 + [2] * 5)
    predicted = np.eye(3)[[0] * 95 + [1] * 4 + [2] * 1]
    assert rules.dying(predicted, truth) == [1]
    assert rules.dying(np.eye(3)[truth], truth) == []


def test_the_smallest_lead_comes_first_and_pairs_of_classes_take_turns() -> None:
    shares_NC = shares((0.50, 0.49, 0.01), (0.50, 0.48, 0.02), (0.50, 0.47, 0.03), (0.05, 0.5, 0.45), (0.9, 0.06, 0.04))
    order = rules.most_useful(shares_NC).tolist()
    assert order[0] == 0 and order[1] == 3, "another pair's turn"
    assert order[-1] == 4
