"""Intervals: equal to scipy's, honest at the edges, and right as often as they say."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pytest
import scipy.stats

from mingshi.evals import statistics
from mingshi.types import Score

SIGNATURE = "test"


def ends(score: Score) -> tuple[float, float]:
    return score.low, score.high


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mean_interval_is_scipys(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=37)
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=statistics.RESAMPLES, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    score = statistics.mean(values.tolist(), signature=SIGNATURE, seed=seed)
    assert ends(score) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert score.value == pytest.approx(values.mean(), rel=1e-15)
    assert score.count == 37


def test_the_interval_of_a_ratio_of_sums_is_scipys() -> None:
    generator = np.random.default_rng(5)
    tokens = generator.integers(1, 60, 29).astype(float)
    nats = tokens * generator.gamma(2.0, size=29)

    def statistic(nats: np.ndarray, tokens: np.ndarray, axis: int) -> np.ndarray:
        return nats.sum(axis=axis) / tokens.sum(axis=axis)

    expected = scipy.stats.bootstrap(
        (nats, tokens), statistic, paired=True, n_resamples=statistics.RESAMPLES, rng=np.random.default_rng(7)
    ).confidence_interval
    score = statistics.ratio(nats.tolist(), tokens.tolist(), signature=SIGNATURE, seed=7)
    assert ends(score) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert score.value == pytest.approx(nats.sum() / tokens.sum(), rel=1e-15)


def test_a_paired_difference_is_the_mean_of_differences_and_narrower_than_unpaired() -> None:
    generator = np.random.default_rng(1)
    before = generator.normal(size=60)
    after = before + 0.1 + 0.05 * generator.normal(size=60)
    score = statistics.difference(before.tolist(), after.tolist(), signature=SIGNATURE)
    assert score == statistics.mean((after - before).tolist(), signature=SIGNATURE)
    alone = statistics.mean(after.tolist(), signature=SIGNATURE)
    assert 0 < score.low < score.high < 0.2
    assert score.high - score.low < (alone.high - alone.low) / 5


def test_a_difference_of_ratios_with_equal_weights_is_the_ratio_of_differences() -> None:
    generator = np.random.default_rng(2)
    tokens = generator.integers(1, 30, 40).tolist()
    before, after = generator.gamma(3.0, size=(2, 40)).tolist()
    change = (np.array(after) - np.array(before)).tolist()
    score = statistics.ratio_difference((before, tokens), (after, tokens), signature=SIGNATURE)
    other = statistics.ratio(change, tokens, signature=SIGNATURE)
    assert (score.value, *ends(score)) == pytest.approx((other.value, *ends(other)), rel=1e-9)


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (0, 20), (20, 20), (1, 7), (13, 40), (998, 1000)])
def test_the_intervals_of_a_rate_are_scipys(successes: int, count: int) -> None:
    for exact, method in ((False, "wilson"), (True, "exact")):
        expected = scipy.stats.binomtest(successes, count).proportion_ci(method=method)
        score = statistics.rate(successes, count, signature=SIGNATURE, exact=exact)
        assert ends(score) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert score.low <= score.value <= score.high


def test_items_that_cannot_give_an_interval_give_none_and_their_count() -> None:
    for values, count in (([], 0), ([0.5], 1), ([2.0] * 5, 5), ([0.1 + 0.2, 0.3] * 3, 6)):
        score = statistics.mean(values, signature=SIGNATURE)
        assert score.count == count
        assert math.isnan(score.low) and math.isnan(score.high)
        assert math.isnan(score.value) if not values else score.value == pytest.approx(values[0])
    assert math.isnan(statistics.rate(0, 0, signature=SIGNATURE).value)
    assert math.isnan(statistics.ratio([1.0, 2.0], [0.0, 0.0], signature=SIGNATURE).low)


def test_a_value_that_is_not_finite_is_shown_not_hidden() -> None:
    score = statistics.mean([1.0, math.inf, 2.0], signature=SIGNATURE)
    assert score.value == math.inf
    assert math.isnan(score.low) and math.isnan(score.high)


def test_the_same_seed_gives_the_same_interval_and_another_moves_it_little() -> None:
    values = np.random.default_rng(0).exponential(size=50).tolist()
    first, again, other = (statistics.mean(values, signature=SIGNATURE, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert ends(first) == pytest.approx(ends(other), rel=0.02)


def test_many_items_take_fewer_resamples_and_little_memory() -> None:
    values = np.random.default_rng(0).normal(size=30_000)
    score = statistics.mean(values.tolist(), signature=SIGNATURE)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert ends(score) == pytest.approx((values.mean() - half, values.mean() + half), abs=half / 5)


WORLDS = 1000
WITHIN = (0.93, 0.97)  # of 1,000 worlds whose intervals hold in 95 %, all but one count in two hundred


def held(found: Iterable[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in found]))


def quotient(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])


def bootstrapped(worlds_WNK: np.ndarray) -> list[tuple[float, float]]:
    return [statistics.bca(columns_NK, quotient, seed=0, resamples=999) for columns_NK in worlds_WNK]


def test_intervals_of_means_cover_the_truth_as_often_as_they_say() -> None:
    losses = np.random.default_rng(11).gamma(4.0, 0.25, (WORLDS, 100))  # skewed, as losses are
    covered = held(bootstrapped(np.stack([losses, np.ones_like(losses)], axis=2)), 1.0)
    assert WITHIN[0] <= covered <= WITHIN[1], covered


def test_intervals_of_ratios_of_sums_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(12)
    tokens = generator.integers(5, 50, (WORLDS, 100)).astype(float)
    nats = tokens * generator.gamma(4.0, 0.25, tokens.shape)
    covered = held(bootstrapped(np.stack([nats, tokens], axis=2)), 1.0)
    assert WITHIN[0] <= covered <= WITHIN[1], covered


def test_intervals_of_clustered_means_cover_the_truth_as_often_as_they_say() -> None:
    """100 groups of one to nine answers that are alike; each answer by itself would hold in far fewer worlds."""
    generator = np.random.default_rng(13)
    sizes = generator.integers(1, 10, (WORLDS, 100))
    common = generator.normal(1.0, 1.0, sizes.shape)
    sums = sizes * common + np.sqrt(sizes) * generator.normal(0.0, 0.5, sizes.shape)
    covered = held(bootstrapped(np.stack([sums, sizes.astype(float)], axis=2)), 1.0)
    assert WITHIN[0] <= covered <= WITHIN[1], covered
    rows = sizes.sum(axis=1)
    means = sums.sum(axis=1) / rows
    half = 1.96 * math.sqrt(1.25) / np.sqrt(rows)
    assert held(zip(means - half, means + half, strict=True), 1.0) < 0.8


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_intervals_of_shares_cover_the_truth_as_often_as_they_say(share: float) -> None:
    right = np.random.default_rng(14).binomial(120, share, WORLDS)
    covered = held((statistics.wilson(int(count), 120) for count in right), share)
    assert WITHIN[0] <= covered <= WITHIN[1], covered
    exact = held((statistics.clopper_pearson(int(count), 120) for count in right), share)
    assert exact >= 0.94, exact  # never too short


def test_the_digest_of_items_changes_with_any_item_and_with_their_order() -> None:
    digest = statistics.items_digest(["a", "b"], [1, 2])
    assert digest == statistics.items_digest(["a", "b"], [1, 2])
    others = [(["b", "a"], [1, 2]), (["a", "b"], [1, 3]), (["a"], [1]), (["a1", "b"], ["", 2])]
    assert digest not in {statistics.items_digest(*columns) for columns in others}
