"""What a simple model says of each row's label when it has not seen the row: the evidence that labels are judged by.

Rows that belong together, by their group or because their texts are equal, are always in one fold. The model of a fold
is trained on the other folds but one, and that one sets its temperature; so no probability knows anything of the label
that it is compared with, nor of a copy's. Nothing here takes probabilities from outside.

Legend: N rows, F columns of features, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = 2**18  # that n-grams are hashed into
CHARACTERS = 1000  # of a text that are read
LONGEST = 4  # characters of an n-gram
WORD = re.compile(r"\w+")
PARAMETERS = 4_000_000  # of the model at most: the solver keeps about twenty vectors of this length
FEW = 5000  # rows up to which there are more folds, because every row is needed
FOLDS_OF_FEW, FOLDS = 10, 5
STRENGTH = 1.0  # of the data against the penalty (scikit-learn's C): weak on purpose, wrong labels are to be outvoted


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Out-of-sample probabilities, and which fold each row was in."""

    probabilities: np.ndarray  # [N, K] float64
    folds: np.ndarray  # [N]


def features(texts: Sequence[str]) -> Any:
    """Counts of characters 1 to 4 at a time and of words, hashed: a sparse matrix [N, F]."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer=_grams, n_features=COLUMNS, alternate_sign=False, norm=None, dtype=np.float32
    ).transform(texts)


def _grams(text: str) -> Iterator[str]:
    shown = " ".join(text[:CHARACTERS].casefold().split())
    yield from (f"\n{word}" for word in WORD.findall(shown))
    for length in range(1, LONGEST + 1):
        yield from (shown[start : start + length] for start in range(len(shown) - length + 1))


def together(*columns: Sequence[int]) -> np.ndarray:
    """A number for each row, the same for rows that share a value in any of the columns, also by way of others. [N]"""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(columns[0])
    starts, ends, nodes = [], [], rows
    for column in columns:
        values, codes = np.unique(np.asarray(column), return_inverse=True)
        starts.append(np.arange(rows))
        ends.append(codes + nodes)
        nodes += len(values)
    start, end = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(nodes, nodes))
    _, components = connected_components(graph, directed=False)
    return np.unique(components[:rows], return_inverse=True)[1]


def deal(labels_N: np.ndarray, components_N: np.ndarray, *, folds: int, seed: int) -> np.ndarray:
    """A fold for each row: components whole, those of a label dealt in turn, the large ones first. [N]"""
    components, first, sizes = np.unique(components_N, return_index=True, return_counts=True)
    chance = np.random.default_rng(seed).permutation(len(components))
    order = np.lexsort((chance, -sizes, labels_N[first]))
    fold = np.empty(len(components), dtype=np.int64)
    fold[order] = np.arange(len(components)) % folds
    return fold[np.searchsorted(components, components_N)]


def judge(features_NF: Any, labels_N: np.ndarray, components_N: np.ndarray, *, seed: int = 0) -> Judged:
    """Probabilities of the K classes, numbered from 0, for each row by a model that has seen none of its component."""
    classes = int(labels_N.max()) + 1
    count = FOLDS_OF_FEW if len(labels_N) <= FEW else FOLDS
    folds = deal(labels_N, components_N, folds=count, seed=seed)
    kept_NF = _frequent(features_NF, PARAMETERS // classes)
    probabilities = np.zeros((len(labels_N), classes))
    for fold in range(count):
        there = folds == fold
        setting = folds == (fold + 1) % count
        learning = ~(there | setting)
        if there.any():
            probabilities[there] = _trained(kept_NF, labels_N, learning, setting, there, classes)
    return Judged(probabilities=probabilities, folds=folds)


def _frequent(features_NF: Any, most: int) -> Any:
    """The columns that occur in two rows or more, and of them the most frequent: what one row has teaches nothing."""
    rows = features_NF.getnnz(axis=0)
    order = np.argsort(-rows, kind="stable")[:most]
    return features_NF[:, np.sort(order[rows[order] > 1])]


def _trained(
    features_NF: Any,
    labels_N: np.ndarray,
    learning: np.ndarray,
    setting: np.ndarray,
    there: np.ndarray,
    classes: int,
) -> np.ndarray:
    """Probabilities of the rows `there` by a model of the rows `learning`, its temperature set on `setting`."""
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    weighing = TfidfTransformer(sublinear_tf=True).fit(features_NF[learning])
    model = LogisticRegression(C=STRENGTH, tol=1e-4, max_iter=500)
    model.fit(weighing.transform(features_NF[learning]), labels_N[learning])
    logits_set, logits_there = (
        _logits(model.decision_function(weighing.transform(features_NF[rows]))) for rows in (setting, there)
    )
    places = {int(label): place for place, label in enumerate(model.classes_)}
    known = np.isin(labels_N[setting], model.classes_)
    targets = np.array([places[int(label)] for label in labels_N[setting][known]], dtype=np.int64)
    temperature = _temperature(logits_set[known], targets)
    probabilities = np.zeros((int(there.sum()), classes))
    probabilities[:, model.classes_] = np.exp(_log_softmax(logits_there / temperature))
    return probabilities


def _logits(decision: np.ndarray) -> np.ndarray:
    """One column a class: of two classes, scikit-learn gives the difference alone."""
    return np.stack([np.zeros_like(decision), decision], axis=1) if decision.ndim == 1 else decision


def _log_softmax(logits_NK: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax

    logs: np.ndarray = log_softmax(logits_NK.astype(np.float64), axis=1)
    return logs


def _temperature(logits_NK: np.ndarray, targets_N: np.ndarray) -> float:
    """What logits are divided by for the highest likelihood of the targets (Guo et al. 2017), from 0.05 to 20."""
    from scipy.optimize import minimize_scalar

    if not len(targets_N):
        return 1.0
    rows = np.arange(len(targets_N))

    def loss(log: float) -> float:
        return float(-_log_softmax(logits_NK / np.exp(log))[rows, targets_N].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))
