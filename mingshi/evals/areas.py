"""How well a classifier ranks: the areas under the ROC curve and under precision over recall, one class against the
rest, as scikit-learn has them.

Letters: `N` items, `K` classes, `R` resamples, `G` groups of items that share one probability.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def areas(counts_RN: np.ndarray, shares_NK: np.ndarray, wins_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC areas and average precisions of each class against the rest, `[R, K]` both.

    nan where no item of a draw has the class, or all have: there is nothing to rank.
    """
    roc_RK = np.full((len(counts_RN), wins_NK.shape[1]), np.nan)
    precision_RK = roc_RK.copy()
    for place in np.flatnonzero(wins_NK.any(0) & ~wins_NK.all(0)):
        roc_RK[:, place], precision_RK[:, place] = _areas(counts_RN, shares_NK[:, place], wins_NK[:, place])
    return roc_RK, precision_RK


def _areas(counts_RN: np.ndarray, share_N: np.ndarray, wins_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of pairs of a positive and a negative that are ranked rightly, a tie being half; and the mean of the
    precision at each threshold, weighted by how much of the recall it adds."""
    groups_N = (rankdata(-share_N, method="dense") - 1).astype(np.int64)  # the surest first
    kinds = int(groups_N.max()) + 1
    every_RG = grouped(counts_RN, groups_N, kinds)
    wins_RG = grouped(counts_RN[:, wins_N], groups_N[wins_N], kinds)
    losses_RG = every_RG - wins_RG
    beaten_RG = losses_RG.sum(1, keepdims=True) - losses_RG.cumsum(1) + losses_RG / 2
    won_R, lost_R = wins_RG.sum(1), losses_RG.sum(1)
    precision_RG = divided(wins_RG.cumsum(1), every_RG.cumsum(1))
    there_R = won_R * lost_R > 0
    roc_R = divided((wins_RG * beaten_RG).sum(1), won_R * lost_R)
    average_R = divided((wins_RG * precision_RG).sum(1), won_R)
    return np.where(there_R, roc_R, np.nan), np.where(there_R, average_R, np.nan)


def means(values_RK: np.ndarray, true_RK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Over the classes that have a value, `[R]`: plain, and weighted by how many items have the class."""
    there_RK = np.isfinite(values_RK)
    plain_R, weighted_R = (
        (np.where(there_RK, values_RK, 0.0) * weights_RK).sum(1) / np.where(there_RK.any(1), weights_RK.sum(1), np.nan)
        for weights_RK in (there_RK.astype(np.float64), np.where(there_RK, true_RK, 0.0))
    )
    return plain_R, weighted_R


def divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 where there is nothing to divide by."""
    quotient: np.ndarray = np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)
    return quotient


def grouped(counts_RN: np.ndarray, groups_N: np.ndarray, kinds: int) -> np.ndarray:
    """Counts added up by group, `[R, kinds]`."""
    order = np.argsort(groups_N, kind="stable")
    present, starts = np.unique(groups_N[order], return_index=True)
    sums_RG = np.zeros((len(counts_RN), kinds))
    sums_RG[:, present] = np.add.reduceat(counts_RN[:, order], starts, axis=1)
    return sums_RG
