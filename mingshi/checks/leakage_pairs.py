"""Rows of two splits, or of one, that share something, as pairs.

Letters: `N` all rows, `F` and `S` rows of a first and a second split, `C` classes (rows with equal texts), `K` pairs.
"""

from __future__ import annotations

import numpy as np

from mingshi.checks.clusters import clusters_of

NONE = np.empty((0, 2), dtype=np.int64)


def across(keys_N: np.ndarray, firsts_F: np.ndarray, seconds_S: np.ndarray) -> np.ndarray:
    """`[K, 2]`: every row that has its key on the other side too, with the first such row there; sorted."""
    mine, theirs = keys_N[firsts_F], keys_N[seconds_S]
    first, second = firsts_F[np.isin(mine, theirs)], seconds_S[np.isin(theirs, mine)]
    if not len(first):
        return NONE
    return _together(first, _first_with(keys_N, second, first), _first_with(keys_N, first, second), second)


def inside(keys_N: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[K, 2]`: every row whose key an earlier one has, with the first of them."""
    if not len(rows):
        return NONE
    earliest = _first_with(keys_N, rows, rows)
    return np.asarray(np.stack([rows, earliest], axis=1)[rows != earliest])


def near_across(classes_N: np.ndarray, pairs_K2: np.ndarray, firsts_F: np.ndarray, seconds_S: np.ndarray) -> np.ndarray:
    """`[K, 2]`: rows whose classes are a pair, each with a row of the other side; the last of its pairs counts."""
    count = int(classes_N.max(initial=-1)) + 1
    early, late = _first_of(classes_N, firsts_F, count), _first_of(classes_N, seconds_S, count)
    one, other = np.concatenate([pairs_K2, pairs_K2[:, ::-1]]).T
    both = (early[one] >= 0) & (late[other] >= 0)
    to_late, to_early = np.full(count, -1), np.full(count, -1)
    to_late[one[both]] = late[other[both]]
    to_early[other[both]] = early[one[both]]
    first = firsts_F[to_late[classes_N[firsts_F]] >= 0]
    second = seconds_S[to_early[classes_N[seconds_S]] >= 0]
    return _together(first, to_late[classes_N[first]], to_early[classes_N[second]], second)


def near_inside(classes_N: np.ndarray, labels_N: np.ndarray, pairs_K2: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`[K, 2]`: of each cluster of one label all rows but the first, each with one that it is near to; no copies."""
    count = int(classes_N.max(initial=-1)) + 1
    pairs = _first_of(classes_N, rows, count)[pairs_K2]
    pairs = pairs[(pairs >= 0).all(axis=1)]
    pairs = np.sort(pairs[labels_N[pairs[:, 0]] == labels_N[pairs[:, 1]]], axis=1)
    cluster = clusters_of(len(classes_N), pairs)
    partner = np.full(len(classes_N), -1)
    partner[pairs[:, 0]] = pairs[:, 1]
    partner[pairs[:, 1]] = pairs[:, 0]  # an earlier row before a later one
    later = np.flatnonzero((cluster != np.arange(len(cluster))) & (partner >= 0))
    return np.stack([later, partner[later]], axis=1)


def new(pairs_K2: np.ndarray, told_N: np.ndarray, *, inside: bool) -> np.ndarray:
    """Pairs that say something of a row that was not told yet; bool, updated. Inside a split the second row stays."""
    said = told_N[pairs_K2[:, 0]] if inside else told_N[pairs_K2].all(axis=1)
    kept = pairs_K2[~said]
    told_N[kept[:, 0] if inside else kept] = True
    return np.asarray(kept)


def _together(first: np.ndarray, theirs: np.ndarray, ours: np.ndarray, second: np.ndarray) -> np.ndarray:
    pairs = np.concatenate([np.stack([first, theirs], axis=1), np.stack([ours, second], axis=1)])
    return np.unique(pairs, axis=0)


def _first_with(keys_N: np.ndarray, among: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of each row the first row `among` others that has its key; each has one."""
    keys, places = np.unique(keys_N[among], return_index=True)
    return np.asarray(among[places[np.searchsorted(keys, keys_N[rows])]])


def _first_of(classes_N: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """`[C]`: the first of these rows in each class, or -1."""
    found = np.full(count, -1)
    found[classes_N[rows[::-1]]] = rows[::-1]
    return found
