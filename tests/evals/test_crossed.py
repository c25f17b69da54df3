"""Intervals over seeds and items: against formulae that hold for one way alone, and by how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mingshi.evals.statistics import crossed

SPREADS = [(0.0, 1.0, 1.0), (0.1, 1.0, 0.3), (0.3, 1.0, 1.0), (1.0, 0.3, 0.3), (0.0, 0.0, 1.0)]  # seeds, items, rest


def drawn(
    generator: np.random.Generator, spreads: tuple[float, float, float], *, shape: tuple[int, int] = (3, 48)
) -> np.ndarray:
    """A table with effects of these standard deviations and no mean."""
    by_seed, by_item, rest = spreads
    seeds, items = shape
    table: np.ndarray = by_seed * generator.normal(size=(seeds, 1)) + by_item * generator.normal(size=(1, items))
    return table + rest * generator.normal(size=shape)


def test_one_seed_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.3, 1, (1, 40)), generator.normal(0, 1, (1, 40))
    score, p = crossed(first, second, signature="x")
    told = stats.ttest_rel(first[0], second[0])
    assert p == pytest.approx(told.pvalue, rel=1e-9)
    assert (score.low, score.high) == pytest.approx(tuple(told.confidence_interval(0.95)), rel=1e-9)


def test_the_interval_is_that_of_a_table_by_hand() -> None:
    score, p = crossed(np.array([[1.0, 2.0, 6.0], [3.0, 2.0, 10.0]]), signature="x")
    # the seeds' means are 3 and 5, of variance 2; the items' 2, 2 and 8, of variance 12
    half = math.sqrt(stats.t.ppf(0.975, 1) ** 2 * 2 / 2 + stats.t.ppf(0.975, 2) ** 2 * 12 / 3)
    assert (score.value, score.count, score.high - score.value) == (4.0, 3, pytest.approx(half))
    assert math.hypot(stats.t.ppf(1 - p / 2, 1), 2 * stats.t.ppf(1 - p / 2, 2)) == pytest.approx(4.0)


def test_weights_make_it_a_sum_over_a_sum() -> None:
    values, weights = np.array([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5]]), np.array([5.0, 1.0, 1.0])
    assert crossed(values, weights_N=weights, signature="x")[0].value == pytest.approx(10 / 7 + 0.25)
    plain, scaled = (crossed(values, weights_N=np.full(3, weight), signature="x")[0] for weight in (1.0, 7.0))
    assert (plain.low, plain.high) == pytest.approx((scaled.low, scaled.high))


def test_a_method_beside_itself_and_values_that_are_all_alike() -> None:
    values = np.random.default_rng(0).normal(0, 1, (3, 20))
    score, p = crossed(values, values, signature="x")
    assert (score.value, p) == (0, 1) and math.isnan(score.low)
    assert math.isnan(crossed(np.full((3, 20), 0.1), signature="x")[1])
    assert math.isnan(crossed(np.ones((3, 1)), signature="x")[0].low)


@pytest.mark.parametrize("spreads", SPREADS)
def test_chance_is_taken_for_a_difference_in_at_most_one_table_of_twenty(spreads: tuple[float, float, float]) -> None:
    """1,000 tables without a mean: 5 % is promised, and fewer than 6.5 % are then seen but once in seventy times. That
    is also a cover of at least 93.5 %; it may be above 97 %, as few seeds must be."""
    generator = np.random.default_rng(1)
    found = [crossed(drawn(generator, spreads), signature="x") for _ in range(1000)]
    assert np.mean([p < 0.05 for _, p in found]) <= 0.065
    for score, p in found:
        assert (score.low <= 0 <= score.high) == (p >= 0.05)


@pytest.mark.parametrize("spreads", SPREADS)
def test_with_many_seeds_it_covers_as_often_as_it_says(spreads: tuple[float, float, float]) -> None:
    generator = np.random.default_rng(2)
    tables = (drawn(generator, spreads, shape=(40, 60)) for _ in range(500))
    covered = np.mean([score.low <= 0 <= score.high for score, _ in (crossed(each, signature="x") for each in tables)])
    rest_alone = spreads[:2] == (0.0, 0.0)  # the one case where both variances are of the same thing
    assert 0.93 <= covered <= (1.0 if rest_alone else 0.975)


def test_a_method_trained_again_beats_itself_in_at_most_one_repeat_of_twenty() -> None:
    """200 times two sets of three seeds of one method, on the same 48 items."""
    generator = np.random.default_rng(3)
    wins = 0
    for _ in range(200):
        hard_N = generator.normal(size=48)
        first, second = (hard_N + drawn(generator, (0.3, 0.3, 1.0)) for _ in range(2))
        wins += crossed(first, second, signature="x")[1] < 0.05
    assert wins <= 10, wins


def test_a_real_difference_is_seen() -> None:
    generator = np.random.default_rng(2)
    tables = (0.5 + drawn(generator, (0.1, 1.0, 0.5)) for _ in range(200))
    assert np.mean([crossed(table, signature="x")[1] < 0.05 for table in tables]) > 0.5
