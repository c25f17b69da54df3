"""How many of the surest labels can be taken, and how many of those may be wrong: a bound that holds.

A threshold that was chosen by looking at many is better than it deserves. Here thresholds are tested from the surest
down, in an order that was fixed before, and the first that fails ends it: then none is chosen by luck, and the level
need not be shared out among them (fixed-sequence testing; Angelopoulos et al. 2021, Learn then Test, section 3.2).

Letters: `N` rows with known labels, `G` thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

STEPS = 20  # thresholds that are tried: the more, the finer, and the likelier that an early one fails by chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Labels at least this sure are wrong at most `bound` of the time, with the confidence that was asked for."""

    threshold: float
    count: int  # known rows that are this sure
    wrong: int  # of those
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One threshold, as it was tested."""

    threshold: float
    count: int
    wrong: int
    bound: float
    passed: bool


def upper_bound(wrong: int, count: int, *, confidence: float) -> float:
    """The largest share that `wrong` of `count` do not speak against: one-sided, of Clopper and Pearson (1934)."""
    if wrong >= count:
        return 1.0
    return float(betaincinv(wrong + 1, count - wrong, confidence))


def least_rows(error: float, confidence: float) -> int:
    """Known rows, all labelled rightly, without which no share as small as `error` can be certified."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - error))


def ladder(confidences_N: np.ndarray, right_N: np.ndarray, *, confidence: float) -> list[float]:
    """Thresholds to test, from rows that certify nothing: quantiles of their confidences, downwards.

    The first is the one that these rows can vouch for best: a surer one has fewer rows to be certified by.
    """
    if not len(confidences_N):
        return []
    found = np.unique(np.quantile(confidences_N, 1.0 - np.linspace(1 / STEPS, 1.0, STEPS)))[::-1]
    bounds = []
    for threshold in found:
        taken = confidences_N >= threshold
        bounds.append(upper_bound(int((taken & ~right_N).sum()), int(taken.sum()), confidence=confidence))
    return [float(one) for one in found[int(np.argmin(bounds)) :]]


def certify(
    confidences_N: np.ndarray, right_N: np.ndarray, thresholds: Sequence[float], *, error: float, confidence: float
) -> tuple[Certificate | None, list[Tested]]:
    """The lowest threshold that passes with all before it, None where the first fails; and all that were tested.

    `confidences_N` and `right_N` are of rows that chose neither the model nor the thresholds. The bound holds for rows
    drawn as these were: not for another source or another time.
    """
    found, tested = None, []
    for threshold in thresholds:
        taken = confidences_N >= threshold
        count, wrong = int(taken.sum()), int((taken & ~right_N).sum())
        bound = upper_bound(wrong, count, confidence=confidence)
        passed = bound <= error
        tested.append(Tested(threshold=threshold, count=count, wrong=wrong, bound=bound, passed=passed))
        if not passed:
            break
        found = Certificate(threshold=threshold, count=count, wrong=wrong, bound=bound)
    return found, tested
