"""Paired tests: equal to scipy's where it has them, and no more often wrong than they say."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from mingshi.evals import statistics
from mingshi.evals.tallies import quotients


def columns(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (0, 6), (9, 2), (40, 61), (1, 0)])
def test_mcnemars_p_value_is_the_binomials(wins: int, losses: int) -> None:
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert statistics.mcnemar(wins, losses) == pytest.approx(expected, abs=1e-12)


def test_holm_steps_down_and_leaves_out_what_is_no_test() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert statistics.holm([0.6, 0.9]) == [1.0, 1.0] and statistics.holm([]) == []


def test_randomisation_is_that_of_every_exchange() -> None:
    """Ten items, all 1024 exchanges counted."""
    first, second = np.random.default_rng(3).normal(size=(2, 10))
    first = first + 0.6
    ((score, p),) = statistics.compared(columns(first), columns(second), quotients, signatures=["d"])
    signs = np.array(list(itertools.product((1, -1), repeat=10)))
    exact = (np.abs(signs @ (first - second)) >= abs((first - second).sum()) - 1e-9).mean()
    assert p == pytest.approx(exact, abs=0.03)
    assert score.value == pytest.approx((first - second).mean())


def test_the_p_value_is_scipys_permutation_test() -> None:
    first, second = np.random.default_rng(4).normal(size=(2, 40))
    first = first + 0.4
    told = scipy.stats.permutation_test(
        (first, second),
        lambda one, other, axis: (one - other).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    ((_, p),) = statistics.compared(columns(first), columns(second), quotients, signatures=["d"])
    assert 0.01 < told.pvalue < 0.5 and p == pytest.approx(told.pvalue, abs=0.03)


def test_the_interval_is_scipys_paired_bootstrap() -> None:
    first, second = np.random.default_rng(6).exponential(size=(2, 60))
    told = scipy.stats.bootstrap(
        (first, second),
        lambda one, other, axis: (one - other).mean(axis=axis),
        paired=True,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    ((score, _),) = statistics.compared(columns(first), columns(second), quotients, signatures=["d"])
    width = told.high - told.low
    assert (score.low, score.high) == pytest.approx((told.low, told.high), abs=0.05 * width)


def test_a_file_beside_itself_does_not_differ() -> None:
    values = np.random.default_rng(0).normal(size=50)
    ((score, p),) = statistics.compared(columns(values), columns(values), quotients, signatures=["d"])
    assert (score.value, p) == (0.0, 1.0) and math.isnan(score.low)


def test_equals_are_told_apart_in_at_most_one_repeat_of_twenty_and_unequals_mostly() -> None:
    generator = np.random.default_rng(5)
    wins, covered, found = 0, 0, 0
    for _ in range(200):
        hard = generator.normal(size=60)
        first, second = hard + generator.gumbel(size=(2, 60))  # equally good on the same items
        ((score, p),) = statistics.compared(columns(first), columns(second), quotients, signatures=["d"])
        wins += p < 0.05
        covered += score.low <= 0 <= score.high
        ((_, p),) = statistics.compared(columns(first + 1.0), columns(second), quotients, signatures=["d"])
        found += p < 0.05
    assert wins <= 18, wins  # 10 are expected; more than 18 would be one chance in two hundred
    assert covered >= 180, covered
    assert found >= 150, found
