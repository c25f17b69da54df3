"""Certified labels: the bound is Clopper's and Pearson's, and it holds where a threshold chosen by eye does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mingshi.evals.certificate import certify, ladder, least_rows, upper_bound

ERROR, CONFIDENCE = 0.05, 0.95


@pytest.mark.parametrize(("wrong", "count"), [(0, 59), (3, 40), (17, 200), (199, 200)])
def test_the_bound_is_the_one_sided_exact_one(wrong: int, count: int) -> None:
    bound = upper_bound(wrong, count, confidence=CONFIDENCE)
    assert stats.binom.cdf(wrong, count, bound) == pytest.approx(1 - CONFIDENCE, rel=1e-9)
    two_sided = stats.binomtest(wrong, count).proportion_ci(confidence_level=0.9, method="exact")
    assert bound == pytest.approx(two_sided.high, rel=1e-9)


def test_a_bound_of_nothing_is_one() -> None:
    assert upper_bound(0, 0, confidence=CONFIDENCE) == upper_bound(7, 7, confidence=CONFIDENCE) == 1.0


@pytest.mark.parametrize(("error", "confidence"), [(0.05, 0.95), (0.1, 0.9), (0.01, 0.99)])
def test_so_many_right_rows_certify_and_one_less_does_not(error: float, confidence: float) -> None:
    least = least_rows(error, confidence)
    assert upper_bound(0, least, confidence=confidence) <= error < upper_bound(0, least - 1, confidence=confidence)


def drawn(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and whether they were right: wrong with a chance of `2 (1 - c)^2`."""
    confidences = generator.uniform(0.5, 1.0, count)
    return confidences, generator.random(count) >= 2 * (1 - confidences) ** 2


def true_error(threshold: float) -> float:
    """Of all rows at least this sure: the mean of that chance from the threshold to 1."""
    return 2 * (1 - threshold) ** 2 / 3


def test_the_certified_error_is_broken_as_rarely_as_it_says() -> None:
    """A hundred repeats; the threshold that looks best on the same rows breaks its word in about half of them."""
    broken, by_eye, certified = 0, 0, 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        choosing = drawn(generator, 1000)
        confidences, right = drawn(generator, 1000)
        rungs = ladder(*choosing, confidence=CONFIDENCE)
        found, tested = certify(confidences, right, rungs, error=ERROR, confidence=CONFIDENCE)
        assert [one.passed for one in tested].count(False) <= 1
        if found is not None:
            certified += 1
            broken += true_error(found.threshold) > ERROR
        naive = [one for one in rungs if (~right[confidences >= one]).mean() <= ERROR]
        by_eye += bool(naive) and true_error(min(naive)) > ERROR
    assert broken <= 7
    assert by_eye > 25
    assert certified > 90


def test_sure_rows_are_nearly_all_taken() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.uniform(0.5, 1.0, 2000)
    right = generator.random(2000) < 0.99
    rungs = ladder(confidences, right, confidence=CONFIDENCE)
    found, _ = certify(confidences, right, rungs, error=ERROR, confidence=CONFIDENCE)
    assert found is not None and found.count >= 0.95 * 2000 and found.bound <= ERROR


def test_the_first_threshold_that_fails_ends_it() -> None:
    """A later one that would pass by luck is not looked at."""
    confidences = np.repeat([0.9, 0.8, 0.7], 100)
    right = np.ones(300, dtype=bool)
    right[100:120] = False
    found, tested = certify(confidences, right, [0.9, 0.8, 0.7], error=0.07, confidence=CONFIDENCE)
    assert found is not None and (found.threshold, found.count, found.wrong) == (0.9, 100, 0)
    assert [one.passed for one in tested] == [True, False]


def test_without_rows_there_is_nothing_to_try() -> None:
    assert ladder(np.empty(0), np.empty(0, bool), confidence=CONFIDENCE) == []
    assert certify(np.empty(0), np.empty(0, bool), [], error=ERROR, confidence=CONFIDENCE) == (None, [])
