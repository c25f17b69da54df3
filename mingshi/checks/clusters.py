"""Rows that hang together: what is joined by pairs is one cluster."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def clusters_of(count: int, pairs_K2: np.ndarray) -> np.ndarray:
    """`[count]`: the first row of each row's cluster; a row in no pair is a cluster of its own."""
    ones = np.ones(len(pairs_K2), dtype=np.int32)
    graph = coo_array((ones, (pairs_K2[:, 0], pairs_K2[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    _, first = np.unique(labels, return_index=True)
    return np.asarray(first[labels])
