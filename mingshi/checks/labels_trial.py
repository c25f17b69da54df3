"""How much a model's doubt about a label means: the same once more, with some labels turned on purpose.

Let F be the share of the given labels, and T that of the turned ones, whose probability is at most t. Where a share e
of the labels is wrong in the way of the turned ones, F = e T + (1 - e) C, with C that of the right ones; so e <= F / T
for every t, and the least of these quotients bounds e (Blanchard, Lee and Scott 2010). It errs upwards: right labels of
hard rows count too. Of the labels at most t a share e T / F is wrong, which bounds what a suspicion is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mingshi.checks import labels_model
from mingshi.evals import statistics

TURNED = 0.1  # share of the labels
FEWEST = 20  # turned labels that a quotient rests on
STEPS = 20  # values of t, at equal shares of the turned labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it."""

    found: float  # share of the turned labels that were among the suspects
    wrong: float  # share of the given labels that are wrong: the least quotient
    at_most: float  # the least quotient of the upper end of F's 95 % interval and the lower end of T's
    precision: float  # share of wrong labels among the suspects, which errs upwards as `wrong` does


def turned(labels_N: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is another one, each of the others equally likely; and which. [N], [N] bool"""
    generator = np.random.default_rng(seed)
    classes = int(labels_N.max()) + 1
    chosen = np.zeros(len(labels_N), dtype=bool)
    chosen[generator.permutation(len(labels_N))[: round(TURNED * len(labels_N))]] = True
    away = generator.integers(1, classes, size=len(labels_N))
    return np.where(chosen, (labels_N + away) % classes, labels_N), chosen


def trial(
    features_NF: Any,
    labels_N: np.ndarray,
    components_N: np.ndarray,
    *,
    states_NW: np.ndarray | None = None,
    seed: int = 0,
) -> Trial | None:
    """None where the rows are too few."""
    from cleanlab.filter import find_label_issues

    labels, chosen = turned(labels_N, seed=seed)
    if chosen.sum() < FEWEST:
        return None
    probabilities = labels_model.judge(features_NF, labels, components_N, states_NW=states_NW).probabilities
    doubted = find_label_issues(labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    likelihood = probabilities[np.arange(len(labels)), labels]
    wrong, at_most = bounds(likelihood[~chosen], likelihood[chosen])
    found, others = float(doubted[chosen].mean()), float(doubted[~chosen].mean())
    return Trial(
        found=found,
        wrong=wrong,
        at_most=at_most,
        precision=min(1.0, wrong * found / others) if others else 0.0,
    )


def _thresholds(turned_M: np.ndarray) -> np.ndarray:
    steps: np.ndarray = np.quantile(turned_M, np.arange(1, STEPS + 1) / STEPS, method="higher")
    return steps


def bounds(given_N: np.ndarray, turned_M: np.ndarray) -> tuple[float, float]:
    """The least quotient F / T, and the least one of their intervals' ends; of at least FEWEST turned labels."""
    quotients, ends = [], []
    for threshold in _thresholds(turned_M):
        given, planted = int((given_N <= threshold).sum()), int((turned_M <= threshold).sum())
        if planted >= FEWEST:
            quotients.append(given / len(given_N) * len(turned_M) / planted)
            ends.append(statistics.wilson(given, len(given_N))[1] / statistics.wilson(planted, len(turned_M))[0])
    return min(1.0, *quotients), min(1.0, *ends)
