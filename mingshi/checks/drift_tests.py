"""Do two piles of rows come from one source? Tests whose false alarms are as rare as they say.

`N` rows of both piles, `R` permutations. `new_N` is true for rows of the second pile.

The rows are taken to be independent of one another, so a document, a prompt or a person may give each pile one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from mingshi.checks.drift_features import Features
from mingshi.evals import statistics
from mingshi.types import Score

FOLDS = 5
FIRST_TESTED = 2  # the folds before it are only learnt from
PERMUTATIONS = 999
KERNEL_ROWS = 1000  # of a pile: a kernel takes their square
LEVEL = 0.05
POWER = 0.8
FEWEST = 20  # rows of a pile: with fewer a fold has less than 4

Learner = Callable[[Features, np.ndarray, Features], np.ndarray]  # rows, which are new, other rows -> their scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One test: what it measured, and how often as much comes about where there is nothing."""

    name: str
    value: float
    p: float


def linear(rows: Features, new_N: np.ndarray, others: Features) -> np.ndarray:
    """Logistic regression on the tokens; log-odds."""
    from sklearn.linear_model import LogisticRegression

    learnt = LogisticRegression(class_weight="balanced", max_iter=200, tol=1e-3).fit(rows.tokens_NF, new_N)
    scores: np.ndarray = learnt.decision_function(others.tokens_NF)
    return scores


def trees(rows: Features, new_N: np.ndarray, others: Features) -> np.ndarray:
    """Gradient boosting on the dense features: it sees what features do together; log-odds."""
    from sklearn.ensemble import GradientBoostingClassifier

    boosting = GradientBoostingClassifier(
        n_estimators=40, max_depth=3, min_samples_leaf=5, max_features="sqrt", subsample=0.5, random_state=0
    )
    balance = np.where(new_N, 1 / max(new_N.sum(), 1), 1 / max((~new_N).sum(), 1)) * len(new_N) / 2
    learnt = boosting.fit(rows.dense_ND, new_N, sample_weight=balance)
    scores: np.ndarray = learnt.decision_function(others.dense_ND)
    return scores


LEARNERS: dict[str, Learner] = {"words": linear, "shape": trees}


def folds(new_N: np.ndarray, groups: Sequence[object], generator: np.random.Generator) -> np.ndarray:
    """A fold for each row `[N]`: rows of one group in one fold, and each pile in all folds alike."""
    both = {group for group, new in zip(groups, new_N, strict=True) if new}
    both &= {group for group, new in zip(groups, new_N, strict=True) if not new}
    kinds: dict[str, list[object]] = {"both": sorted(both, key=str), "old": [], "new": []}
    for group, new in zip(groups, new_N, strict=True):
        if group not in both:
            kinds["new" if new else "old"].append(group)
    fold_of = {}
    for members in kinds.values():
        distinct = list(dict.fromkeys(members))
        for place, member in enumerate(generator.permutation(len(distinct))):
            fold_of[distinct[int(member)]] = place % FOLDS
    return np.array([fold_of[group] for group in groups])


def classifier_test(
    learner: Learner, rows: Features, new_N: np.ndarray, folds_N: np.ndarray, *, name: str, seed: int
) -> Tested:
    """A classifier two-sample test (Lopez-Paz and Oquab 2017) that is exact without learning anew for each permutation.

    Each tested fold is scored by what was learnt from the folds before it alone. If the piles are alike, then given
    those folds and the texts every order of the fold's own labels is as likely as any other, so they are permuted and
    the scores kept. Scores of ordinary cross-validation may not be treated so: every label then teaches and tests, the
    folds' areas go up and down together, and the variance of their mean is up to twice what such a permutation says: at
    a level of 5 % it raised an alarm in 11.5 % of 200 draws without any difference, this test in 5 %.
    """
    generator = np.random.default_rng(seed)
    seen, drawn_R = 0.0, np.zeros(PERMUTATIONS)
    for fold in range(FIRST_TESTED, FOLDS):
        past, now = np.flatnonzero(folds_N < fold), np.flatnonzero(folds_N == fold)
        scores = learner(rows.take(past), new_N[past], rows.take(now))
        ranks = rankdata(scores)
        labels = new_N[now].astype(np.float64)
        many = labels.sum() * (len(labels) - labels.sum())
        least = labels.sum() * (labels.sum() + 1) / 2
        seen += (labels @ ranks - least) / many
        shuffled = generator.permuted(np.tile(labels, (PERMUTATIONS, 1)), axis=1)
        drawn_R += (shuffled @ ranks - least) / many
    tested = FOLDS - FIRST_TESTED
    p = (1 + np.count_nonzero(drawn_R >= seen - 1e-9)) / (PERMUTATIONS + 1)
    return Tested(name=name, value=float(seen) / tested, p=float(p))


