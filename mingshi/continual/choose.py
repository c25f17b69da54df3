"""Few rows that stand for many. Features are `[N, W]`, one row's each; what is given back are places in them.

Every choice is a pure function of its arguments, and the first rows of a larger choice by `herding` or `k_centre` are
the smaller one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 10  # that a row's density is told by
OUTLIERS = 0.05  # share of rows, the sparsest, that are no centres
BLOCK = 1 << 22  # similarities that are held at a time


def quotas(sizes: Sequence[int], total: int) -> list[int]:
    """`total` shared out as evenly as groups of these sizes allow; what cannot be shared goes to the larger ones."""
    shares = [0] * len(sizes)
    left = min(total, sum(sizes))
    for taken, place in enumerate(sorted(range(len(sizes)), key=lambda place: (sizes[place], place))):
        shares[place] = min(sizes[place], left // (len(sizes) - taken))
        left -= shares[place]
    return shares


def random_rows(count: int, rows: int, *, seed: int) -> list[int]:
    """`rows` of `count` rows, in the order of the file."""
    chosen = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(count)[:rows]
    return sorted(chosen.tolist())


def herding(features_NW: np.ndarray, rows: int) -> list[int]:
    """In order, always the row that brings the mean of those chosen nearest to the mean of all.

    Rebuffi et al. 2017, iCaRL, equation 4; no row comes twice.
    """
    features_NW = features_NW.astype(np.float64)
    mean_W, sum_W = features_NW.mean(0), np.zeros(features_NW.shape[1])
    squares_N = np.square(features_NW).sum(1)
    chosen: list[int] = []
    for number in range(1, min(rows, len(features_NW)) + 1):
        # |number mean - sum - x|^2 without what is the same for every x
        distance_N = squares_N - 2 * features_NW @ (number * mean_W - sum_W)
        distance_N[chosen] = np.inf
        chosen.append(int(distance_N.argmin()))
        sum_W += features_NW[chosen[-1]]
    return chosen


def k_centre(features_NW: np.ndarray, rows: int) -> list[int]:
    """In order, always the row that is farthest from those chosen, from the one nearest to the mean on.

    Gonzalez 1985; Sener and Savarese 2018, algorithm 1. Outliers are what is farthest, so the sparsest rows are left
    out: those least like their nearest neighbours.
    """
    features_NW = features_NW.astype(np.float64)
    count = len(features_NW)
    out = min(int(OUTLIERS * count), count - min(rows, count))
    allowed_N = np.ones(count, dtype=bool)
    allowed_N[np.argsort(densities(features_NW), kind="stable")[:out]] = False
    farness_N = np.square(features_NW - features_NW.mean(0)).sum(1)
    first = int(np.where(allowed_N, farness_N, np.inf).argmin())
    chosen, distance_N = [first], np.full(count, np.inf)
    while len(chosen) < min(rows, count):
        distance_N = np.minimum(distance_N, np.square(features_NW - features_NW[chosen[-1]]).sum(1))
        allowed_N[chosen[-1]] = False
        chosen.append(int(np.where(allowed_N, distance_N, -np.inf).argmax()))
    return chosen


def densities(features_NW: np.ndarray) -> np.ndarray:
    """Mean product of each row with the nearest of the others, `[N]`."""
    count = len(features_NW)
    near = min(NEIGHBOURS, count - 1)
    if near < 1:
        return np.zeros(count)
    found = np.empty(count)
    step = max(1, BLOCK // count)
    for start in range(0, count, step):
        similar_CN = features_NW[start : start + step] @ features_NW.T
        places = np.arange(len(similar_CN))
        similar_CN[places, start + places] = -np.inf
        found[start : start + step] = np.partition(similar_CN, -near, axis=1)[:, -near:].mean(1)
    return found


def kmeans(features_NW: np.ndarray, rows: int, *, seed: int) -> list[int]:
    """For each of `rows` centres (Lloyd 1982, from k-means++) the nearest row that none before it took."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    features_NW = features_NW.astype(np.float64)
    rows = min(rows, len(features_NW))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer texts than centres: some centres are then the same
        found = KMeans(n_clusters=rows, n_init=1, random_state=seed % 2**32, max_iter=50).fit(features_NW)
    squares_N = np.square(features_NW).sum(1)
    chosen: list[int] = []
    for centre_W in found.cluster_centers_:
        distance_N = squares_N - 2 * features_NW @ centre_W
        distance_N[chosen] = np.inf
        chosen.append(int(distance_N.argmin()))
    return sorted(chosen)