def cross_scores(learner: Learner, rows: Features, new_N: np.ndarray, folds_N: np.ndarray) -> np.ndarray:
    """Scores `[N]`, each by what was learnt from the other folds; comparable inside a fold."""
    scores = np.empty(len(new_N))
    for fold in range(FOLDS):
        others, now = np.flatnonzero(folds_N != fold), np.flatnonzero(folds_N == fold)
        scores[now] = learner(rows.take(others), new_N[others], rows.take(now))
    return scores


def area(scores_N: np.ndarray, new_N: np.ndarray, folds_N: np.ndarray, *, signature: str, seed: int) -> Score:
    """The mean over folds of the area under the ROC curve, with an interval of other rows (not of other fits)."""
    curves = []
    for fold in range(FOLDS):
        rows = np.flatnonzero(folds_N == fold)
        order = rows[np.argsort(scores_N[rows], kind="stable")]
        _, ties = np.unique(scores_N[order], return_inverse=True)
        curves.append((order, ties))

    def measure(counts_RN: np.ndarray) -> np.ndarray:
        areas = [_area(counts_RN[:, order], new_N[order], ties) for order, ties in curves]
        mean: np.ndarray = np.mean(areas, axis=0)[:, None]
        return mean

    return statistics.measured(measure, len(new_N), signatures=[signature], seed=seed)[0]


def _area(counts_RN: np.ndarray, new_N: np.ndarray, ties_N: np.ndarray) -> np.ndarray:
    """Areas `[R]` of rows in the order of their scores, each row counted as often as it says; ties are half won."""
    starts = np.flatnonzero(np.diff(ties_N, prepend=-1))
    new_RT = np.add.reduceat(counts_RN * new_N, starts, axis=1)
    old_RT = np.add.reduceat(counts_RN * ~new_N, starts, axis=1)
    won_R = (new_RT * (np.cumsum(old_RT, axis=1) - old_RT / 2)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas: np.ndarray = won_R / (new_RT.sum(axis=1) * old_RT.sum(axis=1))
    return areas


def kernel_test(rows: Features, new_N: np.ndarray, *, seed: int) -> Tested:
    """Maximum mean discrepancy (Gretton et al. 2012) of the tokens, squared; a Gaussian kernel as wide as the median
    distance. Its permutations need no learning."""
    generator = np.random.default_rng(seed)
    chosen = np.sort(np.concatenate([_some(np.flatnonzero(new_N == side), generator) for side in (False, True)]))
    new = new_N[chosen]
    tokens = rows.tokens_NF[chosen]
    squares = np.maximum(2 - 2 * (tokens @ tokens.T).toarray(), 0).astype(np.float32)
    np.fill_diagonal(squares, 0)
    apart = squares[np.triu_indices(len(squares), 1)]
    width = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    kernel = np.exp(-squares / width)
    weights = np.where(new, 1 / new.sum(), -1 / (~new).sum()).astype(np.float32)
    drawn_RN = generator.permuted(np.tile(weights, (PERMUTATIONS, 1)), axis=1)
    drawn_R = ((drawn_RN @ kernel) * drawn_RN).sum(axis=1)
    seen = float(weights @ kernel @ weights)
    p = (1 + np.count_nonzero(drawn_R >= seen - 1e-7)) / (PERMUTATIONS + 1)
    return Tested(name="kernel", value=seen, p=float(p))


def _some(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= KERNEL_ROWS else generator.choice(rows, KERNEL_ROWS, replace=False)


def text_tests(rows: Features, new_N: np.ndarray, folds_N: np.ndarray, *, seed: int) -> list[Tested]:
    """All tests of texts; their p-values are yet to be held against one another."""
    found = [classifier_test(learner, rows, new_N, folds_N, name=name, seed=seed) for name, learner in LEARNERS.items()]
    return [*found, kernel_test(rows, new_N, seed=seed)]


def least_area(old: int, new: int, *, tests: int) -> float:
    """The area that a test would have found in `POWER` of such samples; below it, silence means little.

    From the variance of the Wilcoxon statistic in the tested folds, the level divided by the number of tests.
    """
    share = (FOLDS - FIRST_TESTED) / FOLDS
    old_tested, new_tested = old * share, new * share
    deviation = math.sqrt((old_tested + new_tested + 1) / (12 * old_tested * new_tested))
    return min(1.0, 0.5 + float(ndtri(1 - LEVEL / tests) + ndtri(POWER)) * deviation)


def divergence(first_K: np.ndarray, second_K: np.ndarray) -> float:
    """Jensen and Shannon's, of two distributions of counts, in bits: 0 where alike, 1 where nothing is shared."""
    shares = [np.asarray(counts, np.float64) / max(float(np.sum(counts)), 1.0) for counts in (first_K, second_K)]
    middle = (shares[0] + shares[1]) / 2

    def distance(share: np.ndarray) -> Any:
        there = share > 0
        return (share[there] * np.log2(share[there] / middle[there])).sum()

    return max(0.0, float(distance(shares[0]) + distance(shares[1])) / 2)
